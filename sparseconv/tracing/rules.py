"""What runs instead of the autograd rules while a graph is traced: see ``traceable``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.dense import composed_planes, composed_rows
from sparseconv.autograd.normalise import composed_affine, composed_by_statistics
from sparseconv.core.dtypes import summable
from sparseconv.tracing.names import operators
from sparseconv.tracing.norm import batch_norm, normalise
from sparseconv.tracing.observed import observed
from sparseconv.tracing.sites import (
    Box,
    TracedRulebook,
    TracedSamples,
    TracedSites,
    TracedTaps,
    grouped_sites,
    sites_from_coords,
)


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: TracedRulebook) -> Tensor:
    """Return the sparse product."""
    product: Tensor = operators().gather_gemm_scatter(
        features, weight, rulebook.rows, *rulebook.key
    )
    return product


def scaled_gather_gemm_scatter(
    features: Tensor,
    weight: Tensor,
    factor: Tensor | None,
    bias: Tensor | None,
    rulebook: TracedRulebook,
) -> Tensor:
    """Return ``factor * product + bias``."""
    scaled = gather_gemm_scatter(features, weight, rulebook)
    scaled = scaled if factor is None else scaled * factor
    return (scaled if bias is None else scaled + bias).to(features.dtype)


def window_sum(features: Tensor, rulebook: TracedRulebook, divisor: float = 1) -> Tensor:
    """Return the sums over windows, by ``divisor``."""
    sums: Tensor = operators().window_sum(summable(features), rulebook.rows, *rulebook.key)
    return (sums / divisor).to(features.dtype)


def window_max(features: Tensor, rulebook: TracedRulebook) -> Tensor:
    """Return the largest value of each window."""
    chosen = operators().window_argmax(features.detach(), rulebook.rows, *rulebook.key)
    largest: Tensor = operators().window_pick(features, chosen, *rulebook.key)
    return largest


def sample_sum(values: Tensor, samples: TracedSamples) -> Tensor:
    """Return the sums over samples."""
    sums: Tensor = operators().summed(values, samples.lanes, samples.handle, samples.whole)
    return sums


def sample_spread(values: Tensor, samples: TracedSamples) -> Tensor:
    """Return each row's sample's entry."""
    rows: Tensor = operators().spread(values, samples.rows, samples.handle, samples.whole)
    return rows


def sample_max(values: Tensor, samples: TracedSamples) -> Tensor:
    """Return the largest value of each sample."""
    place = samples.lanes, samples.handle, samples.whole
    rows = operators().sample_largest(values.detach(), *place)
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    return padded.gather(0, torch.where(rows < 0, values.shape[0], rows))


def site_per_sample(sites: TracedSites) -> tuple[Tensor, TracedSites]:
    """Return the samples that have sites, and one site for each of them."""
    handle, rows, samples = operators().cell_per_sample(sites.rows, sites.handle)
    box = Box((1,) * sites.dimensions)
    return samples, TracedSites(handle, rows, sites.root, sites.dimensions, box=box)


def equal_taps(rows: Tensor, samples: int, outputs: int, n_in: int) -> TracedTaps:
    """Return the taps of a batch whose samples have so many outputs each."""
    return TracedTaps(rows, outputs * torch.arange(samples + 1, device=rows.device))


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: TracedTaps) -> Tensor:
    """Return the deformable product."""
    product: Tensor = operators().sample_gemm(features, shares, weight, taps.rows, taps.splits)
    return product


def applied(function: Callable[..., Tensor], *operands: Any, **options: Any) -> Tensor:
    """Return ``function(*operands, **options)``; a number in front as a tensor, for exporters."""
    first, *rest = operands
    if isinstance(first, Number):
        first = rest[0].new_full((), first)
    return function(first, *rest, **options)


def joined(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices side by side."""
    return torch.cat(list(columns), dim=1)


def segment_sum(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return the sums over segments."""
    sums: Tensor = operators().segment_sum(values, order, starts, segment)
    return sums


def segment_gather(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return each row's segment's values."""
    rows: Tensor = operators().segment_gather(values, order, starts, segment)
    return rows


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value."""
    rows: Tensor = operators().segment_argmax(values.detach(), order, starts)
    return rows


RULES: dict[str, Callable[..., Any]] = {
    "affine": composed_affine,
    "applied": applied,
    "batch_norm": batch_norm,
    "by_statistics": composed_by_statistics,
    "grouped_sites": grouped_sites,
    "sites_from_coords": sites_from_coords,
    "equal_taps": equal_taps,
    "gather_gemm_scatter": gather_gemm_scatter,
    "joined": joined,
    "normalise": normalise,
    "observed": observed,
    "planes_of_rows": composed_planes,
    "relu": torch.relu,
    "rows_of_planes": composed_rows,
    "sample_gemm": sample_gemm,
    "sample_max": sample_max,
    "sample_spread": sample_spread,
    "sample_sum": sample_sum,
    "segment_argmax": segment_argmax,
    "segment_gather": segment_gather,
    "segment_sum": segment_sum,
    "site_per_sample": site_per_sample,
    "scaled_gather_gemm_scatter": scaled_gather_gemm_scatter,
    "window_max": window_max,
    "window_sum": window_sum,
}
