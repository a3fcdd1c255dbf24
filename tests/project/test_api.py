"""The public names, what importing loads, and that no parameter is accepted and ignored."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from torch import nn

import sparseconv as sc
from sparseconv.core.dispatch import HANDLERS


def names(text: str) -> set[str]:
    return set(text.split())


PUBLIC = {
    sc: names("""
        Grid PointMap SparseConvAttributeError SparseConvError SparseConvNotImplementedError
        SparseConvTypeError SparseConvValueError SparseTensor capture cat collate compat components
        convert_weights crop datasets difference engine engines functional interop interpolate
        intersect io load_checkpoint memory models nn optimize pipeline plan prune reach
        receptive_field reference submanifold summary sweeps tiled tiles tools union view voxelize
    """),
    sc.nn: names("""
        AvgPool4d BatchNorm4d Conv4d DeformConv1d DeformConv2d DeformConv3d
        FusedConvolution GlobalAvgPool GlobalMaxPool InverseConv1d InverseConv2d
        InverseConv3d InverseConv4d LocallyConnected1d
        LocallyConnected2d MaxPool4d PartialAvgPool PartialConv1d PartialConv2d PartialConv3d
        PartialConvTranspose1d PartialConvTranspose2d PartialConvTranspose3d PartialMaxPool
        SubmConv1d SubmConv2d SubmConv3d SubmConv4d SubmPartialConv1d SubmPartialConv2d
        SubmPartialConv3d SyncBatchNorm ToDense ToSites
    """),
    sc.functional: names("""
        avg_pool avg_pool4d cat collate conv conv4d conv_transpose crop deform_conv difference
        global_avg_pool global_max_pool interpolate intersect inverse_conv locally_connected
        max_pool max_pool4d pairs partial_avg_pool partial_conv partial_conv_transpose
        partial_max_pool prune subm_conv
        subm_partial_conv to_dense to_sites union
    """),
    sc.engines: names("""
        ENGINES Engine Epilogue Index asked_for chosen engine explain for_tensor get
    """),
    sc.io: names("Points Scan iter_points join_points read_points scan write_points"),
}


def exported(module: ModuleType) -> set[str]:
    """Return the names that a package exports: `__all__`, else `x as x`, and its own."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    tree = ast.parse(inspect.getsource(module))
    found = set()
    later = [entry for node in tree.body if isinstance(node, ast.If) for entry in node.body]
    for node in tree.body + later:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_public_names(module: ModuleType) -> None:
    """A name that comes or goes is a decision: change the table together with the changelog."""
    submodules = {path.stem for path in Path(module.__path__[0]).rglob("*")}
    registered = submodules - PUBLIC[module]  # imported for what they register
    assert exported(module) - registered == PUBLIC[module]
    if module in (sc, sc.functional):
        assert dir(module) == sorted(PUBLIC[module])
    for name in PUBLIC[module]:
        assert hasattr(module, name)
        assert name in dir(module)


def test_no_function_has_the_path_of_a_module() -> None:
    """`import sparseconv.a.b as c` gives the module, whoever has a function of that name."""
    for found in pkgutil.walk_packages(sc.__path__, "sparseconv."):
        if found.name != "sparseconv.__main__":
            package, _, name = found.name.rpartition(".")
            module = importlib.import_module(found.name)
            assert getattr(importlib.import_module(package), name) is module


TENSOR_METHODS = names("""
    at batch_size bfloat16 channels coords cpu cuda dense density detach device dim double dtype
    float from_dense half is_floating_point mask ndim num_sites on_sites replace requires_grad
    requires_grad_ shape size spatial_shape split to
""")


def test_the_names_of_design_are_on_the_tensor() -> None:
    assert names(" ".join(dir(sc.SparseTensor))) >= TENSOR_METHODS


LOADED = """
import json, sys
import torch, numpy
before = set(sys.modules)
import sparseconv
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_loads_no_engine_and_nothing_but_this_package() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED], capture_output=True, text=True, check=True
    )
    roots = {name.partition(".")[0] for name in json.loads(result.stdout)}
    assert not roots & {"numba", "llvmlite", "triton"}
    assert roots - set(sys.stdlib_module_names) <= {"sparseconv", "torch", "numpy"}
    loaded = {name for name in json.loads(result.stdout) if name.startswith("sparseconv.engines.")}
    assert loaded == {
        f"sparseconv.engines.{name}"
        for name in ("control_groups", "memory", "memory_limit", "memory_pages", "protocol")
    }


def functions_of(owner: Any, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    bases = [kind for kind in inspect.getmro(owner) if kind.__module__.startswith("sparseconv")]
    for name, attribute in itertools.chain(*(vars(kind).items() for kind in reversed(bases))):
        member = getattr(attribute, "__func__", attribute)  # class methods
        if inspect.isclass(member) and not name.startswith("_") and not prefix.count("."):
            yield from functions_of(member, f"{prefix}{name}.")
        elif isinstance(member, FunctionType) and member.__module__.startswith("sparseconv"):
            yield f"{prefix}{name}", inspect.unwrap(member)


def public_functions() -> dict[str, Callable[..., Any]]:
    """Return every public function, the methods of public classes, and every sparse meaning."""
    found = {}
    for module, public in PUBLIC.items():
        for name in public:
            member = getattr(module, name)
            label = f"{module.__name__.partition('.')[2]}:{name}"
            if inspect.isclass(member):
                found |= dict(functions_of(member, f"{label}."))
            elif callable(member) and not inspect.ismodule(member):
                found[label] = inspect.unwrap(member)
    for registered in HANDLERS.values():
        handler = inspect.unwrap(getattr(registered, "func", registered))
        found[f"{handler.__module__}:{handler.__qualname__}"] = handler
    return found


# What the language, or a caller's contract, passes whether it is needed or not.
EXEMPT = {
    "engines:Engine": "a protocol has no bodies",
    "__torch_function__": "Python's protocol passes types",
    "_to_sites": "a sparse tensor has its sites already",
    "contiguous": "PyTorch's protocol passes a memory format",
    "_collated": "the default collate passes its table",
}


def test_no_parameter_is_accepted_and_ignored() -> None:
    ignored = []
    functions = public_functions()
    assert len(functions) > 60
    for label, function in functions.items():
        written = function.__code__.co_filename != "<string>"  # not by a dataclass
        exempt = any(part in label for part in EXEMPT)
        if exempt or not written or function.__name__ == "<lambda>":
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition = tree.body[0]
        assert isinstance(definition, ast.FunctionDef), label
        used = {
            node.id
            for statement in definition.body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        # ``super()`` and dataclass fields use self without naming it
        parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
        ignored += [f"{label}({name})" for name in sorted(parameters - used)]
    assert ignored == []


def test_the_check_above_sees_an_ignored_parameter() -> None:
    assert any("functional.convolution.products:meaning" in label for label in public_functions())
    assert any("SparseTensor.dense" in label for label in public_functions())


@pytest.mark.parametrize("name", sorted(PUBLIC[sc.nn]))
def test_every_module_is_one_of_torchs(name: str) -> None:
    assert issubclass(getattr(sc.nn, name), nn.Module)


def test_every_public_name_is_documented() -> None:
    for module, public in PUBLIC.items():
        assert module.__doc__
        for name in public:
            member = getattr(module, name)
            if callable(member):
                assert inspect.getdoc(member), f"{module.__name__}.{name}"


def test_the_version_is_that_of_the_package() -> None:
    assert sc.__version__.count(".") == 2
