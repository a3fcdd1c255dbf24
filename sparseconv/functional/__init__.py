"""Functions on dense and sparse tensors; importing this package registers the sparse meanings.

convolution, pooling: windows. values: what acts on each value, and statistics. site_sets: which
sites are active. checks: arguments of convolutions. precision: the dtypes of autocast. refused:
functions without a sparse meaning.
"""

from sparseconv.functional import refused as refused
from sparseconv.functional.convolution.conv import conv as conv
from sparseconv.functional.convolution.conv import conv4d as conv4d
from sparseconv.functional.convolution.conv import conv_transpose as conv_transpose
from sparseconv.functional.convolution.conv import inverse_conv as inverse_conv
from sparseconv.functional.convolution.conv import subm_conv as subm_conv
from sparseconv.functional.convolution.deform import deform_conv as deform_conv
from sparseconv.functional.convolution.local import locally_connected as locally_connected
from sparseconv.functional.convolution.partial import partial_conv as partial_conv
from sparseconv.functional.convolution.partial import (
    partial_conv_transpose as partial_conv_transpose,
)
from sparseconv.functional.convolution.partial import subm_partial_conv as subm_partial_conv
from sparseconv.functional.pooling.global_pool import global_avg_pool as global_avg_pool
from sparseconv.functional.pooling.global_pool import global_max_pool as global_max_pool
from sparseconv.functional.pooling.partial import partial_avg_pool as partial_avg_pool
from sparseconv.functional.pooling.partial import partial_max_pool as partial_max_pool
from sparseconv.functional.pooling.pool import avg_pool4d as avg_pool4d
from sparseconv.functional.pooling.pool import max_pool4d as max_pool4d
from sparseconv.functional.site_sets import layout as layout
from sparseconv.functional.site_sets import resample as resample
from sparseconv.functional.site_sets.batches import cat as cat
from sparseconv.functional.site_sets.batches import collate as collate
from sparseconv.functional.site_sets.ends import to_dense as to_dense
from sparseconv.functional.site_sets.ends import to_sites as to_sites
from sparseconv.functional.site_sets.sets import crop as crop
from sparseconv.functional.site_sets.sets import difference as difference
from sparseconv.functional.site_sets.sets import intersect as intersect
from sparseconv.functional.site_sets.sets import prune as prune
from sparseconv.functional.site_sets.sets import union as union
from sparseconv.functional.values import arithmetic as arithmetic
from sparseconv.functional.values import channels as channels
from sparseconv.functional.values import dropout as dropout
from sparseconv.functional.values import norm as norm
from sparseconv.functional.values import operators as operators
from sparseconv.functional.values import pointwise as pointwise
from sparseconv.functional.values import reduce as reduce
from sparseconv.points.interpolate import interpolate as interpolate
