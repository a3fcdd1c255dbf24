"""What a voxel has of its points: their number, their labels, the first of them, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparseconv.autograd.segments import group_rows
from sparseconv.core.arguments import check_floating, check_int
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvValueError
from sparseconv.points.spread import at_points, check_values, first_points
from sparseconv.points.votes import checked_labels, voted
from sparseconv.sites.sites import Sites


@dataclass(frozen=True, eq=False)
class PerVoxel:
    """The points of each voxel; :class:`sparseconv.PointMap` is one.

    Attributes:
        rows: int64 ``[N]``, the voxel's row of each point; -1 for a point outside the bounds.
        sites: the voxels.
    """

    rows: Tensor
    sites: Sites
    _groups: list[Groups] = field(default_factory=list, repr=False, kw_only=True)

    @property
    def num_sites(self) -> int:
        """Number of voxels S."""
        return self.sites.num_sites

    @property
    def groups(self) -> Groups:
        """Points in the order of their voxels (of the points inside the bounds)."""
        if not self._groups:
            self._groups.append(group_rows(self.rows[self.rows >= 0], self.num_sites))
        return self._groups[0]

    @property
    def counts(self) -> Tensor:
        """Number of points in each voxel, int64 ``[S]``."""
        return self.groups.starts.diff()

    def majority(
        self, labels: Tensor, num_classes: int, ignore_index: int = -1, disagree: str = "majority"
    ) -> Tensor:
        """Return each voxel's most frequent label, int64 ``[S]``; of equal ones the smallest.

        Args:
            labels: integer ``[N]``, one per point, from 0 to ``num_classes`` - 1.
            num_classes: number of classes.
            ignore_index: the label of points that do not vote, and of voxels without a vote.
            disagree: of a voxel whose votes differ: ``"majority"``, or ``"ignore"`` for
                ``ignore_index``.

        Raises:
            SparseConvError: labels that are not integer, not one per point or out of range; an
                unknown ``disagree``.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.3], [0.4], [2.0]]), 0.5)
            >>> to_points.majority(torch.tensor([1, 2, 2, -1]), num_classes=3)
            tensor([ 2, -1])
        """
        labels = checked_labels(labels, self.rows, num_classes, ignore_index, disagree)
        voting = (self.rows >= 0) & (labels != ignore_index)
        rows = torch.where(voting, self.rows, self.num_sites)
        winners, several = voted(rows, labels, self.num_sites, num_classes, ignore_index)
        if disagree == "majority":
            return winners
        return winners.masked_fill(several, ignore_index)

    def gather(self, features: Tensor, max_points: int) -> tuple[Tensor, Tensor]:
        """Return the first points of each voxel side by side, as hard voxelizers do.

        Args:
            features: floating point ``[N, C]``, one row per point; differentiable.
            max_points: P, how many points of a voxel count.

        Returns:
            ``[S, P, C]``, zeros where a voxel has fewer, and the counts int64 ``[S]``, at most P.

        Example:
            >>> import torch, sparseconv as sc
            >>> xyz = torch.tensor([[0.1], [0.3], [0.4], [2.0]])
            >>> x, to_points = sc.voxelize(xyz, 0.5)
            >>> values, counts = to_points.gather(xyz, max_points=2)
            >>> values[..., 0], counts
            (tensor([[0.1000, 0.3000],
                    [2.0000, 0.0000]]), tensor([2, 1]))
        """
        check_int("max_points", max_points, least=1)
        values = self._rows_of_points(features)[self._inside()]
        chosen, counts = first_points(self.groups, max_points)
        rows = chosen.flatten()
        groups = group_rows(rows[rows >= 0], values.shape[0])
        return at_points(values, rows, groups, 0).unflatten(0, (-1, max_points)), counts

    def fragments(self) -> Iterator[Tensor]:
        """Go through the points one of each voxel at a time, until every point was there.

        Yields:
            int64 ``[S]``, a point of each voxel in the order of its rows, so that
            ``x.replace(features[rows])`` holds those points alone. A voxel with fewer points than
            the fullest one repeats its own.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.3], [2.0]]), 0.5)
            >>> [rows.tolist() for rows in to_points.fragments()]
            [[0, 2], [1, 2]]
        """
        counts, starts = self.counts, self.groups.starts[:-1]
        if bool((counts == 0).any()):
            raise SparseConvValueError(
                "fragments: some voxels have no point; take the map of the voxels themselves"
            )
        inside = self._inside()
        for step in range(int(counts.max()) if counts.numel() else 0):
            yield inside[self.groups.order[starts + step % counts]]

    def _inside(self) -> Tensor:
        """Return the points inside the bounds."""
        return torch.nonzero(self.rows >= 0)[:, 0]

    def _rows_of_points(self, features: Tensor) -> Tensor:
        """Return ``features``, which must be floating point ``[N, C]``."""
        check_values("features", features, self.rows.numel(), "points")
        check_floating("features", features)
        if features.ndim != 2:
            raise SparseConvValueError(
                f"features: must have shape (N, C), got {tuple(features.shape)}"
            )
        return features
