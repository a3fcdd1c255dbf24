"""Functions on dense and sparse tensors; importing this package registers the sparse meanings."""

from sparseconv.functional import arithmetic as arithmetic
from sparseconv.functional import norm as norm
from sparseconv.functional import pointwise as pointwise
from sparseconv.functional.conv import conv4d as conv4d
from sparseconv.functional.conv import inverse_conv as inverse_conv
from sparseconv.functional.conv import subm_conv as subm_conv
from sparseconv.functional.deform import deform_conv as deform_conv
from sparseconv.functional.site_sets import cat as cat
from sparseconv.functional.site_sets import collate as collate
