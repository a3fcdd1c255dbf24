"""Sparse convolution in PyTorch: plain networks on point clouds and images with holes."""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from sparseconv import engines as engines
from sparseconv import functional as functional
from sparseconv import io as io
from sparseconv import nn as nn
from sparseconv.core.foreign_names import PACKAGE as _PACKAGE
from sparseconv.core.foreign_names import no_attribute as _no_attribute
from sparseconv.engines import engine as engine
from sparseconv.engines import memory as memory
from sparseconv.errors import SparseConvAttributeError as SparseConvAttributeError
from sparseconv.errors import SparseConvError as SparseConvError
from sparseconv.errors import SparseConvNotImplementedError as SparseConvNotImplementedError
from sparseconv.errors import SparseConvTypeError as SparseConvTypeError
from sparseconv.errors import SparseConvValueError as SparseConvValueError
from sparseconv.functional import cat as cat
from sparseconv.functional import collate as collate
from sparseconv.functional import crop as crop
from sparseconv.functional import difference as difference
from sparseconv.functional import interpolate as interpolate
from sparseconv.functional import intersect as intersect
from sparseconv.functional import prune as prune
from sparseconv.functional import union as union
from sparseconv.points.point_map import PointMap as PointMap
from sparseconv.points.voxels import voxelize as voxelize
from sparseconv.tensor import SparseTensor as SparseTensor
from sparseconv.version import __version__ as __version__

if _TYPE_CHECKING:
    from sparseconv import models as models
    from sparseconv import reference as reference
    from sparseconv import tools as tools
    from sparseconv.tools import optimize as optimize
    from sparseconv.tools import receptive_field as receptive_field
    from sparseconv.tools import submanifold as submanifold
    from sparseconv.tools import summary as summary

_importlib.import_module("sparseconv.tracing")  # fills the doors into compiled graphs

# Loaded when first used, so that importing the package stays quick.
_LATER = {
    "models": "sparseconv.models",
    "reference": "sparseconv.reference",
    "tools": "sparseconv.tools",
    "optimize": "sparseconv.tools",
    "receptive_field": "sparseconv.tools",
    "submanifold": "sparseconv.tools",
    "summary": "sparseconv.tools",
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
    return sorted({name for name in globals() if not name.startswith("_")} | set(_LATER))
