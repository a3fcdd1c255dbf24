"""The plain engine: PyTorch's own operators, on any device.

A matrix product's bits depend on how many rows it has and, at odd sizes, on the number of threads,
because BLAS chooses its kernels by size. So products run on blocks of one fixed number of rows,
with the columns padded to a multiple of ``COLUMN_STEP``: then a row's result depends on that row
alone.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.dtypes import FLOATS, summable, tree_sum, wider
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, starts_of
from sparseconv.core.packing import Packing
from sparseconv.core.rulebook import Rulebook, Taps
from sparseconv.engines.protocol import Epilogue, running_affine

BLOCK_ROWS = 64
COLUMN_STEP = 16
REDUCE_BLOCK_ROWS = 1024


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return None for every floating point dtype on every device."""
    if dtype not in FLOATS and dtype.is_floating_point:
        return f"it has no arithmetic in {dtype}"
    return None


def bounds(coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the smallest and the largest value per column."""
    low, high = (extreme.tolist() for extreme in torch.aminmax(coords, dim=0))
    return tuple(low), tuple(high)


def build_index(coords: Tensor, packing: Packing) -> Index:
    """Return the index: sorted keys, and no order where they come sorted."""
    keys = packing.pack(coords)
    if bool((keys[1:] >= keys[:-1]).all()):
        return Index(keys, None, packing)
    ascending, order = torch.sort(keys, stable=True)
    return Index(ascending, order, packing)


def ascends(keys: Tensor) -> bool:
    """Return whether each key is larger than the one before."""
    return bool((keys[1:] > keys[:-1]).all())


def lookup(index: Index, keys: Tensor) -> Tensor:
    """Return the rows of ``keys``, -1 where absent, by binary search."""
    position = _positions(index, keys)
    if index.order is None or position.numel() == 0:
        return position
    # an absent key's -1 reads the last row's entry, and is put back to -1 at once
    return torch.where(position < 0, position, index.order[position])


def _positions(index: Index, keys: Tensor) -> Tensor:
    if index.keys.numel() == 0:
        return torch.full_like(keys, -1)
    position = torch.searchsorted(index.keys, keys).clamp_(max=index.keys.numel() - 1)
    return position.masked_fill_(index.keys[position] != keys, -1)


def reached_keys(index: Index, geometry: Geometry, packing: Packing) -> Tensor:
    """Return the keys of all sites that some input site reaches through some kernel cell."""
    coords = index.packing.unpack(index.keys)
    reached = []
    for cell in geometry.cells:
        target, whole = _targets(coords, geometry, cell)
        target = target[whole & packing.contains(target)]
        reached.append(torch.unique(packing.pack(target)))
    keys: Tensor = torch.unique(torch.cat(reached))
    return keys


def _targets(coords: Tensor, geometry: Geometry, cell: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return output coordinates ``[N, 1 + D]`` of inputs, and where they are whole numbers."""
    axes = (geometry.stride, geometry.padding, geometry.dilation)
    stride, padding, dilation = (coords.new_tensor(values) for values in axes)
    shift = coords.new_tensor(cell) * dilation - padding
    if geometry.kind is Kind.TRANSPOSED:
        target = coords[:, 1:] * stride + shift
        whole = torch.ones(coords.shape[0], dtype=torch.bool, device=coords.device)
    else:
        moved = coords[:, 1:] - shift
        whole = (moved % stride == 0).all(dim=1)
        target = torch.div(moved, stride, rounding_mode="floor")
    return torch.cat([coords[:, :1], target], dim=1), whole


def build_rulebook(fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
    """Return the pairs, cell by cell: one binary search per coarse site and cell."""
    coords = coarse.packing.unpack(coarse.keys)
    stride, padding, dilation = (
        coords.new_tensor(values)
        for values in (geometry.stride, geometry.padding, geometry.dilation)
    )
    fine_rows, coarse_rows, splits = [], [], [0]
    for cell in geometry.cells:
        source = coords[:, 1:] * stride - padding + coords.new_tensor(cell) * dilation
        source = torch.cat([coords[:, :1], source], dim=1)
        inside = fine.packing.contains(source)
        rows = torch.where(inside, lookup(fine, fine.packing.pack(source)), -1)
        hits = torch.nonzero(rows >= 0)[:, 0]
        fine_rows.append(rows[hits].int())
        coarse_rows.append((hits if coarse.order is None else coarse.order[hits]).int())
        splits.append(splits[-1] + hits.numel())
    return Rulebook(
        torch.cat(fine_rows),
        torch.cat(coarse_rows),
        tuple(splits),
        fine.keys.numel(),
        coarse.keys.numel(),
    )


def _exact(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a product run in the dtypes that it chose, whatever autocast is on around it."""

    @functools.wraps(product)
    def run(features: Tensor, *args: Any) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return product(features, *args)

    return run


@_exact
def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution: gather rows, multiply in blocks, add to the output rows."""
    _, groups, c_in, c_out = weight.shape
    x, w = summable(features), summable(weight)
    w = _padded(w)
    columns = w.shape[-1]
    out = x.new_zeros(rulebook.n_out, groups, c_out)
    for cell, (start, end) in enumerate(zip(rulebook.splits, rulebook.splits[1:], strict=False)):
        if start == end or c_in == 0:
            continue
        rows = _in_blocks(x, rulebook.in_rows[start:end], BLOCK_ROWS)
        blocks = rows.reshape(-1, BLOCK_ROWS, groups, c_in).transpose(1, 2)
        product = _products(blocks, w[cell].expand(blocks.shape[0], groups, c_in, columns))
        product = product.transpose(1, 2)
        product = product.reshape(-1, groups, columns)[: end - start, :, :c_out]
        out.index_add_(0, rulebook.out_rows[start:end], product)
    return out.reshape(rulebook.n_out, groups * c_out).to(features.dtype)


def pack_weight(weight: Tensor) -> Tensor:
    """Return the weight as it is."""
    return weight


def gather_gemm_epilogue(
    features: Tensor, packed: Tensor, rulebook: Rulebook, epilogue: Epilogue
) -> Tensor:
    """Return the convolution and its epilogue, step by step."""
    return epilogue.apply(gather_gemm_scatter(features, packed, rulebook))


def scaled_rows(rows: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows times their factors, and the sum of the rows."""
    return (rows * factor).to(rows.dtype), rows.sum(dim=0)


@_exact
def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: products of blocks of pairs, added in a tree of fixed shape."""
    x, g = summable(features), summable(grad)
    c_in, c_out = x.shape[1] // groups, g.shape[1] // groups
    weight = x.new_zeros(rulebook.num_cells, groups, c_in, c_out)
    for cell, (start, end) in enumerate(zip(rulebook.splits, rulebook.splits[1:], strict=False)):
        if start == end:
            continue
        left = _in_blocks(x, rulebook.in_rows[start:end], REDUCE_BLOCK_ROWS)
        right = _in_blocks(g, rulebook.out_rows[start:end], REDUCE_BLOCK_ROWS)
        left = _padded(left.reshape(-1, REDUCE_BLOCK_ROWS, groups, c_in)).permute(0, 2, 3, 1)
        right = _padded(right.reshape(-1, REDUCE_BLOCK_ROWS, groups, c_out)).transpose(1, 2)
        weight[cell] = tree_sum(_products(left, right))[:, :c_in, :c_out]
    return weight.to(features.dtype)


def column_sum(rows: Tensor) -> Tensor:
    """Return the sum of all rows."""
    return summable(rows).sum(dim=0).to(rows.dtype)


def segment_sum(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the sum of each segment: the n-th rows of all segments are added in one step."""
    lengths = starts.diff()
    out = summable(values).new_zeros(lengths.numel(), values.shape[1])
    for step in range(int(lengths.max()) if lengths.numel() else 0):
        live = torch.nonzero(lengths > step)[:, 0]
        rows = order[starts[live] + step]
        out[live] += summable(values[rows])
    return out.to(values.dtype)


def segment_statistics(values: Tensor, order: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return each segment's sum, and the sum of squares off its mean."""
    x = values[order].to(wider(values.dtype))
    own, lengths = torch.arange(order.numel(), device=order.device), starts.diff()
    sums = segment_sum(x, own, starts)
    means = sums / lengths.clamp(min=1)[:, None].to(x.dtype)
    off = x - means[torch.repeat_interleave(lengths)]
    return sums, segment_sum(off * off, own, starts)


def merge_statistics(
    sums: Tensor, squares: Tensor, counts: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, squares off the mean, and numbers of rows of segments of segments."""
    sizes = counts[:, None].to(sums.dtype)
    total = segment_sum(sums, order, starts)
    number = segment_sum(counts[:, None].double(), order, starts)
    means = total / number.clamp(min=1).to(sums.dtype)
    own = torch.empty_like(sums)
    own[order] = means[torch.repeat_interleave(starts.diff())]
    off = sums / sizes.clamp(min=1) - own
    return total, segment_sum(squares + sizes * off * off, order, starts), number[:, 0].long()


def segment_moment(
    left: Tensor, right: Tensor, centre: Tensor, order: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return each segment's sum of ``right``, and of ``(left - centre) * right``."""
    own = torch.arange(order.numel(), device=order.device)
    values = right[order].to(centre.dtype)
    off = left[order].to(centre.dtype) - centre[torch.repeat_interleave(starts.diff())]
    return segment_sum(values, own, starts), segment_sum(off * values, own, starts)


def normalised_rows(
    rows: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Return the rows, normalised by known statistics."""
    scale, shift = running_affine(mean, variance, weight, bias, eps, wider(rows.dtype))
    return affine_rows(((rows, scale[None]),), shift[None], None)


def affine_rows(
    terms: Sequence[tuple[Tensor, Tensor]], shift: Tensor, segment: Tensor | None
) -> Tensor:
    """Return the sum of the terms' rows times their scales, and the shift."""

    def spread(values: Tensor) -> Tensor:
        return values if segment is None else values[segment]

    total = spread(shift)
    for rows, scale in reversed(terms):
        total = torch.addcmul(total, rows.to(scale.dtype), spread(scale))
    return total.to(terms[0][0].dtype)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return the row of each segment's first largest value, per column; NaN is the largest."""
    lengths = starts.diff()
    columns = torch.arange(values.shape[1], device=values.device)
    best = order[starts[:-1]][:, None].expand(-1, values.shape[1]).clone()
    for step in range(1, int(lengths.max()) if lengths.numel() else 0):
        live = torch.nonzero(lengths > step)[:, 0]
        rows = order[starts[live] + step]
        candidate, held = values[rows], values[best[live], columns]
        larger = (candidate > held) | (candidate.isnan() & ~held.isnan())
        best[live] = torch.where(larger, rows[:, None], best[live])
    return best


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return each window's largest value; the last NaN wins."""
    return window_argmax(features, rulebook)[0]


def window_argmax(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return each window's first largest value, and the cell that holds it; the last NaN wins."""
    shape = (rulebook.n_out, features.shape[1])
    chosen = torch.full(shape, -1, dtype=torch.int32, device=features.device)
    best = features.new_zeros(shape)
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        sources, targets = rulebook.in_rows[start:end], rulebook.out_rows[start:end].long()
        values, held, holder = features[sources], best[targets], chosen[targets]
        better = (holder < 0) | (values > held) | values.isnan()
        best[targets] = torch.where(better, values, held)
        chosen[targets] = torch.where(better, cell, holder)
    return best, chosen


def window_sum(features: Tensor, rulebook: Rulebook, divisor: float) -> Tensor:
    """Return the sum of each window by the divisor, cell by cell."""
    x = summable(features)
    out = x.new_zeros(rulebook.n_out, x.shape[1])
    for start, end in itertools.pairwise(rulebook.splits):
        out.index_add_(0, rulebook.out_rows[start:end], x[rulebook.in_rows[start:end]])
    return (out if divisor == 1 else out / divisor).to(features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    x = summable(values)
    out = x.new_zeros(rulebook.n_in, x.shape[1])
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        rows, windows = rulebook.in_rows[start:end], rulebook.out_rows[start:end]
        out.index_add_(0, rows, torch.where(chosen[windows] == cell, x[windows], 0))
    return out.to(values.dtype)


def window_pick(features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return what each window chose, cell by cell."""
    out = features.new_zeros(chosen.shape)
    for cell, (start, end) in enumerate(itertools.pairwise(rulebook.splits)):
        rows, windows = rulebook.in_rows[start:end], rulebook.out_rows[start:end]
        out.index_add_(0, windows, torch.where(chosen[windows] == cell, features[rows], 0))
    return out


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product: interpolate the rows of a cell, multiply, add up."""
    x, shares, w = _with_absent(features), summable(shares), summable(weight)
    groups, c_out = weight.shape[1], weight.shape[3]
    out = x.new_zeros(shares.shape[3], groups * c_out)
    rows = _rows_of_taps(taps)
    for cell in range(weight.shape[0]):
        column = _interpolated(x, shares[:, cell], rows[:, cell])
        out += gather_gemm_scatter(column, w[cell : cell + 1], _row_by_row(column))
    return out.to(features.dtype)


def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the deformable product, cell by cell."""
    x, s, w = _with_absent(features), summable(shares), summable(weight)
    g, rows = summable(grad), _rows_of_taps(taps)
    d_x, d_shares, d_weight = torch.zeros_like(x), torch.zeros_like(s), torch.zeros_like(w)
    for cell in range(weight.shape[0]):
        column = _interpolated(x, s[:, cell], rows[:, cell])
        pairs = _row_by_row(column)
        d_weight[cell] = gather_gemm_reduce(column, g, pairs, weight.shape[1])[0]
        back = gather_gemm_scatter(g, w[cell : cell + 1].transpose(2, 3), pairs)
        for group, part in enumerate(back.chunk(len(s), dim=1)):
            channels = slice(group * part.shape[1], (group + 1) * part.shape[1])
            near = rows[group, cell]  # [Q, n_out]
            d_shares[group, cell] = (x[near, channels] * part).sum(dim=2)
            spread = (s[group, cell][:, :, None] * part).flatten(0, 1)
            order = torch.argsort(near.flatten(), stable=True)
            counts = torch.bincount(near.flatten(), minlength=len(x))
            starts = starts_of(counts)
            d_x[:, channels] += segment_sum(spread, order, starts)
    d_shares = d_shares.masked_fill(taps.rows < 0, 0)
    return d_x[:-1].to(features.dtype), d_shares.to(shares.dtype), d_weight.to(weight.dtype)


def _with_absent(features: Tensor) -> Tensor:
    """Return the features with a row of zeros behind them, which absent taps read."""
    return torch.nn.functional.pad(summable(features), (0, 0, 0, 1))


def _rows_of_taps(taps: Taps) -> Tensor:
    """Return the rows that taps read, int64 ``[H, K, Q, n_out]``; absent ones the last of all."""
    return torch.where(taps.rows < 0, taps.n_in, taps.rows).long()


def _interpolated(x: Tensor, shares: Tensor, rows: Tensor) -> Tensor:
    """Return what a kernel cell reads, ``[n_out, C]``, from ``shares`` ``[H, Q, n_out]``.

    A share may be infinite or NaN where nothing is read: there it counts 0.
    """
    shares = torch.where(rows == x.shape[0] - 1, 0, shares)
    parts = []
    for group, part in enumerate(x.chunk(len(shares), dim=1)):
        taps = zip(shares[group], rows[group], strict=True)
        parts.append(sum(share[:, None] * part[row] for share, row in taps))
    return torch.cat(parts, dim=1)


def _row_by_row(x: Tensor) -> Rulebook:
    """Return the rulebook of one cell that joins each row of ``x`` with itself."""
    rows = torch.arange(x.shape[0], dtype=torch.int32, device=x.device)
    return Rulebook(rows, rows, (0, x.shape[0]), x.shape[0], x.shape[0])


def _in_blocks(x: Tensor, rows: Tensor, block: int) -> Tensor:
    """Return ``x[rows]`` with zero rows behind it, up to a multiple of ``block``."""
    padded = x.new_zeros(-(-rows.numel() // block) * block, x.shape[1])
    torch.index_select(x, 0, rows, out=padded[: rows.numel()])
    return padded


def _padded(x: Tensor) -> Tensor:
    """Return ``x`` with zeros behind its last axis, up to a multiple of ``COLUMN_STEP``."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % COLUMN_STEP))


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix products of ``[B, G, M, K]`` and ``[B, G, K, N]``.

    Where there are fewer matrices than threads BLAS cuts the matrices up, and rounds in another
    way. So there are never fewer: the rest are zeros.
    """
    given, threads = left.shape[0] * left.shape[1], torch.get_num_threads()
    missing = threads - given if left.device.type == "cpu" else 0
    matrices = [x.reshape(given, *x.shape[2:]) for x in (left, right)]
    if missing > 0:
        matrices = [torch.nn.functional.pad(x, (0, 0, 0, 0, 0, missing)) for x in matrices]
    product = torch.bmm(*matrices)[:given]
    return product.reshape(*left.shape[:2], *product.shape[1:])
