"""The names of TorchSparse 1.4 and 2.0, which `install("torchsparse", version=1)` installs."""

from typing import Any as _Any

from sparseconv.compat.torchsparse import backends
from sparseconv.compat.torchsparse.legacy import SparseTensor
from sparseconv.compat.torchsparse.namespace import lay_old_paths as _lay_old_paths
from sparseconv.compat.torchsparse.operators import cat
from sparseconv.compat.torchsparse.tensor import PointTensor

__version__ = "1.4.0"
_lay_old_paths()

__all__ = ["PointTensor", "SparseTensor", "__version__", "backends", "cat"]


def __getattr__(name: str) -> _Any:
    """Raise for what is not here; type checkers take it for the paths of modules."""
    raise AttributeError(f"torchsparse 1.4 has no attribute {name!r} in sparseconv.compat")
