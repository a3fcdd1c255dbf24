"""Coordinates from outside: checked, packed, and grouped where several fall on one site."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.arguments import Ints, check_int, check_integers, entries_of, is_int, plain
from sparseconv.core.dtypes import INT32
from sparseconv.core.grid import Grids
from sparseconv.core.handles import DOORS
from sparseconv.core.index import MAX_CELLS, Groups, Index, Packing, starts_of
from sparseconv.core.private_torch import refuse_jit
from sparseconv.core.remember import remembered
from sparseconv.engines import Engine, memory
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.record import SiteRecord
from sparseconv.sites.sites import Sites

MAX_DIMENSIONS = 4

Box = tuple[Ints, Ints]  # the smallest and the largest value per column


def sites_from_coords(
    coords: Tensor,
    spatial_shape: Sequence[int | None] | None,
    batch_size: int | None,
    lower: Ints | None = None,
    remedy: str = "give reduce='sum', 'mean', 'max' or 'first' to merge them",
    grid: Grids = None,
    inferred: bool = False,
) -> Sites:
    """Return the sites at ``coords`` ``[N, 1 + D]``, rows as given.

    ``lower`` is the smallest legal coordinate per axis; left out, it is 0, or where
    ``spatial_shape`` is left out too, as low as the coordinates go. An entry of ``spatial_shape``
    that is None is an axis without an end. ``remedy`` ends the message about repeated sites;
    ``grid`` is where they lie; ``inferred`` says that nobody gave the extent.

    Raises:
        SparseConvTypeError, SparseConvValueError: see DESIGN section 7; duplicates are an error.
    """
    if torch.compiler.is_compiling():
        made: Sites = DOORS.operators["sites_from_coords"](coords, spatial_shape, batch_size, lower)
        return made
    record = _checked_record(coords, spatial_shape, batch_size, lower, grid)
    record.inferred = record.inferred or inferred
    keys = record.index.keys
    if not engines.for_tensor(coords).ascends(keys):
        doubles = keys[1:] == keys[:-1]
        first = int(torch.nonzero(doubles)[0, 0])
        example = record.index.packing.unpack(keys[first : first + 1])[0].tolist()
        raise SparseConvValueError(
            f"coords: {int(doubles.sum())} of {keys.numel()} rows repeat a site, {example} is the "
            f"first; {remedy}"
        )
    return Sites(record)


def grouped_sites(
    coords: Tensor,
    spatial_shape: Sequence[int | None] | None,
    batch_size: int | None,
    lower: Ints | None = None,
    grid: Grids = None,
    box: Box | None = None,
    shown: torch.dtype | None = None,
) -> tuple[Sites, Groups]:
    """Return the distinct sites of ``coords``, sorted, and which rows fall on each.

    ``box`` is the smallest and the largest value per column, where the caller knows them, and
    ``shown`` the dtype of the sites' coordinates, where it is not that of ``coords``.
    """
    if torch.compiler.is_compiling():
        made: tuple[Sites, Groups] = DOORS.operators["grouped_sites"](
            coords if shown is None else coords.to(shown), spatial_shape, batch_size, lower
        )
        return made
    sites, groups = _grouped(coords, spatial_shape, batch_size, lower, grid, box)
    sites.record.coords_dtype = shown or sites.record.coords_dtype
    return sites, groups


@remembered
def _grouped(
    coords: Tensor,
    spatial_shape: Sequence[int | None] | None,
    batch_size: int | None,
    lower: Ints | None,
    grid: Grids,
    box: Box | None,
) -> tuple[Sites, Groups]:
    record = _checked_record(coords, spatial_shape, batch_size, lower, grid, box)
    order = record.index.order
    if order is None:
        order = torch.arange(coords.shape[0], device=coords.device)
    unique, counts = torch.unique_consecutive(record.index.keys, return_counts=True)
    record.index = Index(unique, None, record.index.packing)  # frees the keys of all rows
    starts = starts_of(counts)
    # on the CPU from the pool, where the keys were
    empty = memory.empty if order.device.type == "cpu" else order.new_empty
    site_of_row = empty(order.shape, dtype=order.dtype)
    of_entry = torch.repeat_interleave(counts, output_size=order.numel())
    site_of_row.scatter_(0, order, of_entry)
    return Sites(record), Groups(order, starts, site_of_row)


@remembered
def _checked_record(
    coords: Tensor,
    spatial_shape: Sequence[int | None] | None,
    batch_size: int | None,
    lower: Ints | None = None,
    grid: Grids = None,
    box: Box | None = None,
) -> SiteRecord:
    """Return the record of checked ``coords``, in which sites may still repeat."""
    refuse_jit()
    _check_layout(coords)
    engine = engines.for_tensor(coords)
    low, high = box or _bounds(coords, engine)
    batch = _batch_size(batch_size, low, high)
    if lower is None:
        lower = _lowest(spatial_shape, low[1:])
    shape = _spatial_shape(spatial_shape, lower, low[1:], high[1:])
    packing = Packing.around(low, high, MAX_CELLS)
    index = engine.build_index(coords, packing)
    dtype = coords.dtype if coords.dtype in (torch.int32, torch.int64) else torch.int64
    return SiteRecord(index, shape, batch, lower, dtype, grid, spatial_shape is None)


def _check_layout(coords: Tensor) -> None:
    check_integers("coords", coords, "; points in metres go through sparseconv.voxelize")
    if coords.ndim != 2 or not 2 <= coords.shape[1] <= 1 + MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"coords: must have shape (N, 1 + D) with the batch index in column 0 and D from 1 to "
            f"{MAX_DIMENSIONS}, got {tuple(coords.shape)}"
        )


def _bounds(coords: Tensor, engine: Engine) -> Box:
    """Return the smallest and the largest value per column; 0 and -1 where there is no row."""
    if coords.shape[0] == 0:
        return (0,) * coords.shape[1], (-1,) * coords.shape[1]
    low, high = engine.bounds(coords)
    if min(low) < INT32.min or max(high) > INT32.max:
        raise SparseConvValueError(
            f"coords: must lie in the int32 range, got values from {min(low)} to {max(high)}"
        )
    return low, high


def _batch_size(batch_size: int | None, low: Ints, high: Ints) -> int:
    """Return the number of samples: as given, or the largest batch index + 1."""
    if low[0] < 0:
        raise SparseConvValueError(
            f"coords: the batch index (column 0) must not be negative, got {low[0]}"
        )
    if batch_size is None:
        return high[0] + 1
    batch_size = check_int("batch_size", batch_size, least=0)
    if high[0] >= batch_size:
        last = low[-1] >= 0 and high[-1] < batch_size
        hint = "; it looks like the batch index is in the last column" if last else ""
        raise SparseConvValueError(
            f"coords: the batch index (column 0) goes up to {high[0]}, but batch_size is "
            f"{batch_size}{hint}"
        )
    return batch_size


def _lowest(spatial_shape: Sequence[int | None] | None, low: Ints) -> Ints:
    """Return the smallest legal coordinate per axis, below 0 where an axis has no end."""
    if spatial_shape is None:
        return tuple(min(0, entry) for entry in low)
    asked = entries_of(spatial_shape) or ()
    is_open = [size is None for size in asked] + [False] * len(low)
    return tuple(
        min(-1, entry) if without_end else 0
        for entry, without_end in zip(low, is_open, strict=False)
    )


def _spatial_shape(
    spatial_shape: Sequence[int | None] | None, lower: Ints, low: Ints, high: Ints
) -> Ints:
    """Return the dense extent: as given, or the largest coordinate + 1."""
    if spatial_shape is None:
        return tuple(max(top + 1, 0) for top in high)
    entries = entries_of(spatial_shape)
    if entries is None:
        raise SparseConvTypeError(
            f"spatial_shape: must hold one integer per axis, got {spatial_shape!r}"
        )
    if len(entries) == len(high):
        entries = tuple(
            max(top + 1, 0) if size is None else size
            for size, top in zip(entries, high, strict=True)
        )
    shape = tuple(plain(size) for size in entries)
    if not all(map(is_int, shape)):
        raise SparseConvTypeError(f"spatial_shape: must be integers, got {shape}")
    if len(shape) != len(low):
        raise SparseConvValueError(
            f"spatial_shape: must have {len(low)} entries, one per spatial column of coords, "
            f"got {shape}"
        )
    if min(shape) < 0:
        raise SparseConvValueError(f"spatial_shape: must not be negative, got {shape}")
    for axis, (bottom, top, size) in enumerate(zip(low, high, shape, strict=True)):
        if top >= bottom and (bottom < lower[axis] or top >= size):
            fits = all(b >= 0 and t < s for b, t, s in zip(low, high, shape[::-1], strict=True))
            hint = "; it looks like the axes are reversed" if fits else ""
            raise SparseConvValueError(
                f"coords: column {axis + 1} (spatial axis {axis}) spans {bottom} to {top}, outside "
                f"spatial_shape {shape}, which allows {lower[axis]} to {size - 1}{hint}"
            )
    return shape
