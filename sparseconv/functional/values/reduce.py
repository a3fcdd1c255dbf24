"""Sums, means, largest values, variances and norms: over active sites, or over channels.

``dim`` is None (everything), all spatial axes with or without the batch (a plain tensor comes out),
some of the spatial axes (a SparseTensor of the others), or 1, each with or without channels. A
sample without sites counts 0 in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.autograd.samples import (
    sample_max,
    sample_spread,
    sample_sum,
)
from sparseconv.core.arguments import is_int
from sparseconv.core.dispatch import implements
from sparseconv.core.dtypes import summable, tree_sum
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvTypeError,
    SparseConvValueError,
)
from sparseconv.functional.precision import widened
from sparseconv.functional.site_sets.axes import lines_of
from sparseconv.functional.site_sets.permuted import PermutedTensor
from sparseconv.sites.samples import Samples
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

Dim = int | Sequence[int] | None
Result = Tensor | SparseTensor | PermutedTensor


class _Axes(NamedTuple):
    """What a reduction runs over.

    Attributes:
        samples: the rows of each result.
        over_batch, over_channels: whether it runs over these besides spatial axes.
        keepdim: whether the axes stay, with extent 1.
        ndim: number of axes of the input.
        sites: where the results lie; None where all spatial axes are reduced.
    """

    samples: Samples
    over_batch: bool
    over_channels: bool
    keepdim: bool
    ndim: int
    sites: Sites | None = None

    def shaped(self, result: Tensor) -> Result:
        """Return ``result`` ``[S, C or 1]`` in the shape that torch gives the reduced tensor."""
        if self.sites is not None:
            reduced = SparseTensor.on_sites(result, self.sites)
            return _one_channel(reduced, self.keepdim) if self.over_channels else reduced
        if self.keepdim:
            return result.reshape(*result.shape, *(1,) * (self.ndim - 2))
        if self.over_channels:
            result = result[:, 0]
        return result[0] if self.over_batch else result

    def counts(self, like: Tensor) -> Tensor:
        """Return how many values each result runs over, ``[S, 1]``."""
        channels = like.shape[1] if self.over_channels else 1
        return self.samples.counts[:, None].to(like.dtype) * channels


def _axes(x: SparseTensor, dim: Dim, keepdim: bool) -> _Axes | None:
    """Return what to reduce over, None for the channels of each site.

    Raises:
        SparseConvError: axes that no sparse reduction runs over.
    """
    dims = tuple(range(x.ndim)) if dim is None or dim == () else dim
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if not all(map(is_int, dims)):
        raise SparseConvTypeError(f"dim: must be integers or None, got {dim!r}")
    if any(not -x.ndim <= axis < x.ndim for axis in dims):
        raise SparseConvValueError(f"dim: must lie in {-x.ndim} to {x.ndim - 1}, got {dim}")
    axes = {axis % x.ndim for axis in dims}
    if axes == {1}:
        return None
    if axes >= set(range(2, x.ndim)):
        samples = x.sites.whole_batch if 0 in axes else x.sites.samples
        return _Axes(samples, 0 in axes, 1 in axes, keepdim, x.ndim)
    if 0 in axes:
        raise SparseConvNotImplementedError(
            f"dim: reduce over the spatial axes too, {tuple(range(2, x.ndim))}: a SparseTensor "
            f"keeps its samples, got {dim}; x.dense() takes any"
        )
    lines = lines_of(x, [axis - 2 for axis in axes if axis > 1], keepdim)
    return _Axes(lines.samples, False, 1 in axes, keepdim, x.ndim, lines.sites)


def _one_channel(x: SparseTensor, keepdim: bool) -> SparseTensor | PermutedTensor:
    """Return a reduction over the channels, with an axis for the one that is left or without."""
    return x if keepdim else PermutedTensor(x, None)


def _sums(values: Tensor, axes: _Axes) -> Tensor:
    """Return the sums ``[S, C]``, or ``[S, 1]`` over channels too."""
    sums = sample_sum(values, axes.samples)
    return tree_sum(sums.t())[:, None] if axes.over_channels else sums


@implements(
    torch.sum,
    meaning="sum over active sites, over spatial axes, channels or everything",
    law="an inactive site counts 0; axes that are left give a SparseTensor",
)
def _sparse_sum(
    input: SparseTensor, dim: Dim = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Result:
    x = widened(input, "sum").features if dtype is None else input.features.to(dtype)
    axes = _axes(input, dim, keepdim)
    if axes is None:
        return _one_channel(input.replace(x.sum(dim=1, keepdim=True)), keepdim)
    return axes.shaped(_sums(summable(x), axes).to(x.dtype))


@implements(
    torch.mean,
    meaning="mean over active sites, over spatial axes, channels or everything",
    law="statistics over active sites; 0 where there is none",
)
def _sparse_mean(
    input: SparseTensor, dim: Dim = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Result:
    x = input.features if dtype is None else input.features.to(dtype)
    axes = _axes(input, dim, keepdim)
    if axes is None:
        return _one_channel(input.replace(x.mean(dim=1, keepdim=True)), keepdim)
    total = _sums(summable(x), axes)
    return axes.shaped((total / axes.counts(x).to(total.dtype).clamp(min=1)).to(x.dtype))


def _largest(input: SparseTensor, dim: Dim, keepdim: bool, sign: int) -> Result:
    """Return the largest value, or with ``sign=-1`` the smallest."""
    x = input.features if sign > 0 else -input.features
    axes = _axes(input, dim, keepdim)
    if axes is None:
        return _one_channel(input.replace(sign * x.amax(dim=1, keepdim=True)), keepdim)
    largest = sample_max(x, axes.samples)
    if axes.over_channels:
        largest = largest.max(dim=1, keepdim=True).values
    return axes.shaped(sign * largest)


@implements(
    torch.amax,
    meaning="largest value of the active sites, over spatial axes, channels or everything",
    law="an inactive site counts minus infinity, a sample without sites gives 0; of equal values "
    "the first in the order of the sites gets the gradient",
)
def _sparse_amax(input: SparseTensor, dim: Dim = (), keepdim: bool = False) -> Result:
    return _largest(input, dim, keepdim, 1)


@implements(
    torch.amin,
    meaning="smallest value of the active sites, over spatial axes, channels or everything",
    law="an inactive site counts infinity, a sample without sites gives 0",
)
def _sparse_amin(input: SparseTensor, dim: Dim = (), keepdim: bool = False) -> Result:
    return _largest(input, dim, keepdim, -1)


def _extreme(function: Callable[..., Any], pairwise: Callable[..., Any], sign: int) -> Any:
    """Return the sparse meaning of torch.max or torch.min: their arguments choose among three."""

    def extreme(input: SparseTensor, dim: Any = None, keepdim: bool = False, **other: Any) -> Any:
        if "other" in other or isinstance(dim, Tensor | SparseTensor):
            return pairwise(input, other.get("other", dim))
        if dim is None:
            return _largest(input, None, False, sign)
        if _axes(input, dim, keepdim) is not None:
            raise SparseConvNotImplementedError(
                f"dim: {function.__name__} with indices runs over the channels, dim=1; "
                f"torch.a{function.__name__} runs over sites, got {dim}"
            )
        extremes = function(input.features, 1, True)
        values = _one_channel(input.replace(extremes.values), keepdim)
        return type(extremes)((values, extremes.indices))

    return extreme


for _function, _pairwise, _sign in (
    (torch.max, torch.maximum, 1),
    (torch.min, torch.minimum, -1),
):
    implements(
        _function,
        meaning="of everything; of two tensors; over channels (dim=1, keepdim=True) with indices "
        "(N, 1)",
        law="as torch.amax, torch.amin, torch.maximum and torch.minimum",
    )(_extreme(_function, _pairwise, _sign))


@implements(
    torch.var,
    meaning="variance over active sites, over spatial axes, channels or everything",
    law="statistics over active sites; 0 where there are no more than correction values",
)
def _sparse_var(
    input: SparseTensor,
    dim: Dim | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Result:
    axes, correction = _spread_arguments(input, dim, unbiased, keepdim, correction)
    if axes is None:
        x = input.features.var(dim=1, correction=correction, keepdim=True)
        return _one_channel(input.replace(x), keepdim)
    return axes.shaped(_variance(summable(input.features), axes, correction).to(input.dtype))


@implements(
    torch.std,
    meaning="standard deviation over active sites, over spatial axes, channels or everything",
    law="as torch.var",
)
def _sparse_std(
    input: SparseTensor,
    dim: Dim | bool = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Result:
    axes, correction = _spread_arguments(input, dim, unbiased, keepdim, correction)
    if axes is None:
        x = input.features.std(dim=1, correction=correction, keepdim=True)
        return _one_channel(input.replace(x), keepdim)
    return axes.shaped(_root(_variance(summable(input.features), axes, correction)).to(input.dtype))


def _spread_arguments(
    input: SparseTensor,
    dim: Dim | bool,
    unbiased: bool,
    keepdim: bool,
    correction: float | None,
) -> tuple[_Axes | None, float]:
    """Return what to reduce over, and what the divisor is smaller by than the number of values."""
    if isinstance(dim, bool):  # torch.var(x, unbiased)
        return _axes(input, None, keepdim), float(dim)
    return _axes(input, dim, keepdim), float(unbiased) if correction is None else correction


def _variance(x: Tensor, axes: _Axes, correction: float) -> Tensor:
    counts = axes.counts(x)
    mean = _sums(x, axes) / counts.clamp(min=1)
    centred = x - sample_spread(mean.expand(-1, x.shape[1]), axes.samples)
    values = counts - correction
    sums = _sums(centred * centred, axes)
    return torch.where(values > 0, sums / torch.where(values > 0, values, 1), 0)


def _root(x: Tensor) -> Tensor:
    """Return the square root; its derivative at 0 is 0."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


