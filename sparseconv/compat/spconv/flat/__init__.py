"""The names of spconv 1.x, which lie flat: `spconv.SparseConvTensor`. mmcv's operators are a fork.

tensor: the tensor, whose features can be set. conv: the convolutions. utils: the voxelisers.
"""

from typing import Any

from sparseconv.compat.spconv import functional, ops
from sparseconv.compat.spconv.flat import conv, utils
from sparseconv.compat.spconv.flat.tensor import SparseConvTensor
from sparseconv.compat.spconv.layers import containers as modules
from sparseconv.compat.spconv.layers import pooling as pool
from sparseconv.compat.spconv.layers import tables
from sparseconv.compat.spconv.layers.containers import (
    Identity,
    RemoveGrid,
    SparseModule,
    SparseSequential,
    ToDense,
)
from sparseconv.compat.spconv.layers.pooling import (
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
)
from sparseconv.compat.spconv.layers.tables import AddTable, ConcatTable, JoinTable
from sparseconv.compat.spconv.tensor import scatter_nd

__version__ = "1.2.1"

# The modules of spconv 1.x below its root.
PATHS = {
    "conv": conv,
    "functional": functional,
    "identity": modules,
    "modules": modules,
    "ops": ops,
    "pool": pool,
    "tables": tables,
    "utils": utils,
}

__all__ = [
    "AddTable",
    "ConcatTable",
    "Identity",
    "JoinTable",
    "RemoveGrid",
    "SparseConvTensor",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseModule",
    "SparseSequential",
    "ToDense",
    "conv",
    "functional",
    "modules",
    "ops",
    "pool",
    "scatter_nd",
    "tables",
    "utils",
]
__all__ += conv.__all__


def __getattr__(name: str) -> Any:
    """Return a convolution."""
    if name in conv.__all__:
        return getattr(conv, name)
    raise AttributeError(f"spconv 1.x has no attribute {name!r}")
