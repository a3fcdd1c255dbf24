"""The operators written straight from their definitions, in float64, for any number of axes D.

Slow on purpose: this package teaches, and it judges the fast code in the tests. It imports nothing
of the library. Shapes: x is ``[B, C, *spatial]``, weight ``[out, in / groups, *kernel]``, mask
``[B, *spatial]``.

meetings: the one list of (p, k, q) that all go through. convolution: convolutions, their gradients
and site laws. pooling: max, average, p-norm. sampling: interpolation, deformable convolution.
partial: partial convolutions and pooling.
"""

from sparseconv.reference.convolution import conv as conv
from sparseconv.reference.convolution import conv_bias_grad as conv_bias_grad
from sparseconv.reference.convolution import conv_input_grad as conv_input_grad
from sparseconv.reference.convolution import conv_sites as conv_sites
from sparseconv.reference.convolution import conv_transpose as conv_transpose
from sparseconv.reference.convolution import conv_transpose_sites as conv_transpose_sites
from sparseconv.reference.convolution import conv_weight_grad as conv_weight_grad
from sparseconv.reference.convolution import inverse_conv as inverse_conv
from sparseconv.reference.convolution import subm_conv as subm_conv
from sparseconv.reference.meetings import output_size as output_size
from sparseconv.reference.meetings import transposed_output_size as transposed_output_size
from sparseconv.reference.partial import partial_avg_pool as partial_avg_pool
from sparseconv.reference.partial import partial_conv as partial_conv
from sparseconv.reference.partial import partial_conv_transpose as partial_conv_transpose
from sparseconv.reference.partial import partial_max_pool as partial_max_pool
from sparseconv.reference.partial import subm_partial_conv as subm_partial_conv
from sparseconv.reference.pooling import avg_pool as avg_pool
from sparseconv.reference.pooling import lp_pool as lp_pool
from sparseconv.reference.pooling import max_pool as max_pool
from sparseconv.reference.pooling import pool_size as pool_size
from sparseconv.reference.sampling import deform_conv as deform_conv
from sparseconv.reference.sampling import interpolate as interpolate
from sparseconv.reference.sampling import sample_linear as sample_linear
