"""Pooling over all active sites of a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.dispatch import implements, refuse
from sparseconv.core.private_torch import outside_transforms
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.functional.checks import Input, check_axes
from sparseconv.functional.precision import widened
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
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
    pool: Callable[[SparseTensor], Tensor], dimensions: int, name: str
) -> Callable[..., Any]:
    """Return adaptive pooling to an output size of 1 over ``dimensions`` axes."""

    def adaptive_pool(
        input: SparseTensor, output_size: Any, return_indices: bool = False
    ) -> SparseTensor:
        check_axes(input.ndim - 2, dimensions, "pooling")
        sizes = output_size if isinstance(output_size, list | tuple) else (output_size,)
        if any(size != 1 for size in sizes) or len(sizes) not in (1, dimensions) or return_indices:
            raise SparseConvNotImplementedError(
                f"output_size: adaptive pooling of a SparseTensor pools to 1 on every axis, "
                f"without indices, got {output_size}; use a pooling layer with kernel_size and "
                f"stride, or x.dense()"
            )
        input = widened(input, name)
        samples, sites = _site_per_sample(input.sites)
        return SparseTensor.unchecked(pool(input)[samples], sites)

    return adaptive_pool


@outside_transforms
def _site_per_sample(sites: Sites) -> tuple[Tensor, Sites]:
    """Return the samples that have sites, ascending, and one site for each of them."""
    samples = torch.nonzero(sites.samples.counts)[:, 0]
    coords = F.pad(samples[:, None].to(sites.shared_coords.dtype), (0, sites.dimensions))
    return samples, sites_from_coords(coords, (1,) * sites.dimensions, sites.batch_size)


_AVERAGE = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
_MAXIMUM = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)

for _axes, (_average, _maximum) in enumerate(zip(_AVERAGE, _MAXIMUM, strict=True), start=1):
    implements(
        _average,
        meaning="mean over the active sites of each sample (output size 1)",
        law="statistics over active sites; a sample without sites has none in the result",
    )(_adaptive(global_avg_pool, _axes, _average.__name__))
    implements(
        _maximum,
        meaning="largest value of the active sites of each sample (output size 1)",
        law="an inactive site counts minus infinity; a sample without sites has none in the result",
    )(_adaptive(global_max_pool, _axes, f"adaptive_max_pool{_axes}d"))

refuse(
    F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d_with_indices,
    instead="pool without return_indices; an index into the dense grid means nothing to sparse "
    "features",
)
