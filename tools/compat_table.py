"""Write the tables of docs/compat.md: which names of other libraries are here, and their tests.

Run ``python tools/compat_table.py`` after adding a name; a test checks that the page is current.
The names come from ``tests/compat/fixtures/*_names.json``: spconv itself wrote its own, those of
MinkowskiEngine and TorchSparse are read from their sources.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "compat.md"
FIXTURES = ROOT / "tests" / "compat" / "fixtures"
START = "<!-- names: made by python tools/compat_table.py -->"
END = "<!-- end of names -->"

_GPU = "no: a timer or an allocator of CUDA"
_INSIDE = "no: spconv's own machinery"
_AUTOGRAD = "no: an autograd function behind a module"
_MAPS = "no: the library's own machinery; sites have an index and rulebooks here"
_BEV = "no: `x.dense()` and a layer of PyTorch"
# Why a name is not here.
MISSING = {
    "AllocKeys": _INSIDE,
    "BoxOps": "no: box operators",
    "CUDAKernelTimer": _GPU,
    "HashTable": "no: `sparseconv.SparseTensor.at` looks coordinates up",
    "PrintCurrentTime": _GPU,
    "PrintTensorMeta": "no: it prints",
    "SparseAvgPoolImplicitGemmFunction": _INSIDE,
    "SparseConvFunction": _INSIDE,
    "SparseImplicitGemmFunction": _INSIDE,
    "SparseInverseConvFunction": _INSIDE,
    "SparseMaxPoolFunction": _INSIDE,
    "SparseMaxPoolImplicitGemmFunction": _INSIDE,
    "SpconvOps": _INSIDE,
    "SubMConvFunction": _INSIDE,
    "ThrustSortAllocator": _GPU,
    "get_current_stream": _GPU,
    "identity_decorator": _INSIDE,
    "non_max_suppression_cpu": "no: box operators",
    "rbbox_intersection": "no: box operators",
    "rbbox_iou": "no: box operators",
    "rbbox_iou_loss": "no: box operators",
    "rotate_non_max_suppression_cpu": "no: box operators",
    "spconv_save_debug_data": _INSIDE,
    "torch_tensor_to_tv": _INSIDE,
    # MinkowskiEngine
    "KernelRegion": _MAPS,
    "MinkowskiAdaptiveLogSoftmaxWithLoss": "no: a loss of two arguments; take `x.F`",
    "MinkowskiSPMMAverageFunction": _AUTOGRAD,
    "convert_region_type": _MAPS,
    "cudart_version": _GPU,
    "get_gpu_memory_info": "no: `torch.cuda.mem_get_info`",
    "print_diagnostics": "no: `sparseconv engines`",
    "spmm": "no: `torch.sparse.mm`",
    "summary": "no: `sparseconv.summary` of the native model",
    # TorchSparse
    "AttributeDict": _MAPS,
    "ToBEVConvolution": _BEV,
    "ToBEVHeightCompression": _BEV,
    "ToBEVReduction": _BEV,
    "ToDenseBEVConvolution": _BEV,
    "attrdict": _MAPS,
    "attributedict": _MAPS,
    "build_kernel_map": _MAPS,
    "convert_transposed_out_in_map": _MAPS,
    "keys_check": _MAPS,
    "transpose_kernel_map": _MAPS,
}
# What the table calls the libraries, by the names of their rooms.
TITLES = {"minkowski": "MinkowskiEngine", "spconv": "spconv", "torchsparse": "torchsparse"}
# Records that no program makes itself.
MADE_BY_LAYERS = {"ImplicitGemmIndiceData", "IndiceData"}


class Line(NamedTuple):
    """A line of a table: a name, whether it is here, and the files of tests that use it."""

    name: str
    supported: str
    tests: list[str]


def lines(library: str) -> list[Line]:
    """Return the lines of a library: every name once, under the first module that has it here."""
    found: dict[str, Line] = {}
    modules = json.loads((FIXTURES / f"{library}_names.json").read_text(encoding="utf-8"))
    for path, names in modules.items():
        module = importlib.import_module(f"sparseconv.compat.{library}.{path}".rstrip("."))
        for name, parameters in names.items():
            if name not in found or found[name].supported.startswith("no"):
                full = ".".join(part for part in (TITLES[library], path, name) if part)
                found[name] = Line(full, _support(module, name, parameters), _tests(name))
    return list(found.values())


def _support(module: Any, name: str, parameters: list[str]) -> str:
    """Return whether a module has a name, with the parameters that the library gives it."""
    if not hasattr(module, name):
        inside = name.endswith(("Function", "Funtion")) or name.startswith("build_kmap_")
        return MISSING.get(name, _AUTOGRAD if inside else "no")
    if name in MADE_BY_LAYERS:
        return "yes, made by layers"
    value = getattr(module, name)
    lacking = [] if _takes_any(value) else sorted(set(parameters) - set(parameters_of(value)))
    return f"yes, without {', '.join(lacking)}" if lacking else "yes"


def _takes_any(value: Any) -> bool:
    """Return whether a callable hands what it is given on to another."""
    if not callable(value) or hasattr(value, "__members__"):
        return False
    signature = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def parameters_of(value: Any) -> list[str]:
    """Return the names of a callable's parameters, none of an enumeration's."""
    if not callable(value) or hasattr(value, "__members__"):
        return []
    signature = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    return [name for name in signature.parameters if name not in ("self", "args", "kwargs")]


@functools.cache
def _sources() -> dict[str, str]:
    """Return the text of each test file, with that of the cases that it takes."""
    folder = ROOT / "tests" / "compat"
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    cases = {name: text for name, text in texts.items() if name.endswith("_cases")}
    return {
        name: text + "".join(other for case, other in cases.items() if f"from {case} " in text)
        for name, text in texts.items()
        if name.startswith("test_")
    }


def _tests(name: str) -> list[str]:
    """Return the test files that name it, also as a pattern of its number of axes."""
    stem = re.sub(r"[1-4]d$", "", name)
    pattern = re.compile(rf'\b{name}\b|\b{stem}\{{|"{stem}"')
    return [file for file, text in _sources().items() if pattern.search(text)]


def table(library: str) -> str:
    """Return a library's table."""
    rows = ["| name | supported | tested by |", "| --- | --- | --- |"]
    for line in lines(library):
        tests = ", ".join(f"`{test}`" for test in line.tests)
        rows.append(f"| `{line.name}` | {line.supported} | {tests} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """Return the page with its tables made anew."""
    head, rest = text.split(START)
    _, tail = rest.split(END)
    libraries = sorted(path.stem.removesuffix("_names") for path in FIXTURES.glob("*_names.json"))
    tables = "\n\n".join(f"### {TITLES[library]}\n\n{table(library)}" for library in libraries)
    return f"{head}{START}\n\n{tables}\n\n{END}{tail}"


def main() -> None:
    """Write the page."""
    TARGET.write_text(written(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
