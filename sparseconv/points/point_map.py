"""PointMap: which voxel each point fell on, and how values travel between the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import check_reduction, gather_rows, place_rows, reduce_groups
from sparseconv.core.arguments import check_floating, check_int, check_integers
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvValueError
from sparseconv.points.sampling import check_mode, sample_linear, splat_linear
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

Metres = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PointMap:
    """The way between points and the voxels that they were made into.

    Attributes:
        rows: int64 ``[N]``, the voxel's row of each point; -1 for a point outside the bounds.
        sites: the voxels.
        xyz: ``[N, D]`` the points, metres.
        samples: int64 ``[N]``, the sample of each point.
        origin: metres, the low corner of voxel 0 on each axis.
        voxel_size: metres per axis.
        groups: points in the order of their voxels (of the points inside the bounds).
    """

    rows: Tensor
    sites: Sites
    xyz: Tensor
    samples: Tensor
    origin: Metres
    voxel_size: Metres
    groups: Groups

    @property
    def num_sites(self) -> int:
        """Number of voxels S."""
        return self.sites.num_sites

    @property
    def points(self) -> Tensor:
        """Batch index and voxel coordinates ``[N, 1 + D]``, float64, differentiable in ``xyz``.

        Whole numbers are voxel centres: ``(xyz - origin) / voxel_size - 1/2``.
        """
        xyz = self.xyz.double()
        scaled = (xyz - xyz.new_tensor(self.origin)) / xyz.new_tensor(self.voxel_size) - 0.5
        return torch.cat([self.samples[:, None].double(), scaled], dim=1)

    def __call__(
        self, features: Tensor | SparseTensor, mode: str = "nearest", renormalise: bool = False
    ) -> Tensor:
        """Return voxel features at the points, ``[N, C]``; zeros for points outside the bounds.

        Args:
            features: ``[S, C]``, or a SparseTensor on the voxels' sites. Gradients flow back: a
                voxel gets the sum over its points.
            mode: ``"nearest"``, the row of the point's own voxel, or ``"linear"``, N-linear
                between the centres of the ``2 ** D`` voxels around it (differentiable in ``xyz``
                too).
            renormalise: linear only: an absent neighbour counts 0, as padding does; True divides
                by the weight of those that are there instead.

        Raises:
            SparseConvValueError: not one row per voxel; an unknown ``mode``.
        """
        check_mode(mode, renormalise)
        values = features.features if isinstance(features, SparseTensor) else features
        _check_rows("features", values, self.num_sites, "voxels")
        if mode == "linear":
            sampled = sample_linear(values, self.sites, self.points, renormalise)
            return sampled.masked_fill((self.rows < 0)[:, None], 0)
        gathered = gather_rows(values, self.groups)
        if gathered.shape[0] == self.rows.numel():
            return gathered
        out = values.new_zeros(self.rows.numel(), values.shape[1])
        return place_rows(gathered, self._inside(), out)

    def splat(self, features: Tensor, reduce: str = "mean", mode: str = "nearest") -> SparseTensor:
        """Return point features on the voxels: the same way as :func:`voxelize` made its own.

        Args:
            features: floating point ``[N, C]``, one row per point; differentiable.
            reduce: as of :func:`sparseconv.voxelize`.
            mode: ``"nearest"``, each point to its own voxel, or ``"linear"``, to the voxels around
                it by the weights of N-linear interpolation (``reduce`` is then ``"sum"``, the
                adjoint of ``self(..., mode="linear")``, or ``"mean"``, the weighted mean).

        Raises:
            SparseConvValueError: not one row per point; an unknown ``reduce`` or ``mode``.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.3], [2.0]]), 0.5)
            >>> to_points.splat(torch.tensor([[1.0], [2.0], [3.0]]), reduce="sum").features
            tensor([[3.],
                    [3.]])
        """
        check_mode(mode)
        check_reduction(reduce)
        _check_rows("features", features, self.rows.numel(), "points")
        inside = self._inside()
        if mode == "nearest":
            rows = reduce_groups(features[inside], self.groups, reduce)
            return SparseTensor.on_sites(rows, self.sites)
        if reduce not in ("sum", "mean"):
            raise SparseConvValueError(f"reduce: linear splats 'sum' or 'mean', got {reduce!r}")
        spread = splat_linear(features[inside], self.sites, self.points[inside], reduce == "mean")
        return SparseTensor.on_sites(spread, self.sites)

    def majority(self, labels: Tensor, num_classes: int, ignore_index: int = -1) -> Tensor:
        """Return each voxel's most frequent label, int64 ``[S]``; of equal ones the smallest.

        Args:
            labels: integer ``[N]``, one per point, from 0 to ``num_classes`` - 1.
            num_classes: number of classes.
            ignore_index: the label of points that do not vote, and of voxels without a vote.

        Raises:
            SparseConvError: labels that are not integer, not one per point or out of range.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.3], [0.4], [2.0]]), 0.5)
            >>> to_points.majority(torch.tensor([1, 2, 2, -1]), num_classes=3)
            tensor([ 2, -1])
        """
        labels = self._checked_labels(labels, num_classes, ignore_index)
        voting = (self.rows >= 0) & (labels != ignore_index)
        ballots = self.rows[voting] * num_classes + labels[voting]
        ballots, votes = torch.unique(ballots, return_counts=True)
        voxels, candidates = ballots // num_classes, ballots % num_classes
        # by voxel, most votes first; the sort is stable, so that classes stay ascending
        fewer = self.rows.numel() - votes
        order = torch.argsort(voxels * (self.rows.numel() + 1) + fewer, stable=True)
        voxels = voxels[order]
        first = torch.ones_like(voxels, dtype=torch.bool)
        first[1:] = voxels[1:] != voxels[:-1]
        winners = torch.full((self.num_sites,), ignore_index, device=labels.device)
        winners[voxels[first]] = candidates[order][first]
        return winners

    def _inside(self) -> Tensor:
        """Return the points inside the bounds."""
        return torch.nonzero(self.rows >= 0)[:, 0]

    def _checked_labels(self, labels: Any, num_classes: int, ignore_index: int) -> Tensor:
        check_integers("labels", labels)
        if tuple(labels.shape) != (self.rows.numel(),) or labels.device != self.rows.device:
            raise SparseConvValueError(
                f"labels: must have shape ({self.rows.numel()},) on {self.rows.device}, one label "
                f"per point, got {tuple(labels.shape)} on {labels.device}"
            )
        check_int("num_classes", num_classes, least=1)
        votes: Tensor = labels.long()
        legal = (votes == ignore_index) | ((votes >= 0) & (votes < num_classes))
        if not bool(legal.all()):
            raise SparseConvValueError(
                f"labels: must lie from 0 to {num_classes - 1} or be {ignore_index}, got "
                f"{int(votes[~legal][0])}"
            )
        return votes


def _check_rows(name: str, values: Any, count: int, what: str) -> None:
    """Raise unless ``values`` are floating point with one row for each of ``count`` things."""
    check_floating(name, values)
    if values.ndim != 2 or values.shape[0] != count:
        raise SparseConvValueError(
            f"{name}: must have one row for each of the {count} {what}, got {tuple(values.shape)}"
        )
