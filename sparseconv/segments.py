"""Merging rows that fall on one site: sum, mean, maximum, minimum, first or last."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.autograd import segment_argmax, segment_sum
from sparseconv.coordinates import Groups
from sparseconv.errors import SparseConvValueError

REDUCTIONS = ("mean", "sum", "max", "min", "first", "last")


def check_reduction(reduce: str) -> None:
    """Raise unless ``reduce`` is one of :data:`REDUCTIONS`."""
    if reduce not in REDUCTIONS:
        raise SparseConvValueError(f"reduce: must be one of {REDUCTIONS}, got {reduce!r}")


def reduce_groups(values: Tensor, groups: Groups, reduce: str) -> Tensor:
    """Return one row per site, ``[S, C]``, from ``values`` ``[N, C]``; differentiable.

    Rows are added in their own order, so the same rows give the same bits. Of equal largest
    values the first is taken, and the gradient goes to it alone.

    Raises:
        SparseConvValueError: unknown ``reduce``.
    """
    check_reduction(reduce)
    order, starts, site_of_row = groups
    if reduce in ("sum", "mean"):
        total = segment_sum(values, order, starts, site_of_row)
        if reduce == "sum":
            return total
        return total / starts.diff()[:, None].to(total.dtype)
    if reduce == "first":
        return values[order[starts[:-1]]]
    if reduce == "last":
        return values[order[starts[1:] - 1]]
    signed = values if reduce == "max" else -values
    best = segment_argmax(signed, order, starts)
    return torch.gather(values, 0, best)
