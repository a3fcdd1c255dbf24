"""The names of TorchSparse 2.1: ``import sparseconv.compat.torchsparse as torchsparse``.

tensor: the tensors. level: their coordinates as sites. caches: what tensors of one input share.
functional, layers, operators, data: the functions and modules. sizes, dense: their helpers.
backbones: networks. backend, backends: what lies beside them. legacy, version1: what 1.4 and 2.0
have in another way. namespace: the paths.
"""

from typing import Any as _Any

from sparseconv.compat.torchsparse import backends
from sparseconv.compat.torchsparse.namespace import lay_paths as _lay_paths
from sparseconv.compat.torchsparse.operators import cat, generative_add
from sparseconv.compat.torchsparse.tensor import PointTensor, SparseTensor

__version__ = "2.1.0"
_lay_paths()
tune = backends.tune

__all__ = [
    "PointTensor",
    "SparseTensor",
    "__version__",
    "backends",
    "cat",
    "generative_add",
    "tune",
]


def __getattr__(name: str) -> _Any:
    """Raise for what is not here; type checkers take it for the paths of modules."""
    raise AttributeError(f"torchsparse has no attribute {name!r} in sparseconv.compat")
