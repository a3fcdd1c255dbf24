"""Pairs in blocks of one size, each of one kernel cell: what products on devices work on.

Every matrix product then has one shape, whatever the number of pairs of a cell, so that one
batched product serves all cells, and a row's bits depend on nothing but its own values. Between the
last pair of a cell and the end of its block that pair is read again, and never added up.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.core.index import starts_of, to_device
from sparseconv.core.rulebook import Rulebook

SCATTER_PAIRS = 128  # pairs of a block where products are added to output rows
REDUCE_PAIRS = 512  # pairs of a block where outer products are added to a weight


class Blocks(NamedTuple):
    """Runs of pairs, each in whole blocks of ``size`` rows.

    Attributes:
        size: rows of a block.
        pairs: int64 ``[B * size]``, the pair that each row stands for; behind the last pair of a
            run, that pair again.
        firsts: where the blocks of each run begin, and the last one ends; of the host.
        shifts: what leads from a pair's number to its row, for each run; of the host.
    """

    size: int
    pairs: Tensor
    firsts: list[int]
    shifts: list[int]


def in_blocks(splits: Sequence[int], size: int, device: torch.device) -> Blocks:
    """Return how runs of pairs, which begin at ``splits``, go into blocks of ``size``."""
    counts = torch.tensor(splits).diff()
    blocks = (counts + size - 1) // size
    firsts = starts_of(blocks)
    shifts = firsts[:-1] * size - torch.tensor(splits[:-1])
    begin = torch.arange(int(firsts[-1])) * size - shifts.repeat_interleave(blocks)
    last = torch.tensor(splits[1:]).repeat_interleave(blocks) - 1
    table = torch.stack([begin, last]).to(device, non_blocking=True)[:, :, None]
    pairs = (table[0] + torch.arange(size, device=device)).minimum(table[1]).flatten()
    return Blocks(size, pairs, firsts.tolist(), shifts.tolist())


class Part(NamedTuple):
    """The pairs of a range of output rows, in blocks, and how their products are added up.

    Attributes:
        rows: int32 ``[B * SCATTER_PAIRS]``, the input rows that are read.
        cells: int64 ``[B]``, the kernel cell of each block.
        ends: int32 ``[K]``, where the rows of each kernel cell end.
        order: int32 ``[P]``, the blocks' rows by output row, then by kernel cell.
        starts: int32 ``[n_out + 1]``, where those of each output row begin.
    """

    rows: Tensor
    cells: Tensor
    ends: Tensor
    order: Tensor
    starts: Tensor


class Parts(NamedTuple):
    """The pairs of all output rows.

    Attributes:
        rows: output rows of a part; the last one may have fewer.
        parts: the pairs of each range of rows.
    """

    rows: int
    parts: list[Part]


def scatter_parts(rulebook: Rulebook, rows: int) -> Parts:
    """Return the pairs of each ``rows`` output rows."""
    device, kernel = rulebook.in_rows.device, rulebook.num_cells
    in_rows, out_rows, splits = rulebook.in_rows, rulebook.out_rows, list(rulebook.splits)
    parts = max(-(-rulebook.n_out // rows), 1)
    if parts > 1:
        in_rows, out_rows, splits = _by_part(rulebook, rows, parts)
    blocks = in_blocks(splits, SCATTER_PAIRS, device)
    spread = in_rows[blocks.pairs]
    counts = [b - a for a, b in itertools.pairwise(splits)]
    lengths, shifts = to_device([counts, blocks.shifts], device)
    ascending, pairs = torch.sort(out_rows, stable=True)
    order = pairs + torch.repeat_interleave(shifts, lengths, output_size=splits[-1])[pairs]
    sizes = torch.tensor(blocks.firsts).diff()
    cells = (torch.arange(parts * kernel) % kernel).repeat_interleave(sizes)
    cells = cells.to(device, non_blocking=True)
    ends = to_device([first * SCATTER_PAIRS for first in blocks.firsts[1:]], device).int()
    targets = torch.arange(rulebook.n_out + 1, dtype=out_rows.dtype, device=device)
    starts = torch.searchsorted(ascending, targets, out_int32=True)
    found = []
    for part in range(parts):
        runs = slice(part * kernel, (part + 1) * kernel)
        first, last = blocks.firsts[runs.start], blocks.firsts[runs.stop]
        begin, end = splits[runs.start], splits[runs.stop]
        found.append(
            Part(
                spread[first * SCATTER_PAIRS : last * SCATTER_PAIRS],
                cells[first:last],
                ends[runs] - first * SCATTER_PAIRS,
                (order[begin:end] - first * SCATTER_PAIRS).int(),
                starts[part * rows : (part + 1) * rows + 1] - begin,
            )
        )
    return Parts(rows, found)


def _by_part(rulebook: Rulebook, rows: int, parts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Return the pairs by range of output rows, then by cell; and where each run begins."""
    kernel, device = rulebook.num_cells, rulebook.in_rows.device
    counts = to_device([b - a for a, b in itertools.pairwise(rulebook.splits)], device)
    cells = torch.repeat_interleave(counts, output_size=rulebook.num_pairs)
    runs = torch.div(rulebook.out_rows, rows, rounding_mode="floor").long() * kernel + cells
    ascending, order = torch.sort(runs, stable=True)
    numbers = torch.arange(parts * kernel + 1, device=device)
    splits = torch.searchsorted(ascending, numbers).tolist()
    return rulebook.in_rows[order], rulebook.out_rows[order], splits


class Outer(NamedTuple):
    """Pairs in blocks, for products of the rows on both sides.

    Attributes:
        in_rows, out_rows: int32 ``[B * REDUCE_PAIRS]``; behind a cell's last pair, that pair again.
        empty: int64, which of them stand for no pair, ascending; on the device and on the host.
        numbers: int32 ``[B]``, ascending: the blocks themselves.
        firsts: where the blocks of each kernel cell begin, and the last one ends; of the host.
        starts: the same on the device, int32 ``[K + 1]``.
    """

    in_rows: Tensor
    out_rows: Tensor
    empty: tuple[Tensor, Tensor]
    numbers: Tensor
    firsts: list[int]
    starts: Tensor

    def empty_between(self, first: int, last: int) -> Tensor:
        """Return which rows from ``first`` to ``last`` stand for no pair, counted from there."""
        on_device, on_host = self.empty
        begin, end = torch.searchsorted(on_host, torch.tensor([first, last])).tolist()
        return on_device[begin:end] - first if first else on_device[begin:end]


def outer_blocks(rulebook: Rulebook) -> Outer:
    """Return the pairs in blocks for the weight gradient."""
    device, size = rulebook.in_rows.device, REDUCE_PAIRS
    blocks = in_blocks(rulebook.splits, size, device)
    counts = (b - a for a, b in itertools.pairwise(rulebook.splits))
    ends = zip(counts, itertools.pairwise(blocks.firsts), strict=True)
    empty = [torch.arange(first * size + n, last * size) for n, (first, last) in ends]
    on_host = torch.cat(empty)
    return Outer(
        rulebook.in_rows[blocks.pairs],
        rulebook.out_rows[blocks.pairs],
        (on_host.to(device, non_blocking=True), on_host),
        torch.arange(blocks.firsts[-1], dtype=torch.int32, device=device),
        blocks.firsts,
        to_device(blocks.firsts, device).int(),
    )
