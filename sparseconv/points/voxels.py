"""Points to voxels."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparseconv import io
from sparseconv.autograd.segments import check_reduction, reduce_groups
from sparseconv.core.arguments import Ints, came, per_axis
from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.grid import Floats, Grid
from sparseconv.core.handles import DOORS
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.points.cells import WHOLE, cells_from, lifted, origin_of, rounded_box
from sparseconv.points.clouds import Points, one_cloud
from sparseconv.points.point_map import PointMap
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.tensor import SparseTensor

Like = PointMap | SparseTensor | Grid


class _Place(NamedTuple):
    """The grid that points shall fall on, as far as the caller says.

    Attributes:
        size: the voxel's edges.
        grid: the grid; None where the points set its origin.
        shape: the least extent per axis.
        bounds: the box outside of which points are dropped.
    """

    size: Floats
    grid: Grid | None = None
    shape: Ints | None = None
    bounds: tuple[Floats, Floats] | None = None


class _Fallen(NamedTuple):
    """Where the points fell.

    Attributes:
        inside: int64, the points in the bounds; None for all.
        coords: sample and voxel of each of these, int64 ``[N, 1 + D]``.
        first, last: the ends of the box that they lie in, per axis.
        shape, lower: extent, and smallest legal coordinate per axis.
        grid: where the voxels lie.
    """

    inside: Tensor | None
    coords: Tensor
    first: Ints
    last: Ints
    shape: Ints
    lower: Ints
    grid: Grid


@native_keywords
def voxelize(  # noqa: PLR0913
    xyz: Points | io.Points | Sequence[Points | io.Points],
    voxel_size: float | Sequence[float] | None = None,
    features: Points | Sequence[Points] | None = None,
    batch: Points | None = None,
    bounds: Sequence[Any] | Points | None = None,
    reduce: str = "mean",
    *,
    origin: Sequence[float] | Points | None = None,
    multiple_of: int | Sequence[int] = 16,
    like: Like | None = None,
) -> tuple[SparseTensor, PointMap]:
    """Return the voxels that points fall on, and the way back to the points.

    A point belongs to voxel ``floor((xyz - origin) / voxel_size)``; one that lies on a face up to
    the rounding of its own dtype belongs to the voxel above. The origin is a multiple of
    ``multiple_of`` voxels in the points' own frame and the extent is rounded up to it, beyond the
    last window of strided layers (kernel up to 3, padding 1): which points share a voxel, and which
    voxels share one of a strided layer, does not depend on the other points, nor on the other
    samples of the batch.

    Args:
        xyz: ``[N, D]`` points, metres, D from 1 to 4, or what :func:`sparseconv.io.read_points`
            returned, whose features count where ``features`` is left out; or a batch: a list of
            either, one entry per sample (a sample may be empty), or ``[B, N, D]``.
        voxel_size: metres, one number or one per axis; that of ``like`` where left out.
        features: floating point ``[N, C]``, or as ``xyz`` for a batch; a column of ones where left
            out and where the file had none.
        batch: integer ``[N]``, the sample of each point; all in sample 0 where left out. Not with
            a list.
        bounds: ``(low, high)`` or ``(*low, *high)``, metres: points outside ``low <= xyz < high``
            are dropped, the origin is ``low`` and the extent ``ceil((high - low) / voxel_size)``.
        reduce: how the features of points in one voxel merge: ``"mean"``, ``"sum"``, ``"max"``,
            ``"min"``, ``"first"`` or ``"last"``; differentiable.
        origin: metres, one number per axis: the low corner of voxel 0. Points below it have
            negative coordinates.
        multiple_of: voxels, int or one per axis; the stride of a network divides it. 1 gives the
            tight box.
        like: a :class:`PointMap`, a SparseTensor or a :class:`Grid`: voxels on its grid, in its
            bounds where it has some, with an extent at least as large.

    Returns:
        The SparseTensor, its sites sorted, and the :class:`PointMap`.

    Raises:
        SparseConvError: NaN or infinite points, NaN features, a voxel size that is not positive,
            shapes that do not fit, voxel coordinates that cannot be packed, two arguments that
            both say where the grid begins.

    Example:
        >>> import torch, sparseconv as sc
        >>> xyz = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.1, 0.2], [2.0, 0.0, 0.0]])
        >>> x, to_points = sc.voxelize(xyz, 0.5, reduce="sum")
        >>> x.features.flatten(), to_points.rows, x.spatial_shape
        (tensor([2., 1.]), tensor([0, 0, 1]), (32, 16, 16))
    """
    check_reduction(reduce)
    if torch.compiler.is_compiling():
        place_names = voxel_size, bounds, origin, like
        made: tuple[SparseTensor, PointMap] = DOORS.operators["voxelize"](
            xyz, features, batch, place_names, multiple_of, reduce
        )
        return made
    cloud = one_cloud(xyz, features, batch)
    points, values = cloud.xyz, cloud.features
    axes = points.shape[1]
    place = _place(axes, voxel_size, bounds, origin, like)
    multiples = per_axis("multiple_of", multiple_of, axes)
    fallen = _cells(points.detach(), cloud.samples, place, multiples)
    inside = fallen.inside
    if inside is not None:
        values = values[inside]
    site_set = fallen.shape, cloud.batch_size, fallen.lower, fallen.grid
    box = (0, *fallen.first), (cloud.batch_size - 1, *fallen.last)
    sites, groups = grouped_sites(fallen.coords, *site_set, box, torch.int64)
    del fallen  # its coordinates have served
    x = SparseTensor.on_sites(reduce_groups(values, groups, reduce), sites)
    rows = groups.site_of_row
    if inside is not None:
        rows = torch.full((points.shape[0],), -1, device=points.device)
        rows[inside] = groups.site_of_row
    to_points = PointMap(rows, sites, points, cloud.samples, place.bounds, _groups=[groups])
    return x, to_points


def _place(axes: int, voxel_size: Any, bounds: Any, origin: Any, like: Any) -> _Place:
    """Return the grid that the arguments name.

    Raises:
        SparseConvError: an argument that is no place, or two that both say where the grid begins.
    """
    named = [name for name, value in (("bounds", bounds), ("origin", origin), ("like", like))
             if value is not None]  # fmt: skip
    if len(named) > 1:
        raise SparseConvValueError(f"{named[1]}: {named[0]} says where the grid begins; give one")
    if like is not None:
        return _like(axes, voxel_size, like)
    if voxel_size is None:
        raise SparseConvTypeError("voxel_size: must be given, unless like= is")
    size = _per_axis("voxel_size", voxel_size, axes)
    if not all(0 < edge < float("inf") for edge in size):
        raise SparseConvValueError(f"voxel_size: must be positive and finite, got {size}")
    if bounds is not None:
        low, high = _bounds(bounds, axes)
        return _Place(size, Grid(low, size), None, (low, high))
    if origin is None:
        return _Place(size)
    return _Place(size, Grid(_per_axis("origin", origin, axes), size))


def _like(axes: int, voxel_size: Any, like: Any) -> _Place:
    """Return the grid of what ``like`` is, with its extent and bounds."""
    if not isinstance(like, PointMap | SparseTensor | Grid):
        raise SparseConvTypeError(
            f"like: must be a PointMap, a SparseTensor or a Grid, got {came(like)}"
        )
    grid = like if isinstance(like, Grid) else like.grid
    if not isinstance(grid, Grid):
        what = "its grid is not known" if grid is None else "its samples lie on grids of their own"
        raise SparseConvValueError(f"like: {what}; give one sample, like[0], or a sparseconv.Grid")
    if grid.dimensions != axes:
        raise SparseConvValueError(f"like: must have {axes} axes as xyz, got {grid.dimensions}")
    size = grid.voxel_size
    if voxel_size is not None and not np.allclose(
        _per_axis("voxel_size", voxel_size, axes), size, rtol=1e-9, atol=0
    ):
        raise SparseConvValueError(f"voxel_size: like has {size}, got {voxel_size}; leave it out")
    if isinstance(like, Grid):
        return _Place(size, grid)
    if isinstance(like, PointMap):
        return _Place(size, grid, like.sites.spatial_shape, like.bounds)
    return _Place(size, grid, like.spatial_shape)


def _cells(points: Tensor, samples: Tensor, place: _Place, multiples: Ints) -> _Fallen:
    """Return the voxel of each point.

    It works axis by axis, because operators over rows of three numbers use no vector instructions.
    """
    size, known = place.size, place.grid
    zeros = (0,) * len(size)
    low = (0.0,) * len(size) if known is None else known.origin
    raised = (lifted(*axis) for axis in zip(points.unbind(1), size, low, strict=True))
    if known is not None and place.bounds is not None:
        coords = _with_samples(samples, len(size))
        inside, ends, shape = _within(coords, raised, size, place.bounds)
        return _Fallen(inside, coords[inside], *ends, shape, zeros, known)
    cells = [cells_from(*axis) for axis in zip(raised, low, size, strict=True)]
    first, last = _ends(cells, size, known is not None)
    if known is None:
        start, shape = rounded_box(first, last, multiples)
        lower, known = zeros, Grid(origin_of(start, size), size)
    else:
        start, lower = zeros, tuple(map(min, first, zeros))
        _, shape = rounded_box(zeros, last, multiples)
        shape = tuple(map(max, shape, place.shape or zeros))
    coords = _with_samples(samples, len(size))
    for column, steps in enumerate(start, 1):
        axis = cells.pop(0)  # freed when it is written
        coords[:, column] = axis.sub_(steps) if steps else axis
    first, last = (tuple(map(operator.sub, end, start)) for end in (first, last))
    return _Fallen(None, coords, first, last, shape, lower, known)


def _with_samples(samples: Tensor, axes: int) -> Tensor:
    """Return int32 ``[N, 1 + D]`` whose first column is the sample; the others are not set."""
    coords = torch.empty(len(samples), 1 + axes, dtype=torch.int32, device=samples.device)
    coords[:, 0] = samples
    return coords


def _ends(cells: Sequence[Tensor], size: Floats, known: bool) -> tuple[Ints, Ints]:
    """Return the first and the last voxel per axis; the last is before the first without points.

    Raises:
        SparseConvValueError: coordinates from the origin, if it is known, or else from the first
            voxel, that are not in the int32 range.
    """
    if not cells[0].numel():
        return (0,) * len(cells), (-1,) * len(cells)
    both = torch.stack([end for axis in cells for end in torch.aminmax(axis)]).tolist()
    ends = list(zip(both[::2], both[1::2], strict=True))
    spans = [max(abs(low), abs(high)) if known else high - low for low, high in ends]
    wide = [span for span in spans if not span < 2**31]  # NaN between infinite ones
    if wide:
        raise SparseConvValueError(
            f"voxel_size: the points span {wide[0]:.3g} voxels of {size} metres on one axis; "
            f"coordinates must lie in the int32 range"
        )
    return tuple(int(low) for low, _ in ends), tuple(int(high) for _, high in ends)


def _within(
    coords: Tensor, raised: Iterable[Tensor], size: Floats, bounds: tuple[Floats, Floats]
) -> tuple[Tensor, tuple[Ints, Ints], Ints]:
    """Write the coordinates of points in a box; return those in it, their ends and its extent."""
    low, high = bounds
    shape = extent_of(low, high, size)
    inside = torch.ones(len(coords), dtype=torch.bool, device=coords.device)
    for number, axis in enumerate(raised):
        below = axis < high[number]
        cells = cells_from(axis, low[number], size[number])
        within = (cells >= 0) & below & (cells < float(shape[number]))
        coords[:, 1 + number] = torch.where(within, cells, 0)
        inside &= within
    if not len(coords):
        return inside.nonzero()[:, 0], ((0,) * len(low), (-1,) * len(low)), shape
    ends = torch.stack(torch.aminmax(coords[:, 1:], dim=0)).flatten()
    *found, count = torch.cat([ends, inside.sum()[None]]).tolist()
    rows = torch.nonzero_static(inside, size=count)[:, 0]
    return rows, (tuple(found[: len(low)]), tuple(found[len(low) :])), shape


def extent_of(low: Sequence[float], high: Sequence[float], size: Sequence[float]) -> Ints:
    """Return the voxels per axis of a box; a whole number up to rounding is exactly that number."""
    lengths = zip(low, high, size, strict=True)
    return tuple(math.ceil((top - bottom) / step - WHOLE) for bottom, top, step in lengths)


def _bounds(bounds: Any, axes: int) -> tuple[Floats, Floats]:
    flat = _numbers("bounds", bounds)
    if flat.size != 2 * axes or not np.isfinite(flat).all():
        raise SparseConvValueError(
            f"bounds: must be (low, high) with {axes} finite numbers each, got {bounds!r}"
        )
    low, high = tuple(flat[:axes].tolist()), tuple(flat[axes:].tolist())
    if any(top <= bottom for bottom, top in zip(low, high, strict=True)):
        raise SparseConvValueError(f"bounds: high must exceed low on every axis, got {low}, {high}")
    return low, high


def _per_axis(name: str, value: Any, axes: int) -> Floats:
    """Return one number, or one per axis, as so many floats."""
    entries: list[float] = _numbers(name, value).tolist()
    if len(entries) == 1:
        entries = entries * axes
    if len(entries) != axes:
        raise SparseConvValueError(
            f"{name}: must be one number or {axes} (one per axis), got {len(entries)}"
        )
    return tuple(entries)


def _numbers(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return numbers, nested or not, as one float64 array."""
    try:
        return np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise SparseConvTypeError(f"{name}: must be numbers, got {value!r}") from error
