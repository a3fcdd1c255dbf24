"""What ``MinkowskiEngine.utils`` has.

collation: batches. quantization: sites of points. init: initialisation of kernels.
"""

from sparseconv.compat.minkowski.utils import collation, init, quantization
from sparseconv.compat.minkowski.utils.collation import (
    SparseCollation,
    batch_sparse_collate,
    batched_coordinates,
    sparse_collate,
)
from sparseconv.compat.minkowski.utils.init import kaiming_normal_
from sparseconv.compat.minkowski.utils.quantization import (
    fnv_hash_vec,
    ravel_hash_vec,
    sparse_quantize,
    unique_coordinate_map,
)

__all__ = [
    "SparseCollation",
    "batch_sparse_collate",
    "batched_coordinates",
    "collation",
    "fnv_hash_vec",
    "init",
    "kaiming_normal_",
    "quantization",
    "ravel_hash_vec",
    "sparse_collate",
    "sparse_quantize",
    "unique_coordinate_map",
]
