"""Pooling over all active sites of a sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.dispatch import implements, refuse
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.functional.checks import Input, check_axes
from sparseconv.functional.precision import widened
from sparseconv.sites.batches import site_per_sample
from sparseconv.tensor import SparseTensor


def global_avg_pool(input: Input) -> Tensor:
    """Return the mean over the active sites of each sample, ``[B, C]``; 0 where there is none.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[2.0], [4.0]]), torch.tensor([[0, 1], [0, 5]]))
        >>> sc.functional.global_avg_pool(x)
        tensor([[3.]])
    """
    return cast(Tensor, input.mean(dim=tuple(range(2, input.ndim))))


def global_max_pool(input: Input) -> Tensor:
    """Return the largest value of the active sites of each sample, ``[B, C]``; 0 without sites.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[-2.0], [-4.0]]), torch.tensor([[0, 1], [0, 5]]))
        >>> sc.functional.global_max_pool(x)
        tensor([[-2.]])
    """
    return cast(Tensor, input.amax(dim=tuple(range(2, input.ndim))))


def _adaptive(
    pool: Callable[..., Any], over_axes: Callable[..., Any], dimensions: int, name: str
) -> Callable[..., Any]:
    """Return adaptive pooling to 1 cell, or to as many as there are, on each of several axes."""

    def adaptive_pool(
        input: SparseTensor, output_size: Any, return_indices: bool = False
    ) -> SparseTensor:
        check_axes(input.ndim - 2, dimensions, "pooling")
        sizes = output_size if isinstance(output_size, list | tuple) else (output_size,)
        sizes = (1,) * dimensions if list(sizes) == [1] else sizes
        pooled = _pooled_axes(input, sizes)
        if pooled is None or return_indices:
            raise SparseConvNotImplementedError(
                f"output_size: adaptive pooling of a SparseTensor pools an axis to 1, or leaves it "
                f"(None in a tuple), without indices, got {output_size}; use a pooling layer with "
                f"kernel_size and stride, or x.dense()"
            )
        input = widened(input, name)
        if len(pooled) < dimensions:
            kept = over_axes(input, pooled, keepdim=True) if pooled else input.clone()
            return cast(SparseTensor, kept)
        samples, sites = site_per_sample(input.sites)
        return SparseTensor.unchecked(pool(input)[samples], sites)

    return adaptive_pool


def _pooled_axes(input: SparseTensor, sizes: Sequence[Any]) -> list[int] | None:
    """Return the axes that are pooled to 1; None where an axis gets another size."""
    if len(sizes) != input.ndim - 2:
        return None
    if all(size == 1 for size in sizes):  # whatever the extents, which a graph does not know
        return list(range(2, input.ndim))
    pooled = []
    for axis, (size, length) in enumerate(zip(sizes, input.spatial_shape, strict=True), start=2):
        stays = size is None or (size == length and input.sites.lower[axis - 2] == 0)
        if size == 1 and not stays:
            pooled.append(axis)
        elif not stays:
            return None
    return pooled


_AVERAGE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
_MAXIMUM = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)

for _axes, (_average, _maximum) in enumerate(zip(_AVERAGE, _MAXIMUM, strict=True), start=1):
    implements(
        _average,
        meaning="mean over the active sites of each sample, or of some axes (output size 1)",
        law="statistics over active sites; a sample without sites has none in the result",
    )(_adaptive(global_avg_pool, torch.mean, _axes, _average.__name__))
    implements(
        _maximum,
        meaning="largest value of the active sites of each sample, or of some axes (output size 1)",
        law="an inactive site counts minus infinity; a sample without sites has none in the result",
    )(_adaptive(global_max_pool, torch.amax, _axes, f"adaptive_max_pool{_axes}d"))

refuse(
    F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d_with_indices,
    instead="pool without return_indices; an index into the dense grid means nothing to sparse "
    "features",
)
