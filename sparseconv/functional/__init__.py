"""Functions on dense and sparse tensors; importing this package registers the sparse meanings.

convolution, pooling: windows. values: what acts on each value, and statistics. site_sets: which
sites are active. checks: arguments of convolutions. precision: the dtypes of autocast. refused:
functions without a sparse meaning.
"""

from sparseconv.functional import refused as _refused
from sparseconv.functional.convolution.conv import (
    conv,
    conv4d,
    conv_transpose,
    inverse_conv,
    subm_conv,
)
from sparseconv.functional.convolution.deform import deform_conv
from sparseconv.functional.convolution.local import locally_connected
from sparseconv.functional.convolution.partial import (
    partial_conv,
    partial_conv_transpose,
    subm_partial_conv,
)
from sparseconv.functional.convolution.row_pairs import pairs
from sparseconv.functional.pooling.global_pool import global_avg_pool, global_max_pool
from sparseconv.functional.pooling.on_sites import avg_pool, max_pool
from sparseconv.functional.pooling.partial import partial_avg_pool, partial_max_pool
from sparseconv.functional.pooling.pool import avg_pool4d, max_pool4d
from sparseconv.functional.site_sets import layout as _layout
from sparseconv.functional.site_sets import mirrors as _mirrors
from sparseconv.functional.site_sets import resample as _resample
from sparseconv.functional.site_sets import shapes as _shapes
from sparseconv.functional.site_sets.batches import cat, collate
from sparseconv.functional.site_sets.ends import to_dense, to_sites
from sparseconv.functional.site_sets.sets import crop, difference, intersect, prune, union
from sparseconv.functional.values import arithmetic as _arithmetic
from sparseconv.functional.values import channels as _channels
from sparseconv.functional.values import dropout as _dropout
from sparseconv.functional.values import norm as _norm
from sparseconv.functional.values import operators as _operators
from sparseconv.functional.values import plain as _plain
from sparseconv.functional.values import pointwise as _pointwise
from sparseconv.functional.values import reduce as _reduce
from sparseconv.functional.values import sync_norm as _sync_norm
from sparseconv.functional.values import views as _views
from sparseconv.points.interpolate import interpolate

# importing them registers sparse meanings
_REGISTERED = (
    _arithmetic,
    _channels,
    _dropout,
    _layout,
    _mirrors,
    _norm,
    _plain,
    _operators,
    _pointwise,
    _reduce,
    _refused,
    _resample,
    _sync_norm,
    _shapes,
    _views,
)


def __dir__() -> list[str]:
    """Return the functions; the modules that hold them are not for users."""
    return sorted(__all__)


__all__ = [
    "avg_pool",
    "avg_pool4d",
    "cat",
    "collate",
    "conv",
    "conv4d",
    "conv_transpose",
    "crop",
    "deform_conv",
    "difference",
    "global_avg_pool",
    "global_max_pool",
    "interpolate",
    "intersect",
    "inverse_conv",
    "locally_connected",
    "max_pool",
    "max_pool4d",
    "pairs",
    "partial_avg_pool",
    "partial_conv",
    "partial_conv_transpose",
    "partial_max_pool",
    "prune",
    "subm_conv",
    "subm_partial_conv",
    "to_dense",
    "to_sites",
    "union",
]
