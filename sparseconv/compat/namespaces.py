"""Let ``import spconv`` and the like find the names of this package, and take that back."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvError, SparseConvValueError

# A function each that returns, for a major version, modules by the names to import them by.
LIBRARIES = {
    "spconv": ("sparseconv.compat.spconv.namespace", "modules"),
    "MinkowskiEngine": ("sparseconv.compat.minkowski.namespace", "modules"),
    "torchsparse": ("sparseconv.compat.torchsparse.namespace", "modules"),
    "mmcv": ("sparseconv.compat.spconv.namespace", "mmcv_modules"),
}
_ON_REQUEST = {"mmcv"}  # a part of a library that is in use for the rest of it
# What stood in `sys.modules` under each name before `install`; None for nothing.
_REPLACED: dict[str, ModuleType | None] = {}


def install(*libraries: str, version: int = 2, force: bool = False) -> None:
    """Let imports of other libraries find the names of :mod:`sparseconv.compat`.

    Call it before the program imports them. ``python -m sparseconv.compat`` calls it for a program
    that is to stay unchanged.

    Args:
        libraries: which of them, ``"spconv"``, ``"MinkowskiEngine"`` or ``"torchsparse"``; all of
            these where left out, and ``"mmcv"`` where it is named: its module ``mmcv.ops`` then
            has spconv's names and no others.
        version: the major version whose names are meant, 1 or 2. Version 1 of spconv has flat names
            (``spconv.SparseConvTensor``), tensors whose ``features`` can be set, and weights
            ``[*kernel, C_in, C_out]``. Version 1 of TorchSparse, 1.4, has the sample in the last
            column of coordinates. MinkowskiEngine has one version.
        force: whether to take the place of a library that is installed or was imported already.

    Raises:
        SparseConvValueError: a library or a version that this package has no names of.
        SparseConvError: the library itself was imported already.

    Warns:
        UserWarning: the library itself is installed, and is hidden from now on.

    Example:
        >>> import sparseconv
        >>> sparseconv.compat.install("spconv", force=True)
        >>> import spconv.pytorch as spconv
        >>> spconv.SparseConvTensor.__module__
        'sparseconv.compat.spconv.tensor'
        >>> sparseconv.compat.uninstall()
    """
    if check_int("version", version) not in (1, 2):
        raise SparseConvValueError(f"version: must be 1 or 2, got {version}")
    for library in libraries:
        if library not in LIBRARIES:
            raise SparseConvValueError(
                f"libraries: must be some of {sorted(LIBRARIES)}, got {library!r}"
            )
    modules: dict[str, ModuleType] = {}
    for library in libraries or [name for name in LIBRARIES if name not in _ON_REQUEST]:
        room, function = LIBRARIES[library]
        modules |= getattr(importlib.import_module(room), function)(version)
    if not force:
        _check_hidden(modules)
    for name in _beside(modules):
        _REPLACED.setdefault(name, sys.modules.pop(name))
    for name, module in modules.items():
        _REPLACED.setdefault(name, sys.modules.get(name))
        sys.modules[name] = module


def uninstall() -> None:
    """Take back what :func:`install` did; modules that were imported before are there again."""
    for name, module in _REPLACED.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
    _REPLACED.clear()


def _beside(modules: Mapping[str, ModuleType]) -> list[str]:
    """Return the names of imported modules of the same packages that ``modules`` lacks."""
    roots = {name for name in modules if "." not in name}
    return [name for name in sys.modules if name.partition(".")[0] in roots and name not in modules]


def _check_hidden(modules: Mapping[str, ModuleType]) -> None:
    """Raise where a library itself is in use, warn where it is installed."""
    for name in modules:
        if "." in name or name in _REPLACED:
            continue
        if name in sys.modules:
            raise SparseConvError(
                f"{name} was imported from {getattr(sys.modules[name], '__file__', 'elsewhere')}: "
                f"call install before the first import, or with force=True to take its place"
            )
        found = importlib.util.find_spec(name)
        if found is not None:
            warnings.warn(
                f"{name} is installed ({found.origin}); imports get sparseconv.compat instead, "
                f"until sparseconv.compat.uninstall()",
                stacklevel=3,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a module or a script as ``python -m`` or ``python`` would, on these names."""
    parser = argparse.ArgumentParser(
        prog="python -m sparseconv.compat",
        description="Run a program that imports spconv, MinkowskiEngine or torchsparse on "
        "sparseconv instead.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", type=int, default=2, choices=(1, 2), help="of their names")
    parser.add_argument("program", metavar="MODULE_OR_SCRIPT", help="train.py, or package.train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own")
    options = parser.parse_args(arguments)
    install(version=options.version)
    sys.argv = [options.program, *options.arguments]
    if Path(options.program).is_file():
        sys.path[0] = str(Path(options.program).resolve().parent)
        runpy.run_path(options.program, run_name="__main__")
    else:
        runpy.run_module(options.program, run_name="__main__", alter_sys=True)
