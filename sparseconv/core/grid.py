"""Grid: where the sites of a set lie in the world, and what layers make of it.

The samples of a batch may lie on grids of their own (scans that were collated), so a set of sites
has one :class:`Grid`, one for each sample, or None where nobody knows: :data:`Grids`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeAlias

from sparseconv.core.arguments import Ints, came, numbers_per_axis
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.errors import SparseConvTypeError, SparseConvValueError

Floats: TypeAlias = tuple[float, ...]
Fractions: TypeAlias = tuple[Fraction, ...]

SAME_SIZE = 1e-9  # relative: voxel sizes that differ by less are one
SAME_PLACE = 1e-6  # voxels: origins that differ by less are one


@dataclass(frozen=True)
class Grid:
    """Where voxels lie: voxel ``i`` spans ``origin + i * voxel_size`` to the next one's start.

    A strided layer makes a grid of larger voxels. Such a grid remembers the one that it comes
    from, its base: its voxel ``o`` holds the ``stride`` voxels of the base from
    ``o * stride + shift`` on.

    Attributes:
        origin: low corner of voxel 0, in the points' unit, one number per axis.
        voxel_size: edges of a voxel, in the points' unit, one number per axis.
        circular: whether each axis wraps around, as an azimuth does; no axis where left out.
        unit: name of the points' unit; empty where nobody said.
        base: the grid that layers started from; None for one of these.
        stride: voxels of the base per voxel, one number per axis.
        shift: voxels of the base from its origin to this origin, one number per axis.

    Raises:
        SparseConvError: entries that are no finite numbers, or sizes that are not positive.

    Example:
        >>> Grid((-1.0, 0.0), (0.5, 0.5)).scaled(2)
        Grid(origin=(-1.0, 0.0), voxel_size=(1.0, 1.0), circular=(False, False), unit='')
    """

    origin: Floats
    voxel_size: Floats
    circular: tuple[bool, ...] = ()
    unit: str = ""
    base: Grid | None = field(default=None, repr=False, compare=False)
    stride: Fractions = field(default=(), repr=False, compare=False)
    shift: Fractions = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the numbers and fill what was left out."""
        axes = len(self.origin)
        origin = tuple(map(float, numbers_per_axis("origin", self.origin, axes)))
        size = tuple(map(float, numbers_per_axis("voxel_size", self.voxel_size, axes)))
        if not all(map(math.isfinite, origin)):
            raise SparseConvValueError(f"origin: must be finite, got {origin}")
        if not all(0 < edge < math.inf for edge in size):
            raise SparseConvValueError(f"voxel_size: must be positive and finite, got {size}")
        circular = tuple(map(bool, self.circular)) or (False,) * axes
        if len(circular) != axes:
            raise SparseConvValueError(
                f"circular: must have one entry per axis, {axes}, got {len(circular)}"
            )
        whole = (Fraction(1),) * axes, (Fraction(0),) * axes
        names = ("origin", "voxel_size", "circular", "stride", "shift")
        values = (origin, size, circular, self.stride or whole[0], self.shift or whole[1])
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def dimensions(self) -> int:
        """Number of axes D."""
        return len(self.origin)

    def under(self, geometry: Geometry) -> Grid:
        """Return the grid of a layer's outputs."""
        if geometry.keeps_sites:
            return self
        if geometry.kind is Kind.STRIDED:
            geometry = geometry.block
        first = tuple(map(_first_cell, *_window(geometry)))
        if geometry.kind is Kind.TRANSPOSED:
            fine = tuple(own / s for own, s in zip(self.stride, geometry.stride, strict=True))
            moved = (a - c * s for a, c, s in zip(self.shift, first, fine, strict=True))
            return self._placed(fine, tuple(moved))
        coarse = tuple(own * s for own, s in zip(self.stride, geometry.stride, strict=True))
        moved = (a + c * s for a, c, s in zip(self.shift, first, self.stride, strict=True))
        return self._placed(coarse, tuple(moved))

    def scaled(self, factor: int | Fraction | Sequence[int | Fraction]) -> Grid:
        """Return the grid of voxels ``factor`` times as large, from the same origin."""
        factors = factor if isinstance(factor, Sequence) else (factor,) * self.dimensions
        stride = tuple(own * Fraction(f) for own, f in zip(self.stride, factors, strict=True))
        return self._placed(stride, self.shift)

    def moved(self, steps: Sequence[int]) -> Grid:
        """Return the grid after ``steps`` were added to the coordinates of all sites."""
        both = zip(self.shift, self.stride, steps, strict=True)
        return self._placed(self.stride, tuple(own - size * step for own, size, step in both))

    def axes(self, order: Sequence[int]) -> Grid:
        """Return the grid of some of the axes, in this order."""
        base = None if self.base is None else self.base.axes(order)
        return Grid(
            tuple(self.origin[axis] for axis in order),
            tuple(self.voxel_size[axis] for axis in order),
            tuple(self.circular[axis] for axis in order),
            self.unit,
            base,
            tuple(self.stride[axis] for axis in order),
            tuple(self.shift[axis] for axis in order),
        )

    def cut(self, axes: Sequence[int]) -> Grid:
        """Return the grid whose ``axes`` do not wrap around: less or more than the whole turn."""
        circular = tuple(wraps and axis not in axes for axis, wraps in enumerate(self.circular))
        return self if circular == self.circular else replace(self, circular=circular)

    def agrees_with(self, other: Grid) -> bool:
        """Return whether a voxel of both is at the same place, up to the rounding of layers.

        Layers that start from one grid may place windows of different sizes by less than a voxel
        apart; that is the same place. Grids that do not come from one must agree exactly.
        """
        if self is other:
            return True
        units = {self.unit, other.unit} - {""}
        if self.dimensions != other.dimensions or len(units) > 1:
            return False
        apart = 1 - SAME_PLACE if self.root == other.root else SAME_PLACE
        ends = zip(self.origin, other.origin, self.voxel_size, other.voxel_size, strict=True)
        return all(
            abs(size - other_size) <= SAME_SIZE * size and abs(low - other_low) < apart * size
            for low, other_low, size, other_size in ends
        )

    @property
    def root(self) -> Grid:
        """The grid that layers started from: the base, or the grid itself."""
        return self if self.base is None else self.base

    def _placed(self, stride: Fractions, shift: Fractions) -> Grid:
        """Return the grid of this stride and shift over the base."""
        if (stride, shift) == (self.stride, self.shift):
            return self
        base = self.root
        ends = zip(base.origin, base.voxel_size, shift, strict=True)
        origin = tuple(low + float(steps) * size for low, size, steps in ends)
        size = tuple(edge * float(s) for edge, s in zip(base.voxel_size, stride, strict=True))
        return Grid(origin, size, self.circular, self.unit, base, stride, shift)


