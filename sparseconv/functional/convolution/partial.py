"""Partial convolution: what is missing is not zero, and the rest of the window stands in for it.

A mask says which values are valid. A dense tensor is given one and returns the output's along with
the output; without one every value is valid. A SparseTensor needs none: its sites are the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparseconv.autograd.products import scaled_gather_gemm_scatter
from sparseconv.core.arguments import Size
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.geometry import Kind
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution import masks
from sparseconv.functional.convolution.dense import dense_conv, dense_conv_transpose
from sparseconv.functional.convolution.products import Plan, check_extent, checked, planned
from sparseconv.functional.convolution.table import CONVOLUTIONS, Convolution, line_of
from sparseconv.functional.precision import lowered
from sparseconv.tensor import SparseTensor


@dispatched
def partial_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
    *,
    like: Input | None = None,
) -> Any:
    """Partial convolution: a convolution of the valid values, times window size over valid count.

    ``y = |1| / sum(m) * sum(m * w * x) + b`` where the window holds a valid value, else 0; its
    mask is ``[sum(m) > 0]``. ``|1|`` is the whole window, padding included: with every value
    valid (``mask=None``, "partial convolution based padding") the result is the zero-padded
    convolution with its border reweighted. What lies under mask 0 is never read, not even NaN.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_out, C_in / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, dilation: int or one per axis.
        padding: int, one per axis, ``"same"`` or ``"valid"``.
        groups: divides both channel counts; a mask per channel is counted in its own group.
        mask: bool. Dense: ``[B, 1, *spatial]``, ``[B, *spatial]``, or ``[B, C_in, *spatial]`` with
            a mask per channel. Sparse: None, or ``[N, C_in]`` where a site has missing channels.
        normalize: ``"ratio"``, the formula; ``"mean"`` without ``|1|``: the mean over the valid
            places (of a mask per channel: over the valid values, per channel of the group).
        like: a tensor of the output's extent, on whose sites to compute instead; 0 where the window
            holds no valid value. A dense input gives a dense output, at every site.

    Returns:
        y ``[B, C_out, *output]`` of the input's kind, on sparse input by the regular site law.
        Where a mask was given, ``(y, mask)``: the mask ``[B, 1, *output]``, or per channel where
        that was.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what a convolution cannot have.

    Source:
        Liu et al. 2018, "Image Inpainting for Irregular Holes Using Partial Convolutions" (arXiv
        1804.07723), and "Partial Convolution based Padding" (arXiv 1811.11718); ``"mean"``: Uhrig
        et al. 2017, "Sparsity Invariant CNNs" (arXiv 1708.06500).

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[1.0, 2.0, torch.nan]]]), torch.tensor([[[True, True, False]]])
        >>> y, mask = sc.functional.partial_conv(x, torch.ones(1, 1, 3), padding=1, mask=mask)
        >>> y, mask
        (tensor([[[4.5000, 4.5000, 6.0000]]]), tensor([[[True, True, True]]]))
    """
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    line = CONVOLUTIONS["partial_conv"]
    return _dense(line, input, weight, bias, window, (mask, normalize), like)


@dispatched
def subm_partial_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Size = 1,
    groups: int = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
    *,
    like: Input | None = None,
) -> Any:
    """Submanifold partial convolution: :func:`partial_conv` at the active sites alone.

    No site is added: on a dense tensor with a mask, ``y`` is 0 where no channel was valid.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_out, C_in / groups, *kernel]``, odd on every axis.
        bias: ``[C_out]`` or None.
        dilation: int or one per axis.
        groups, mask, normalize, like: as of :func:`partial_conv`.

    Returns:
        y ``[B, C_out, *spatial]`` of the input's kind, on the input's sites; ``(y, mask)`` where a
        mask was given.

    Raises:
        SparseConvError: an even kernel; a mask that is not bool or does not fit; what a
            convolution cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1], [0, 2]]), (5,))
        >>> sc.functional.subm_partial_conv(x, torch.ones(1, 1, 3)).features.flatten()
        tensor([3., 3.])
    """
    window = {"dilation": dilation, "groups": groups}
    line = CONVOLUTIONS["subm_partial_conv"]
    return _dense(line, input, weight, bias, window, (mask, normalize), like)


@dispatched
def partial_conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    mask: Tensor | None = None,
    normalize: str = "ratio",
    *,
    like: Input | None = None,
) -> Any:
    """Partial transposed convolution: valid values are scattered, sums reweighted.

    ``y = |1| / sum(m) * sum(m * w * x) + b`` over the values that reach a site, 0 where none does.
    ``|1|`` counts those that would reach it without border and holes: it depends on the site's
    place between two strides, so that with every value valid nothing but the border changes.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense, 1 to 4 spatial axes.
        weight: ``[C_in, C_out / groups, *kernel]``.
        bias: ``[C_out]`` or None.
        stride, padding, output_padding, groups, dilation: as of torch's transposed convolution.
        mask, normalize, like: as of :func:`partial_conv`.

    Returns:
        y ``[B, C_out, *output]`` of the input's kind; ``(y, mask)`` where a mask was given.

    Raises:
        SparseConvError: a mask that is not bool or does not fit; what a transposed convolution
            cannot have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, mask = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[True, False]]])
        >>> weight = torch.ones(1, 1, 2)
        >>> sc.functional.partial_conv_transpose(x, weight, mask=mask)[0]
        tensor([[[2., 2., 0.]]])
    """
    window = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "groups": groups,
        "dilation": dilation,
    }
    line = CONVOLUTIONS["partial_conv_transpose"]
    return _dense(line, input, weight, bias, window, (mask, normalize), like)


def _dense(
    line: Convolution,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: dict[str, Any],
    valid: tuple[Tensor | None, str],
    like: Input | None,
) -> Any:
    """Return the partial convolution of a dense tensor; with a mask, also the mask.

    Args:
        line: of the table.
        input, weight, bias, like: of the call.
        window: the arguments of the convolution without masks.
        valid: the mask, or None where every value is valid, and the normalisation.
    """
    geometry, groups = checked(line, input, weight, bias, window)
    mask, normalize = valid
    masks.check_normalize(normalize)
    size = check_extent(geometry, input, like)
    known = masks.dense_mask(mask, input)
    shown = masks.hidden(input, known)
    if line.transposed:
        total = dense_conv_transpose(shown, weight, None, geometry, groups, size)
    else:
        total = dense_conv(shown, weight, None, geometry, groups)
    coverage = masks.dense_coverage(known, geometry, groups, normalize, input.dtype)
    if line.kind is Kind.SUBMANIFOLD:
        here = known.any(dim=1, keepdim=True)
        coverage = coverage._replace(reached=coverage.reached & here)
    factor, reached = masks.per_channel(coverage, total.shape[1])
    y = masks.hidden(masks.normalised(total, factor, bias), reached)
    return y if mask is None else (y, masks.out_mask(reached, known, total.shape[1]))


def _meaning(line: Convolution) -> Callable[..., Any]:
    """Return what a partial convolution does on sparse input."""

    def convolve(
        input: SparseTensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        like: SparseTensor | None = None,
        **options: Any,
    ) -> Any:
        bound = line.bind(args, options)
        mask, normalize = bound.pop("mask", None), bound.pop("normalize", "ratio")
        plan = planned(line, input, weight, bias, bound, like)
        masks.check_normalize(normalize)
        mask = masks.row_mask(mask, input)
        if mask is not None:
            return _masked(input, bias, plan, mask, normalize)
        features, weight = lowered(input.features), lowered(plan.weight)
        window = plan.sites, plan.rulebook, plan.geometry
        factor = masks.row_factor(*window, normalize, features.dtype)
        out = scaled_gather_gemm_scatter(features, weight, factor, bias, plan.rulebook)
        if like is not None:  # the bias does not go to where no input is
            out = masks.hidden(out, factor > 0)
        return SparseTensor.unchecked(out, plan.sites)

    return convolve


def _masked(
    input: SparseTensor, bias: Tensor | None, plan: Plan, mask: Tensor, normalize: str
) -> tuple[SparseTensor, Tensor]:
    """Return the partial convolution of the valid channels of each site, and the output's mask."""
    groups, channels = plan.weight.shape[1], plan.weight.shape[1] * plan.weight.shape[3]
    features = lowered(masks.hidden(input.features, mask))
    window = plan.sites, plan.rulebook, plan.geometry
    coverage = masks.row_coverage(mask, *window, groups, normalize, features.dtype)
    factor, reached = masks.per_channel(coverage, channels)
    weight = lowered(plan.weight)
    out = scaled_gather_gemm_scatter(features, weight, factor, bias, plan.rulebook)
    y = SparseTensor.unchecked(masks.hidden(out, reached), plan.sites)
    return y, masks.out_mask(reached, mask, channels)


for _function in (partial_conv, subm_partial_conv, partial_conv_transpose):
    implements(_function)(_meaning(line_of(_function)))
