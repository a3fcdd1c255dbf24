"""PointMap: which voxel each point fell on, and how values travel between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparseconv.autograd.segments import check_reduction, group_rows
from sparseconv.core.arguments import check_floating
from sparseconv.core.grid import Floats, Grids
from sparseconv.core.index import Groups
from sparseconv.errors import SparseConvValueError
from sparseconv.points.clouds import samples_of, some_points
from sparseconv.points.levels import (
    coarse_sites,
    level_of,
    positions,
    rows_of_points,
    rows_on_level,
)
from sparseconv.points.per_voxel import PerVoxel
from sparseconv.points.sampling import check_mode, sample_linear, splat_linear
from sparseconv.points.spread import at_points, check_fill, check_values, on_voxels
from sparseconv.sites.places import centres_of, grids_of
from sparseconv.tensor import SparseTensor


@dataclass(frozen=True, eq=False)
class PointMap(PerVoxel):
    """The way between points and the voxels that they were made into.

    Attributes:
        rows: int64 ``[N]``, the voxel's row of each point; -1 for a point outside the bounds.
        sites: the voxels.
        xyz: ``[N, D]`` the points, metres.
        samples: int64 ``[N]``, the sample of each point.
        bounds: low and high corner, metres, of the box outside of which points were dropped.
    """

    xyz: Tensor
    samples: Tensor
    bounds: tuple[Floats, Floats] | None = None

    @property
    def grid(self) -> Grids:
        """Where the voxels lie: a grid, or one per sample where maps were collated."""
        return self.sites.grid

    @property
    def origin(self) -> Any:
        """Metres, the low corner of voxel 0 per axis; one for each sample where they differ."""
        grid = self.grid
        origins = tuple(own.origin for own in grids_of("sites", grid))
        return origins if isinstance(grid, tuple) else origins[0]

    @property
    def voxel_size(self) -> Floats:
        """Metres per axis."""
        return grids_of("sites", self.grid)[0].voxel_size

    @property
    def points(self) -> Tensor:
        """Batch index and voxel coordinates ``[N, 1 + D]``, float64, differentiable in ``xyz``.

        Whole numbers are voxel centres: ``(xyz - origin) / voxel_size - 1/2``.
        """
        return positions(self.xyz, self.samples, self.sites)

    def centres(self) -> Tensor:
        """Return the centres of the voxels, metres, float64 ``[S, D]``."""
        return centres_of(self.sites)

    def __call__(
        self,
        features: Tensor | SparseTensor,
        mode: str = "nearest",
        renormalise: bool = False,
        *,
        fill: float = 0,
        points: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """Return voxel values at the points, ``[N, ...]``.

        Args:
            features: ``[S, ...]`` of any dtype, one row per voxel; or a SparseTensor on the voxels
                or on any level that layers made of them. Gradients flow back: a voxel gets the sum
                over its points.
            mode: ``"nearest"``, the row of the voxel that holds the point, or ``"linear"``,
                N-linear between the centres of the ``2 ** D`` voxels around it (differentiable in
                ``xyz`` too).
            renormalise: linear only: an absent neighbour counts 0, as padding does; True divides
                by the weight of those that are there instead.
            fill: the value of points outside the bounds, and of those whose voxel is not there.
            points: other points ``[M, D]``, metres, instead of the map's own.
            batch: integer ``[M]``, the sample of each of them; all in sample 0 where left out.

        Raises:
            SparseConvError: not one row per voxel; a tensor on another grid; an unknown ``mode``.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.6], [5.0]]), 0.5, bounds=(0, 1))
            >>> to_points(torch.tensor([3, 7]), fill=-1)
            tensor([ 3,  7, -1])
            >>> to_points(torch.nn.MaxPool1d(2)(x)).flatten()
            tensor([1., 1., 0.])
        """
        check_mode(mode, renormalise)
        values, level = level_of(features, self.sites)
        check_values("features", values, level.num_sites, "voxels")
        check_fill(fill, values.dtype)
        if batch is not None and points is None:
            raise SparseConvValueError("batch: is of other points; give points=")
        own = points is None
        if own:
            xyz, samples, rows = self.xyz, self.samples, self.rows
        else:
            xyz = some_points(points, self.xyz)
            samples = samples_of(batch, xyz, self.sites.batch_size)
        if mode == "linear":
            check_floating("features", values)
            sampled = sample_linear(values, level, positions(xyz, samples, level), renormalise)
            return sampled.masked_fill((rows < 0)[:, None], fill) if own else sampled
        if not own:
            rows = rows_of_points(xyz, samples, level)
        elif level is not self.sites:
            rows = rows_on_level(self.rows, self.sites, level, xyz, samples)
        else:
            return at_points(values, rows, self.groups, fill)
        return at_points(values, rows, group_rows(rows[rows >= 0], level.num_sites), fill)

    def splat(self, features: Tensor, reduce: str = "mean", mode: str = "nearest") -> SparseTensor:
        """Return point features on the voxels: the same way as :func:`voxelize` made its own.

        Args:
            features: floating point ``[N, C]``, one row per point; differentiable.
            reduce: as of :func:`sparseconv.voxelize`; a voxel without points gets 0.
            mode: ``"nearest"``, each point to its own voxel, or ``"linear"``, to the voxels around
                it by the weights of N-linear interpolation (``reduce`` is then ``"sum"``, the
                adjoint of ``self(..., mode="linear")``, or ``"mean"``, the weighted mean).

        Raises:
            SparseConvError: not one row per point; an unknown ``reduce`` or ``mode``.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.3], [2.0]]), 0.5)
            >>> to_points.splat(torch.tensor([[1.0], [2.0], [3.0]]), reduce="sum").features
            tensor([[3.],
                    [3.]])
        """
        check_mode(mode)
        check_reduction(reduce)
        inside = self._inside()
        values = self._rows_of_points(features)[inside]
        if mode == "nearest":
            return SparseTensor.on_sites(on_voxels(values, self.groups, reduce), self.sites)
        if reduce not in ("sum", "mean"):
            raise SparseConvValueError(f"reduce: linear splats 'sum' or 'mean', got {reduce!r}")
        spread = splat_linear(values, self.sites, self.points[inside], reduce == "mean")
        return SparseTensor.on_sites(spread, self.sites)

    def coarsen(self, factor: int | Sequence[int] | SparseTensor) -> PointMap:
        """Return the map to larger voxels: of ``factor`` voxels per axis, or those of a tensor.

        Args:
            factor: int or one per axis; or a SparseTensor on a level that layers made of these
                voxels, whose sites (points or none) the map then has.

        Example:
            >>> import torch, sparseconv as sc
            >>> x, to_points = sc.voxelize(torch.tensor([[0.1], [0.6], [2.0]]), 0.5)
            >>> to_points.coarsen(2).counts
            tensor([2, 1])
        """
        if isinstance(factor, SparseTensor):
            sites = level_of(factor, self.sites)[1]
        else:
            sites = coarse_sites(self.sites, factor)
        rows = rows_on_level(self.rows, self.sites, sites, self.xyz, self.samples)
        return replace(self, rows=rows, sites=sites, _groups=[])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PointMap:
        """Return the map on another device; tensors that shared its sites share them there too."""
        tensors = (self.rows, self.xyz, self.samples)
        rows, xyz, samples = (t.to(device, non_blocking=non_blocking) for t in tensors)
        groups = [Groups(*(t.to(device) for t in own)) for own in self._groups]
        sites = self.sites.to(rows.device, non_blocking)
        return PointMap(rows, sites, xyz, samples, self.bounds, _groups=groups)

    def cpu(self) -> PointMap:
        """Return the map on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | str | torch.device | None = None) -> PointMap:
        """Return the map on a CUDA device."""
        return self.to(torch.device("cuda" if device is None else device))

    def pin_memory(self) -> PointMap:
        """Return the map, its voxels too, in memory that a device reads without a copy."""
        rows, xyz, samples = (t.pin_memory() for t in (self.rows, self.xyz, self.samples))
        groups = [Groups(*(t.pin_memory() for t in own)) for own in self._groups]
        pinned = self.sites.pinned()
        return replace(self, rows=rows, sites=pinned, xyz=xyz, samples=samples, _groups=groups)

    def share_memory_(self) -> PointMap:
        """Move points and voxels to shared memory, which other processes see; returns itself."""
        for part in self._memory():
            part.share_memory_()
        return self

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory of points, voxels and rulebooks until ``stream`` has used it."""
        for part in self._memory():
            part.record_stream(stream)

    def is_pinned(self) -> bool:
        """Return whether the points lie in page-locked memory."""
        pinned: bool = self.xyz.is_pinned()
        return pinned

    def is_shared(self) -> bool:
        """Return whether the points lie in shared memory."""
        shared: bool = self.xyz.is_shared()
        return shared

    def _memory(self) -> list[Tensor]:
        groups = [t for own in self._groups for t in own]
        return [self.rows, self.xyz, self.samples, *groups, *self.sites.memory()]

    def __repr__(self) -> str:
        """Return the number of points, of voxels and of samples."""
        return (
            f"PointMap({self.rows.numel()} points, {self.num_sites} voxels, {len(self)} samples, "
            f"device={self.rows.device})"
        )

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.sites.batch_size

    def __getitem__(self, samples: int | slice) -> PointMap:
        """Return the map of one sample (a batch of one) or of a slice of the batch."""
        features = self.xyz.new_empty(self.num_sites, 0)
        sites = SparseTensor.on_sites(features, self.sites)[samples].sites
        chosen = range(len(self))[samples]
        numbers = [chosen] if isinstance(chosen, int) else list(chosen)
        renumbered = torch.full((len(self),), -1, device=self.rows.device)
        renumbered[numbers] = torch.arange(len(numbers), device=self.rows.device)
        kept = renumbered[self.sites.shared_coords[:, 0].long()] >= 0
        new_rows = torch.cat([kept.cumsum(0) - 1, kept.new_full((1,), -1, dtype=torch.int64)])
        mine = renumbered[self.samples]
        points = torch.nonzero(mine >= 0)[:, 0]
        rows = new_rows[self.rows[points]]  # -1 takes the last entry, -1
        return PointMap(rows, sites, self.xyz[points], mine[points], self.bounds)