Grids: TypeAlias = Grid | tuple[Grid, ...] | None


def check_grids(grids: Grids, batch_size: int, axes: int) -> None:
    """Raise unless this is a grid of so many axes, one for each sample, or None."""
    each = grids if isinstance(grids, tuple) else (grids,)
    if grids is not None and not all(isinstance(grid, Grid) for grid in each):
        raise SparseConvTypeError(f"grid: must be a sparseconv.Grid or None, got {came(grids)}")
    if isinstance(grids, tuple) and len(grids) != batch_size:
        raise SparseConvValueError(
            f"grid: must be one for each of {batch_size} samples, got {len(grids)}"
        )
    for grid in each:
        if grid is not None and grid.dimensions != axes:
            raise SparseConvValueError(f"grid: must have {axes} axes, got {grid.dimensions}")


def change(grids: Grids, to: Callable[[Grid], Grid]) -> Grids:
    """Return what ``to`` makes of the grid, or of that of each sample."""
    if grids is None:
        return None
    return to(grids) if isinstance(grids, Grid) else tuple(map(to, grids))


def of_samples(grids: Grids, numbers: Sequence[int]) -> Grids:
    """Return the grid or grids of some samples, in this order."""
    if not isinstance(grids, tuple):
        return grids
    return _as_few([grids[number] for number in numbers])


