"""The windows of the plain engine: all kernel cells at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from sparseconv.core.dtypes import summable
from sparseconv.core.index import MAX_COPY, to_device
from sparseconv.core.rulebook import Rulebook


class Windows(NamedTuple):
    """The pairs by output row, and the input row in each cell of each window.

    Attributes:
        rows, cells: int32 ``[P]``, input rows and kernel cells by output row, then by cell.
        starts: int32 ``[n_out + 1]``, where those of each output row begin.
        table: int32 ``[n_out, K]``, 1 + the input row in each cell, 0 where there is none.
    """

    rows: Tensor
    cells: Tensor
    starts: Tensor
    table: Tensor


def windows_of(rulebook: Rulebook) -> Windows:
    """Return the windows of a rulebook, made once."""
    windows: Windows = rulebook.derived("torch: windows", _windows)
    return windows


def _windows(rulebook: Rulebook) -> Windows:
    device, splits = rulebook.in_rows.device, rulebook.splits
    counts = to_device([b - a for a, b in itertools.pairwise(splits)], device)
    cells = torch.repeat_interleave(counts, output_size=rulebook.num_pairs)
    ascending, order = torch.sort(rulebook.out_rows, stable=True)
    numbers = torch.arange(rulebook.n_out + 1, dtype=ascending.dtype, device=device)
    starts = torch.searchsorted(ascending, numbers, out_int32=True)
    table = torch.zeros(rulebook.n_out, rulebook.num_cells, dtype=torch.int32, device=device)
    table.index_put_((rulebook.out_rows.long(), cells), rulebook.in_rows.int() + 1)
    return Windows(rulebook.in_rows[order], cells[order].int(), starts, table)


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return each window's largest value; the last NaN wins."""
    return window_argmax(features, rulebook)[0]


def window_argmax(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return each window's first largest value, and the cell that holds it; the last NaN wins."""
    if features.device.type == "cpu":
        return _argmax_by_cell(features, rulebook)
    table = windows_of(rulebook).table
    kernel, columns = table.shape[1], features.shape[1]
    x = pad(features, (0, 0, 1, 0), value=-torch.inf)
    cells = torch.arange(kernel, dtype=torch.int32, device=table.device)[:, None]
    chosen = torch.empty(table.shape[0], columns, dtype=torch.int32, device=table.device)
    for rows in _ranges(table.shape[0], kernel * columns * features.element_size(), MAX_COPY):
        near = table[rows]
        values = x.index_select(0, near.flatten()).unflatten(0, near.shape)
        largest = (values == values.amax(1, keepdim=True)).logical_and_((near > 0)[:, :, None])
        score = torch.where(largest, kernel - 1 - cells, -1)
        score = torch.where(values.isnan(), kernel + cells, score).amax(1)
        found = torch.where(score < kernel, kernel - 1 - score, score - kernel)
        chosen[rows] = found.masked_fill_(score < 0, -1)
    return window_pick(features, chosen, rulebook), chosen


def _argmax_by_cell(features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
    """Return the same, cell by cell: twice as fast on a CPU, which passes over less memory so."""
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
    """Return the sum of each window by the divisor, in the order of the cells."""
    x, windows = summable(features), windows_of(rulebook)
    if 0 in (windows.rows.numel(), x.shape[1]):
        return features.new_zeros(rulebook.n_out, x.shape[1])
    out = embedding_bag(windows.rows, x, windows.starts, mode="sum", include_last_offset=True)
    return (out if divisor == 1 else out / divisor).to(features.dtype)


def window_scatter(values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the input rows that were chosen, with what the windows that chose them hand back."""
    x, windows = summable(values), windows_of(rulebook.transposed)
    if 0 in (windows.rows.numel(), x.shape[1]):
        return values.new_zeros(rulebook.n_in, x.shape[1])
    numbers = torch.arange(windows.rows.numel(), dtype=torch.int32, device=x.device)
    parts = []
    for columns in _ranges(x.shape[1], numbers.numel() * x.element_size(), MAX_COPY):
        mine = chosen[:, columns].index_select(0, windows.rows) == windows.cells[:, None]
        given = torch.where(mine, x[:, columns].index_select(0, windows.rows), 0)
        parts.append(
            embedding_bag(numbers, given, windows.starts, mode="sum", include_last_offset=True)
        )
    return torch.cat(parts, dim=1).to(values.dtype)


def window_pick(features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
    """Return what each window chose."""
    table = windows_of(rulebook).table
    cells = chosen.clamp(0, table.shape[1] - 1).long()
    return pad(features, (0, 0, 1, 0)).gather(0, table.gather(1, cells).long())


def _ranges(count: int, size: int, most: int) -> Iterator[slice]:
    """Yield ranges of ``count`` things of so many bytes each, of at most ``most`` bytes."""
    step = max(most // max(size, 1), 1)
    return (slice(first, first + step) for first in range(0, count, step))
