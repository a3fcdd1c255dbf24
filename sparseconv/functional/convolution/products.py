"""What convolutions share: dense functions by axes, weights by kernel cell, the product."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.products import gather_gemm_scatter, scaled_gather_gemm_scatter
from sparseconv.core.rulebook import Rulebook
from sparseconv.functional.convolution.dense import dense_conv4d, dense_conv_transpose4d
from sparseconv.functional.precision import lowered
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

DENSE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d, 4: dense_conv4d}
DENSE_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
    4: dense_conv_transpose4d,
}


class Plan(NamedTuple):
    """What a convolution on sparse input comes down to.

    Attributes:
        sites: the output's.
        rulebook: the pairs of every kernel cell.
        weight: ``[K, G, c_in, c_out]``, the layer's own in the order of the products.
    """

    sites: Sites
    rulebook: Rulebook
    weight: Tensor


def convolved(input: SparseTensor, bias: Tensor | None, plan: Plan) -> SparseTensor:
    """Return the product over the rulebook plus bias, in autocast's dtype where that is on."""
    features, weight = lowered(input.features), lowered(plan.weight)
    if bias is None:
        out = gather_gemm_scatter(features, weight, plan.rulebook)
    else:
        out = scaled_gather_gemm_scatter(features, weight, None, lowered(bias), plan.rulebook)
    return SparseTensor.on_sites(out, plan.sites)


def cells_first(weight: Tensor, groups: int) -> Tensor:
    """Return torch's ``[G * c_out, c_in, *kernel]`` as ``[K, G, c_in, c_out]``."""
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.permute(3, 0, 2, 1)


def cells_first_transposed(weight: Tensor, groups: int) -> Tensor:
    """Return torch's transposed ``[G * c_in, c_out, *kernel]`` as ``[K, G, c_in, c_out]``."""
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.permute(3, 0, 1, 2)