def behind(grids: Sequence[Grids], batch_sizes: Sequence[int]) -> Grids:
    """Return the grids of batches put one behind another; None where one is not known."""
    joined: list[Grid] = []
    for own, size in zip(grids, batch_sizes, strict=True):
        if own is None:
            return None
        joined += [own] * size if isinstance(own, Grid) else own
    if not joined:
        return next(iter(grids), None)
    return _as_few(joined)


def common(name: str, first: Grids, other: Grids) -> Grids:
    """Return the grid of both, the known one where one is None.

    Raises:
        SparseConvValueError: both are known, and differ; ``name`` is the other argument's.
    """
    if first is None or other is None or first is other:
        return other if first is None else first
    pairs = paired(first, other)
    for own, others in pairs:
        if not own.agrees_with(others):
            raise SparseConvValueError(
                f"{name}: voxelize both on one grid, by like= or origin=: its voxel 0 starts at "
                f"{others.origin} with edges {others.voxel_size}, the input's at {own.origin} "
                f"with edges {own.voxel_size}; x.with_grid(None) forgets where x lies"
            )
    return first


def agree(first: Grids, other: Grids) -> bool:
    """Return False where both are known, and differ."""
    if first is None or other is None or first is other:
        return True
    return all(own.agrees_with(others) for own, others in paired(first, other))


def wrapping(grids: Grids) -> tuple[bool, ...]:
    """Return which axes wrap around; none where nobody knows where the sites lie.

    Raises:
        SparseConvValueError: samples differ in that.
    """
    if grids is None:
        return ()
    first, *others = grids if isinstance(grids, tuple) else (grids,)
    if any(grid.circular != first.circular for grid in others):
        raise SparseConvValueError(
            "grid: all samples of a batch must wrap around the same axes, or none of them"
        )
    return first.circular


def paired(
    first: Grid | tuple[Grid, ...], other: Grid | tuple[Grid, ...]
) -> list[tuple[Grid, Grid]]:
    """Return the grids of each sample side by side."""
    count = max(len(each) if isinstance(each, tuple) else 1 for each in (first, other))
    rows = [each if isinstance(each, tuple) else (each,) * count for each in (first, other)]
    return list(zip(*rows, strict=False))


def _as_few(grids: Sequence[Grid]) -> Grids:
    """Return one grid where all are equal."""
    alike = all(grid is grids[0] or _same(grid, grids[0]) for grid in grids)
    return grids[0] if grids and alike else tuple(grids)


def _same(grid: Grid, other: Grid) -> bool:
    """Return whether the grids are equal, their way from the base too."""
    return grid == other and (grid.stride, grid.shift) == (other.stride, other.shift)


def _window(geometry: Geometry) -> tuple[Ints, Ints, Ints]:
    """Return first cell, number of cells and stride of the window of output 0, per axis."""
    both = zip(geometry.dilation, geometry.kernel_size, strict=True)
    sizes = tuple(dilation * (kernel - 1) + 1 for dilation, kernel in both)
    return tuple(-padding for padding in geometry.padding), sizes, geometry.stride


def _first_cell(begin: int, size: int, stride: int) -> int:
    """Return the first of the ``stride`` cells that belong to output 0 of a window.

    Cell 0 where the window covers these cells, or lies in them, and its middle is at most half a
    stride off, so that a layer with the usual padding keeps the origin; else those in its middle.
    """
    end = begin + size - stride
    middle = (begin + end) / 2
    if min(begin, end) <= 0 <= max(begin, end) and 2 * abs(middle) < stride:
        return 0
    return int(middle)
