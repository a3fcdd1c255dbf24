"""The windows of the plain engine: kernel cell by kernel cell."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from sparseconv.core.dtypes import summable
from sparseconv.core.rulebook import Rulebook


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return each window's largest value; the last NaN wins."""
    return window_argmax(features, rulebook)[0]


def window_argmax(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return each window's first largest value, and the cell that holds it; the last NaN wins."""
    shape = (rulebook.n_out, features.shape[1])
    chosen = torch.full(shape, -1, dtype=torch.int32, device=features.device)
    best = features.new_zeros(shape)
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        sources, targets = rulebook.in_rows[start:end], rulebook.out_rows[start:end].long()
        values, held, holder = features[sources], best[targets], chosen[targets]
        better = (holder < 0) | (values > held) | values.isnan()
        best[targets] = torch.where(better, values, held)
        chosen[targets] = torch.where(better, cell, holder)
    return best, chosen


def window_sum(features: Tensor, rulebook: Rulebook, divisor: float) -> Tensor:
    """Return the sum of each window by the divisor, cell by cell."""
    x = summable(features)
    out = x.new_zeros(rulebook.n_out, x.shape[1])
    for start, end in itertools.pairwise(rulebook.splits):
        out.index_add_(0, rulebook.out_rows[start:end], x[rulebook.in_rows[start:end]])
    return (out if divisor == 1 else out / divisor).to(features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    x = summable(values)
    out = x.new_zeros(rulebook.n_in, x.shape[1])
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        rows, windows = rulebook.in_rows[start:end], rulebook.out_rows[start:end]
        out.index_add_(0, rows, torch.where(chosen[windows] == cell, x[windows], 0))
    return out.to(values.dtype)


def window_pick(features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return what each window chose, cell by cell."""
    out = features.new_zeros(chosen.shape)
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        rows, windows = rulebook.in_rows[start:end], rulebook.out_rows[start:end]
        out.index_add_(0, windows, torch.where(chosen[windows] == cell, features[rows], 0))
    return out
