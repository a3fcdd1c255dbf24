"""Functions on dense and sparse tensors; importing this package registers the sparse meanings."""

from sparseconv.functional import arithmetic as arithmetic
from sparseconv.functional import norm as norm
from sparseconv.functional import pointwise as pointwise
from sparseconv.functional.conv import conv4d as conv4d
from sparseconv.functional.conv import inverse_conv as inverse_conv
from sparseconv.functional.conv import subm_conv as subm_conv
from sparseconv.functional.partial import partial_conv as partial_conv
from sparseconv.functional.partial import partial_conv_transpose as partial_conv_transpose
from sparseconv.functional.partial import subm_partial_conv as subm_partial_conv
from sparseconv.functional.partial_pool import partial_avg_pool as partial_avg_pool
from sparseconv.functional.partial_pool import partial_max_pool as partial_max_pool
from sparseconv.functional.site_sets import cat as cat
from sparseconv.functional.site_sets import collate as collate