@implements(
    torch.norm,
    meaning="p-norm over active sites, over spatial axes, channels or everything",
    law="an inactive site counts 0",
)
def _sparse_norm(
    input: SparseTensor,
    p: float | str | None = 2,
    dim: Dim = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Result:
    if out is not None:
        raise SparseConvTypeError("out: a sparse result cannot be written into a given tensor")
    input = widened(input, "norm") if dtype is None else input.to(dtype)
    order = 2.0 if p is None or p == "fro" else p
    if isinstance(order, str) or order <= 0:
        raise SparseConvValueError(f"p: must be a number above 0 or 'fro', got {p!r}")
    axes = _axes(input, dim, keepdim)
    if axes is None:
        x = torch.linalg.vector_norm(input.features, order, 1, keepdim=True)
        return _one_channel(input.replace(x), keepdim)
    if order == math.inf:
        return _largest(input.replace(input.features.abs()), dim, keepdim, 1)
    x = summable(input.features)
    if order == 2:
        return axes.shaped(_root(_sums(x * x, axes)).to(input.dtype))
    sums = _sums(x.abs().pow(order), axes)
    positive = sums > 0
    root = torch.where(positive, torch.where(positive, sums, 1).pow(1 / order), 0)
    return axes.shaped(root.to(input.dtype))
