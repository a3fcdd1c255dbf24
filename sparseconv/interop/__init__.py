"""To and from other libraries; each is imported where it is used.

torch_sparse: PyTorch's COO tensors. scipy_sparse: arrays and matrices. objects: components of
connected sites. open3d_clouds: point clouds and voxel grids. safe_tensors: files.
"""

from sparseconv.interop.objects import components as components
from sparseconv.interop.open3d_clouds import from_open3d as from_open3d
from sparseconv.interop.open3d_clouds import to_open3d as to_open3d
from sparseconv.interop.safe_tensors import from_safetensors as from_safetensors
from sparseconv.interop.safe_tensors import to_safetensors as to_safetensors
from sparseconv.interop.scipy_sparse import from_scipy as from_scipy
from sparseconv.interop.scipy_sparse import neighbours as neighbours
from sparseconv.interop.scipy_sparse import rulebook_to_scipy as rulebook_to_scipy
from sparseconv.interop.scipy_sparse import to_scipy as to_scipy
from sparseconv.interop.torch_sparse import from_torch_sparse as from_torch_sparse
from sparseconv.interop.torch_sparse import to_torch_sparse as to_torch_sparse

__all__ = [
    "components",
    "from_open3d",
    "from_safetensors",
    "from_scipy",
    "from_torch_sparse",
    "neighbours",
    "rulebook_to_scipy",
    "to_open3d",
    "to_safetensors",
    "to_scipy",
    "to_torch_sparse",
]
