"""The names of Numba and llvmlite that are not public and that this folder relies on.

Another version may rename them, and a kernel would then fail far from the cause. So they are looked
up once, when the engine is loaded.

Benchmark: start first forward, cache
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import version

from sparseconv.errors import SparseConvError

TESTED = {"numba": ("0.62", "0.68"), "llvmlite": ("0.45", "0.50")}  # first and last version
PRIVATE_NAMES = (
    "numba.core.caching.CompileResultCacheImpl._locator_classes",
    "numba.core.caching.FunctionCache._impl_class",
    "numba.core.caching.FunctionCache.save_overload",
    "numba.core.caching._CacheLocator.get_disambiguator",
    "numba.core.callconv.CPUCallConv.call_function",
    "numba.core.callconv.CPUCallConv.get_function_type",
    "numba.core.cgutils.alloca_once",
    "numba.core.cgutils.alloca_once_value",
    "numba.core.cgutils.get_null_value",
    "numba.core.cgutils.if_unlikely",
    "numba.core.codegen.JITCodeLibrary.get_pointer_to_function",
    "numba.core.compiler.CompileResult.entry_point",
    "numba.core.compiler.CompileResult.fndesc",
    "numba.core.compiler.CompileResult.library",
    "numba.core.cpu.CPUContext.call_conv",
    "numba.core.cpu.CPUContext.make_array",
    "numba.core.cpu.CPUContext.make_tuple",
    "numba.core.dispatcher._CompileStats.cache_misses",
    "numba.core.dispatcher.Dispatcher.enable_caching",
    "numba.core.funcdesc.FunctionDescriptor.llvm_func_name",
    "numba.core.registry.CPUDispatcher.stats",
    "llvmlite.ir.IRBuilder.atomic_rmw",
    "llvmlite.ir.IntType.as_pointer",
    "llvmlite.ir.LiteralStructType",
)


def check() -> None:
    """Look every private name up.

    Raises:
        SparseConvError: one is missing; names the version that is installed and those tested.
    """
    for name in PRIVATE_NAMES:
        try:
            _found(name)
        except (ImportError, AttributeError):
            package = name.partition(".")[0]
            first, last = TESTED[package]
            raise SparseConvError(
                f"{package}: version {version(package)} has no {name}, which the CPU engine needs; "
                f"tested from {first} to {last}"
            ) from None


def _found(name: str) -> object:
    """Return what a dotted name names: attributes of the longest part that is a module."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[count:], module)
    raise ModuleNotFoundError(name)
