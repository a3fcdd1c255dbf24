"""The CPU engine: Numba kernels over sorted keys, in parallel, the same bits twice."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines import numba_deform as deform
from sparseconv.engines import numba_products as products
from sparseconv.engines import numba_segments as segments
from sparseconv.engines import numba_sites as kernels
from sparseconv.engines import numba_windows as windows
from sparseconv.engines.numba_compile import in_parallel
from sparseconv.engines.protocol import Index
from sparseconv.geometry import Geometry, Kind
from sparseconv.packing import Packing
from sparseconv.rulebook import Rulebook, Taps

Array = np.ndarray[Any, Any]

TILE_ROWS = 512
SAMPLE_ROWS = 128  # output rows of a deformable tile: its interpolated column stays in the cache
REDUCE_TASKS = 16  # tasks that a weight gradient is split into
REDUCE_TILES = 8  # tiles that a partial sum covers at least
REDUCE_BYTES = 2**26  # most memory for partial sums
CHUNK_ROWS = 8192  # sites or segments that one task takes
MERGE_COLUMNS = 16  # columns of kernel cells searched at once: bounds the scratch memory

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class TiledPairs:
    """Pairs in ascending order of their output rows, and where each tile of rows begins.

    Attributes:
        in_rows, out_rows: int32 ``[P]``.
        starts: int64 ``[K, T + 1]``.
    """

    in_rows: Array
    out_rows: Array
    starts: Array


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why tensors of this kind cannot run here, or None."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    if dtype.is_floating_point and dtype not in _FLOATS:
        return f"it has no arithmetic in {dtype}"
    return None


def build_index(keys: Tensor, packing: Packing) -> Index:
    """Return the index; keys that come in order are not copied."""
    values = keys.numpy()
    if values.size < 2 or bool(products.ascends(values, 0, values.size)):
        return Index(keys, None, packing)
    order = np.argsort(values)  # several times as fast as the stable sort, ties included
    ascending = values[order]
    segments.order_ties(ascending, order)
    return Index(torch.from_numpy(ascending), torch.from_numpy(order), packing)


def lookup(index: Index, keys: Tensor) -> Tensor:
    """Return the rows of ``keys``, -1 where absent, through a hash table made at the first call."""
    values = index.keys.numpy()
    if "numba" not in index.tables:
        size = 1 << max(2 * values.size, 2).bit_length()
        table = np.full(size, -1, np.int64), np.empty(size, np.int64)
        kernels.fill_table(values, *table)
        index.tables["numba"] = table
    wanted = keys.contiguous().numpy()
    rows = np.empty(wanted.size, np.int64)
    _by_chunks(
        wanted.size, lambda s, e: kernels.probe_table(wanted, *index.tables["numba"], s, e, rows)
    )
    found = torch.from_numpy(rows)
    if index.order is None or found.numel() == 0:
        return found
    return torch.where(found < 0, found, index.order[found])


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the distinct keys of the sites that the inputs reach, ascending."""
    coords = _coords(index)
    arrays = _geometry(geometry), *_box(packing)
    transposed = geometry.kind is Kind.TRANSPOSED
    most = math.prod(geometry.kernel_size if transposed else _cells_in_phase(geometry))
    starts = list(range(0, coords.shape[0], CHUNK_ROWS))
    parts: list[Array] = [np.empty(0, np.int64)] * len(starts)

    def run(number: int) -> None:
        start = starts[number]
        end = min(start + CHUNK_ROWS, coords.shape[0])
        keys = np.empty((end - start) * most, np.int64)
        count = kernels.reach(coords, *arrays, transposed, start, end, keys)
        parts[number] = np.sort(keys[:count])
        parts[number] = parts[number][: kernels.drop_repeats(parts[number])]

    in_parallel(run, len(starts))
    keys = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    return torch.from_numpy(keys[: kernels.drop_repeats(keys)].copy())


