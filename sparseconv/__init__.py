"""Sparse convolution in PyTorch: plain networks on point clouds and images with holes."""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from sparseconv.core.remember import collector_paused as _paused

with _paused():
    from sparseconv import engines, functional, io, nn
    from sparseconv.core.foreign_names import PACKAGE as _PACKAGE
    from sparseconv.core.foreign_names import no_attribute as _no_attribute
    from sparseconv.core.grid import Grid
    from sparseconv.engines import engine, memory
    from sparseconv.errors import (
        SparseConvAttributeError,
        SparseConvError,
        SparseConvNotImplementedError,
        SparseConvTypeError,
        SparseConvValueError,
    )
    from sparseconv.functional import (
        cat,
        collate,
        crop,
        difference,
        interpolate,
        intersect,
        prune,
        union,
    )
    from sparseconv.points.point_map import PointMap
    from sparseconv.points.voxels import voxelize
    from sparseconv.tensor import SparseTensor
    from sparseconv.version import __version__ as __version__

    _importlib.import_module("sparseconv.tracing")  # fills the doors into compiled graphs
    _importlib.import_module("sparseconv.integration")  # tells PyTorch what a SparseTensor holds

if _TYPE_CHECKING:
    from sparseconv import compat, datasets, interop, models, reference, tiles, tools, view
    from sparseconv.compat.checkpoints import convert_weights, load_checkpoint
    from sparseconv.interop import components
    from sparseconv.tiles import tiled
    from sparseconv.tools import (
        capture,
        optimize,
        pipeline,
        plan,
        reach,
        receptive_field,
        submanifold,
        summary,
        sweeps,
    )

# Loaded when first used, so that importing the package stays quick.
_LATER = {
    "capture": "sparseconv.tools",
    "components": "sparseconv.interop",
    "datasets": "sparseconv.datasets",
    "interop": "sparseconv.interop",
    "view": "sparseconv.view",
    "compat": "sparseconv.compat",
    "convert_weights": "sparseconv.compat.checkpoints",
    "load_checkpoint": "sparseconv.compat.checkpoints",
    "models": "sparseconv.models",
    "reference": "sparseconv.reference",
    "tools": "sparseconv.tools",
    "optimize": "sparseconv.tools",
    "pipeline": "sparseconv.tools",
    "plan": "sparseconv.tools",
    "reach": "sparseconv.tools",
    "receptive_field": "sparseconv.tools",
    "submanifold": "sparseconv.tools",
    "summary": "sparseconv.tools",
    "sweeps": "sparseconv.tools",
    "tiled": "sparseconv.tiles",
    "tiles": "sparseconv.tiles",
}


def __getattr__(name: str) -> _Any:
    """Load what is named by its first use."""
    if name not in _LATER:
        raise _no_attribute(__name__, name, _PACKAGE)
    module = _importlib.import_module(_LATER[name])
    value = module if _LATER[name].endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, those loaded later too."""
    return sorted(__all__)


__all__ = [
    "Grid",
    "PointMap",
    "SparseConvAttributeError",
    "SparseConvError",
    "SparseConvNotImplementedError",
    "SparseConvTypeError",
    "SparseConvValueError",
    "SparseTensor",
    "capture",
    "cat",
    "collate",
    "compat",
    "components",
    "convert_weights",
    "crop",
    "datasets",
    "difference",
    "engine",
    "engines",
    "functional",
    "interop",
    "interpolate",
    "intersect",
    "io",
    "load_checkpoint",
    "memory",
    "models",
    "nn",
    "optimize",
    "pipeline",
    "plan",
    "prune",
    "reach",
    "receptive_field",
    "reference",
    "submanifold",
    "summary",
    "sweeps",
    "tiled",
    "tiles",
    "tools",
    "union",
    "view",
    "voxelize",
]
