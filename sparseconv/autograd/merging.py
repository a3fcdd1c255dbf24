"""Rows that fall on one site: merged (sum, mean, maximum, ...) and handed out again."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.autograd.segments import segment_argmax, segment_gather, segment_sum
from sparseconv.core.dtypes import summable
from sparseconv.core.index import Groups
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
    if reduce == "sum":
        return segment_sum(values, order, starts, site_of_row)
    if reduce == "mean":
        # a sum of many rows, and their number, do not fit float16
        total = segment_sum(summable(values), order, starts, site_of_row)
        return (total / starts.diff()[:, None].to(total.dtype)).to(values.dtype)
    if reduce == "first":
        return values[order[starts[:-1]]]
    if reduce == "last":
        return values[order[starts[1:] - 1]]
    signed = values if reduce == "max" else -values
    best = segment_argmax(signed, order, starts)
    return torch.gather(values, 0, best)


def place_rows(values: Tensor, rows: Tensor, into: Tensor) -> Tensor:
    """Return ``into`` ``[N, C]`` with ``values`` ``[M, C]`` at its ``rows``, which differ.

    Autocast stays out: to move rows is no arithmetic, and it refuses one half beside another.
    """
    with torch.autocast(values.device.type, enabled=False):
        return into.index_copy(0, rows, values)


def group_rows(site_of_row: Tensor, num_sites: int) -> Groups:
    """Return the groups of rows that know their site, int64 ``[N]``, -1 for no site.

    Rows without a site are in no group. Groups may be empty.
    """
    ascending, order = torch.sort(site_of_row, stable=True)
    bounds = torch.arange(num_sites + 1, device=site_of_row.device)
    absent = torch.searchsorted(ascending, 0)
    starts = torch.searchsorted(ascending, bounds) - absent
    return Groups(order[absent:], starts, site_of_row)


def gather_rows(values: Tensor, groups: Groups) -> Tensor:
    """Return each row's site's values, ``[N, C]``, zero without a site: the sum's adjoint.

    The gradient adds a site's rows in their own order, where indexing would add them by atomics.
    """
    return segment_gather(values, *groups)


def sum_rows(values: Tensor, groups: Groups) -> Tensor:
    """Return the sum of each site's rows, ``[S, C]``, zero for a site without rows."""
    return segment_sum(values, *groups)
