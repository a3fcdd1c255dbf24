"""The label of a voxel from those of its points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import check_int, check_integers
from sparseconv.errors import SparseConvValueError

RULES = ("majority", "ignore")


def voted(
    rows: Tensor, labels: Tensor, num_sites: int, num_classes: int, absent: int
) -> tuple[Tensor, Tensor]:
    """Return the most frequent label at each voxel; of equal ones the smallest.

    Args:
        rows: int64 ``[N]``, the voxel that each label votes for; S where it has no vote.
        labels: int64 ``[N]`` from 0 to ``num_classes`` - 1 where they have a vote.
        num_sites: S.
        num_classes: number of classes.
        absent: the label of a voxel without a vote.

    Returns:
        int64 ``[S]``, and bool ``[S]``: which voxels have votes for several labels.
    """
    counted = torch.where(rows < num_sites, labels, 0)
    ballots, votes = torch.unique(rows * num_classes + counted, return_counts=True)
    voxels, candidates = ballots // num_classes, ballots % num_classes
    # by voxel, most votes first; the sort is stable, so that classes stay ascending
    fewer = rows.numel() - votes
    order = torch.argsort(voxels * (rows.numel() + 1) + fewer, stable=True)
    voxels = voxels[order]
    first = torch.ones_like(voxels, dtype=torch.bool)
    first[1:] = voxels[1:] != voxels[:-1]
    # what is no winner goes behind the last voxel, so that nobody waits for numbers of winners
    winners = torch.full((num_sites + 1,), absent, device=labels.device)
    winners.scatter_(0, torch.where(first, voxels, num_sites), candidates[order])
    several = torch.zeros(num_sites + 1, dtype=torch.bool, device=labels.device)
    several.index_fill_(0, torch.where(first, num_sites, voxels), True)
    return winners[:-1], several[:-1]


def checked_labels(
    labels: Any, rows: Tensor, num_classes: int, ignore_index: int, disagree: str
) -> Tensor:
    """Return labels as int64 ``[N]``, one for each of ``rows``.

    Raises:
        SparseConvError: see :meth:`sparseconv.PointMap.majority`.
    """
    check_integers("labels", labels)
    if tuple(labels.shape) != (rows.numel(),) or labels.device != rows.device:
        raise SparseConvValueError(
            f"labels: must have shape ({rows.numel()},) on {rows.device}, one label "
            f"per point, got {tuple(labels.shape)} on {labels.device}"
        )
    check_int("num_classes", num_classes, least=1)
    if disagree not in RULES:
        raise SparseConvValueError(f"disagree: must be one of {RULES}, got {disagree!r}")
    votes: Tensor = labels.long()
    legal = (votes == ignore_index) | ((votes >= 0) & (votes < num_classes))
    if not bool(legal.all()):
        raise SparseConvValueError(
            f"labels: must lie from 0 to {num_classes - 1} or be {ignore_index}, got "
            f"{int(votes[~legal][0])}"
        )
    return votes