def _cells_in_phase(geometry: Geometry) -> list[int]:
    """Return the most cells per axis through which one input can reach a whole output."""
    counts = []
    for size, stride, dilation in zip(
        geometry.kernel_size, geometry.stride, geometry.dilation, strict=True
    ):
        period = stride // math.gcd(stride, dilation)
        counts.append(-(-size // period))
    return counts


def build_rulebook(fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
    """Return the pairs by merging ascending keys, one pass per column of kernel cells.

    A submanifold rulebook is its own mirror image: the pairs of cell ``K - 1 - k`` are those of
    cell ``k`` swapped, in the same order, so only the first half is searched.
    """
    *front, last = (1,) * (4 - geometry.dimensions) + geometry.kernel_size
    columns = [(*cells, last) for cells in itertools.product(*map(range, front))]
    mirrored = geometry.kind is Kind.SUBMANIFOLD and fine is coarse
    if mirrored:
        half = len(columns) // 2
        columns = [*columns[:half], (*columns[half][:3], last // 2)]
    coords, arrays = _coords(coarse), _geometry(geometry)
    parts = [
        _merged(fine, coarse, coords, arrays, columns[number : number + MERGE_COLUMNS])
        for number in range(0, len(columns), MERGE_COLUMNS)
    ]
    fine_rows, coarse_rows, counts = (np.concatenate(side) for side in zip(*parts, strict=True))
    if mirrored:
        fine_rows, coarse_rows, counts = _mirrored(fine_rows, coarse_rows, counts, fine)
    return Rulebook(
        torch.from_numpy(fine_rows),
        torch.from_numpy(coarse_rows),
        tuple(itertools.accumulate(counts.tolist(), initial=0)),
        fine.keys.numel(),
        coarse.keys.numel(),
    )


def _merged(
    fine: Index, coarse: Index, coords: Array, geometry: Array, columns: list[tuple[int, ...]]
) -> tuple[Array, Array, Array]:
    """Return the pairs of some columns, cell by cell: fine rows, coarse rows, pairs per cell."""
    last = int(geometry[0, 3])
    cells = [
        number * last + cell for number, column in enumerate(columns) for cell in range(column[3])
    ]
    count = coords.shape[0]
    chunks = -(-count // CHUNK_ROWS)
    scratch = np.empty((2, len(columns) * last, count), np.int32)
    counts = np.zeros((chunks, len(columns) * last), np.int64)
    keys, box, places = fine.keys.numpy(), _box(fine.packing), np.array(columns, np.int64)

    def search(number: int) -> None:
        first = number * CHUNK_ROWS
        bounds = np.array([first, min(first + CHUNK_ROWS, count)], np.int64)
        kernels.merge(keys, *box, coords, geometry, places, bounds, *scratch, counts[number])

    in_parallel(search, chunks)
    by_cell = np.ascontiguousarray(counts[:, cells].T)
    totals = by_cell.sum(axis=1)
    starts = [0, *itertools.accumulate(totals.tolist())]
    sides = np.empty((2, starts[-1]), np.int32)
    orders = [
        np.empty(0, np.int64) if index.order is None else index.order.numpy()
        for index in (fine, coarse)
    ]

    def put_together(number: int) -> None:
        for side in (0, 1):
            positions = scratch[side, cells[number]]
            place = by_cell[number], orders[side], starts[number], sides[side]
            kernels.collect(positions, CHUNK_ROWS, *place)

    in_parallel(put_together, len(cells))
    return sides[0], sides[1], totals


def _mirrored(
    fine_rows: Array, coarse_rows: Array, counts: Array, index: Index
) -> tuple[Array, Array, Array]:
    """Return the whole of a submanifold rulebook from its first half."""
    n, half = index.keys.numel(), fine_rows.size
    centre = np.arange(n) if index.order is None else index.order.numpy()
    ends = np.cumsum(counts)
    sides = []
    for own, other in ((fine_rows, coarse_rows), (coarse_rows, fine_rows)):
        rows = np.empty(2 * half + n, np.int32)
        rows[:half] = own
        rows[half : half + n] = centre
        for count, end in zip(counts.tolist(), ends.tolist(), strict=True):
            rows[rows.size - end : rows.size - end + count] = other[end - count : end]
        sides.append(rows)
    return sides[0], sides[1], np.concatenate([counts, [n], counts[::-1]])


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution, tile by tile of output rows."""
    _, groups, c_in, c_out = weight.shape
    x = _array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = _columns(c_out, x.dtype)
    # [K, G, c_in, c_out] -> [K, G, blocks, c_in, block]: a block of columns is one run of memory
    packed = torch.nn.functional.pad(weight.detach(), (0, columns - c_out))
    w = _array(packed.unflatten(3, (-1, block)).transpose(2, 3))
    out = np.empty((rulebook.n_out, groups, columns), x.dtype)
    tiled = _tiled(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(
        lambda number: products.scatter_tile(x, w, *pairs, TILE_ROWS, number, out),
        tiled.starts.shape[1] - 1,
    )
    result = torch.from_numpy(out)[:, :, :c_out].reshape(rulebook.n_out, groups * c_out)
    return result.to(features.dtype).contiguous()


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: partial sums over groups of tiles, added in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    x = _array(features).reshape(rulebook.n_in, groups, c_in)
    columns, block = _columns(c_out, x.dtype)
    split = grad.detach().reshape(rulebook.n_out, groups, c_out)
    g = _array(torch.nn.functional.pad(split, (0, columns - c_out)))
    tiled = _tiled(rulebook)
    shape = (rulebook.num_cells, groups, columns // block, c_in, block)
    parts, cell_groups = _reduce_tasks(tiled, math.prod(shape) * x.itemsize)
    partial = np.empty((len(parts), *shape), x.dtype)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts

    def run(number: int) -> None:
        part, cells = divmod(number, len(cell_groups))
        first, last = cell_groups[cells]
        target = partial[part, first:last]
        products.reduce_tiles(x, g, *pairs, parts[part], cell_groups[cells], target)

    in_parallel(run, len(parts) * len(cell_groups))
    packed = np.zeros(shape, x.dtype)
    for part in partial:
        packed += part
    weight = torch.from_numpy(packed).transpose(2, 3).flatten(3)[..., :c_out]
    return weight.to(features.dtype).contiguous()


def _reduce_tasks(tiled: TiledPairs, size: int) -> tuple[Array, Array]:
    """Return the ranges of tiles and of cells that a weight gradient is summed over apart.

    They depend on the shapes alone, never on the number of threads, and so does the order of
    additions. Few rows are split by cell, many by tile; partial sums take ``REDUCE_BYTES`` at most.
    """
    cells, tiles = tiled.starts.shape[0], tiled.starts.shape[1] - 1
    parts = max(1, min(REDUCE_TASKS, tiles // REDUCE_TILES, REDUCE_BYTES // size))
    groups = min(cells, -(-REDUCE_TASKS // parts))
    return _ranges(tiles, parts), _ranges(cells, groups)


def _ranges(count: int, parts: int) -> Array:
    """Return ``[parts, 2]``: ``count`` split into ranges of about equal length."""
    ends = np.arange(parts + 1) * count // parts
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _columns(c_out: int, dtype: Any) -> tuple[int, int]:
    """Return ``c_out`` rounded up to whole vectors, and the columns of a block: one or two."""
    lanes = products.VECTOR_BYTES // dtype.itemsize
    columns = -(-c_out // lanes) * lanes
    return columns, lanes if columns % (2 * lanes) else 2 * lanes


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product, tile by tile of output rows."""
    _, groups, _, c_out = weight.shape
    x = _array(features)
    w, columns = _blocks(weight, x.dtype)
    out = np.empty((shares.shape[3], groups, columns), x.dtype)
    lines = np.arange(SAMPLE_ROWS, dtype=np.int32)
    s, rows = _array(shares).astype(x.dtype, copy=False), taps.rows.numpy()

    def run(number: int) -> None:
        column = np.empty((SAMPLE_ROWS, x.shape[1]), x.dtype)
        deform.sample_tile(x, s, rows, w, lines, number, column, out)

    in_parallel(run, -(-out.shape[0] // SAMPLE_ROWS))
    result = torch.from_numpy(out)[:, :, :c_out].reshape(out.shape[0], groups * c_out)
    return result.to(features.dtype)


def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the deformable product: tasks of samples and input channels."""
    cells, groups, c_in, c_out = weight.shape
    x = _array(features)
    s, rows = _array(shares).astype(x.dtype, copy=False), taps.rows.numpy()
    w, _ = _blocks(weight.transpose(2, 3), x.dtype)
    columns, block_out = _columns(c_out, x.dtype)
    split = grad.detach().reshape(-1, groups, c_out)
    g = _array(torch.nn.functional.pad(split, (0, columns - c_out)))
    places, owners = _channel_blocks(groups, c_in, w.shape[4], rows.shape[0])
    shape = (cells, groups, columns // block_out, c_in, block_out)
    samples = _sample_ranges(taps, math.prod(shape) * x.itemsize)
    lines = np.arange(SAMPLE_ROWS, dtype=np.int32)
    d_x = np.zeros_like(x)
    partial = np.zeros((len(owners), *rows.shape[1:]), x.dtype)
    d_w = np.zeros((len(samples), *shape), x.dtype)

    def run(number: int) -> None:
        part, place = divmod(number, len(places))
        bounds = samples[part], places[place]
        deform.sample_gradients(x, s, rows, w, g, lines, *bounds, d_x, partial, d_w[part])

    in_parallel(run, len(samples) * len(places))
    d_s = np.zeros(rows.shape, x.dtype)
    for own, owner in zip(partial, owners, strict=True):
        d_s[owner] += own
    total = np.zeros(shape, x.dtype)
    for own in d_w:
        total += own
    d_weight = torch.from_numpy(total).transpose(2, 3).flatten(3)[..., :c_out].contiguous()
    return (
        torch.from_numpy(d_x).to(features.dtype),
        torch.from_numpy(d_s).to(shares.dtype),
        d_weight.to(weight.dtype),
    )


def _blocks(weight: Tensor, dtype: Any) -> tuple[Array, int]:
    """Return ``[K, G, c_in, c_out]`` as ``[K, G, blocks, c_in, BLOCK]``, and all its columns."""
    columns, block = _columns(weight.shape[3], dtype)
    padded = torch.nn.functional.pad(weight.detach(), (0, columns - weight.shape[3]))
    return _array(padded.unflatten(3, (-1, block)).transpose(2, 3)), columns


def _channel_blocks(
    groups: int, c_in: int, block: int, offset_groups: int
) -> tuple[Array, list[int]]:
    """Return the blocks of input channels: group, number, first part; each part's offset group."""
    channels = groups * c_in // offset_groups
    places: list[tuple[int, int, int]] = []
    owners: list[int] = []
    for group in range(groups):
        for number in range(-(-c_in // block)):
            places.append((group, number, len(owners)))
            low, high = number * block, min((number + 1) * block, c_in)
            low, high = (group * c_in + end for end in (low, high))
            owners += range(low // channels, (high - 1) // channels + 1)
    return np.array(places, np.int64).reshape(-1, 3), owners


def _sample_ranges(taps: Taps, size: int) -> Array:
    """Return the ranges of output rows that a weight gradient is summed over apart.

    A sample is never split, so that each input row is written to from one range alone.
    """
    count = len(taps.splits) - 1
    parts = max(1, min(REDUCE_TASKS, count, REDUCE_BYTES // size))
    splits = np.array(taps.splits)
    return splits[_ranges(count, parts)]


def segment_sum(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of each segment, row after row."""
    x = _array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), x.dtype)
    rows = order.numpy(), starts.numpy()
    count = out.shape[0]
    # as many segments to a task as hold CHUNK_ROWS rows on average
    step = max(1, CHUNK_ROWS * count // max(order.numel(), count, 1))
    _by_chunks(count, lambda s, e: segments.segment_sums(x, *rows, s, e, out), step)
    return torch.from_numpy(out).to(values.dtype)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, per column."""
    x = _array(values)
    out = np.empty((starts.numel() - 1, x.shape[1]), np.int64)
    rows = order.numpy(), starts.numpy()
    _by_chunks(out.shape[0], lambda s, e: segments.segment_argmaxes(x, *rows, s, e, out))
    return torch.from_numpy(out)


def window_argmax(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the row of each window's first largest value, per column."""
    x = _array(features)
    chosen = np.empty((rulebook.n_out, x.shape[1]), np.int32)
    _by_tiles(rulebook, lambda pairs, tile: windows.argmax_tile(x, *pairs, TILE_ROWS, tile, chosen))
    return torch.from_numpy(chosen)


def window_sum(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the sum of each window, cell by cell."""
    x = _array(features)
    out = np.empty((rulebook.n_out, x.shape[1]), x.dtype)
    _by_tiles(rulebook, lambda pairs, tile: windows.sum_tile(x, *pairs, TILE_ROWS, tile, out))
    return torch.from_numpy(out).to(features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    x, rows = _array(values), chosen.contiguous().numpy()
    out = np.empty((rulebook.n_in, x.shape[1]), x.dtype)
    _by_tiles(
        rulebook.transposed,
        lambda pairs, tile: windows.scatter_tile(x, rows, *pairs, TILE_ROWS, tile, out),
    )
    return torch.from_numpy(out).to(values.dtype)


def _by_tiles(rulebook: Rulebook, task: Any) -> None:
    """Call ``task(pairs, tile)`` for every tile of output rows, in parallel."""
    tiled = _tiled(rulebook)
    pairs = tiled.in_rows, tiled.out_rows, tiled.starts
    in_parallel(lambda tile: task(pairs, tile), tiled.starts.shape[1] - 1)


def _tiled(rulebook: Rulebook) -> TiledPairs:
    """Return the pairs in tile order: derived once per direction and kept on the rulebook."""
    layout: TiledPairs | None = rulebook.layouts.get("numba")
    if layout is None:
        layout = rulebook.layouts["numba"] = _tile(rulebook)
    return layout


def _tile(rulebook: Rulebook) -> TiledPairs:
    in_rows, out_rows = rulebook.in_rows.numpy(), rulebook.out_rows.numpy()
    ranges = list(itertools.pairwise(rulebook.splits))
    if not all(products.ascends(out_rows, start, end) for start, end in ranges):
        order = np.concatenate(
            [start + np.argsort(out_rows[start:end], kind="stable") for start, end in ranges]
        )
        in_rows, out_rows = in_rows[order], out_rows[order]
    tiles = -(-rulebook.n_out // TILE_ROWS)
    starts = np.empty((len(ranges), tiles + 1), np.int64)
    in_parallel(
        lambda cell: products.tile_starts(out_rows, *ranges[cell], TILE_ROWS, starts[cell]),
        len(ranges),
    )
    return TiledPairs(in_rows, out_rows, starts)


def _by_chunks(count: int, task: Any, step: int = CHUNK_ROWS) -> None:
    """Call ``task(start, end)`` over ``count`` rows in chunks of ``step``, in parallel."""
    starts = range(0, count, step)
    in_parallel(lambda number: task(starts[number], min(starts[number] + step, count)), len(starts))


def _array(x: Tensor) -> Array:
    """Return a contiguous array in a dtype to compute in: halves become float32."""
    x = x.detach().contiguous()
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    return x.numpy()


def _coords(index: Index) -> Array:
    """Return coordinates ``[N, 5]`` in key order."""
    keys = index.keys.numpy()
    coords = np.empty((keys.size, 5), np.int64)
    box = _box(index.packing)
    _by_chunks(keys.size, lambda start, end: kernels.unpack(keys, *box, start, end, coords))
    return coords


def _box(packing: Packing) -> tuple[Array, Array]:
    """Return lower and extent with missing axes put in behind the batch."""
    missing = 5 - len(packing.lower)
    lower = (packing.lower[0], *(0,) * missing, *packing.lower[1:])
    extent = (packing.extent[0], *(1,) * missing, *packing.extent[1:])
    return np.array(lower, np.int64), np.array(extent, np.int64)


def _geometry(geometry: Geometry) -> Array:
    """Return ``[4, 4]``: kernel size, stride, padding, dilation; missing axes put in front."""
    rows = (geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation)
    neutral = (1, 1, 0, 1)
    missing = 4 - geometry.dimensions
    return np.array(
        [(fill,) * missing + row for fill, row in zip(neutral, rows, strict=True)], np.int64
    )
