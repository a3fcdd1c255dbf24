"""The rows of each sample of a batch, in the order in which sums over them are taken.

A sample's rows are added in ascending order of their sites, in blocks of ``BLOCK`` and then blocks
of blocks. Blocks begin with the sample, so a sum has the same bits whatever the number of threads,
the order of the rows, and the samples beside it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparseconv.core.index import starts_of, to_device
from sparseconv.core.remember import remembered

BLOCK = 64  # rows, or blocks of the level before


@dataclass(frozen=True, eq=False)
class Samples:
    """The rows of each sample, or of the whole batch as one.

    Attributes:
        order: int64 ``[N]``, the rows in ascending order of their sites; None where they are.
        sample_of_row: int64 ``[N]``, or None where all rows are one sample.
        numbers: of rows of each sample. The host knows them, so that no layer waits for a device.
        device: where the rows live.
    """

    order: Tensor | None
    sample_of_row: Tensor | None
    numbers: tuple[int, ...]
    device: torch.device

    @cached_property
    def num_rows(self) -> int:
        """Number of rows N."""
        return sum(self.numbers)

    @cached_property
    @remembered
    def counts(self) -> Tensor:
        """The number of rows of each sample, int64 ``[S]``."""
        return to_device(self.numbers, self.device)

    @cached_property
    @remembered
    def full(self) -> Tensor:
        """The samples that have a row, int64, ascending."""
        return to_device([sample for sample, n in enumerate(self.numbers) if n], self.device)

    @cached_property
    @remembered
    def levels(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """One ``(order, starts)`` per level of blocks.

        Block ``b`` holds the rows ``order[starts[b]:starts[b + 1]]`` of the level before; the
        blocks of the last level are the samples.
        """
        counts = torch.tensor(self.numbers, dtype=torch.int64, device="cpu")
        (order, _), levels = self.ascending, []
        while counts.numel() and int(counts.max()) > BLOCK:
            blocks = (counts + BLOCK - 1) // BLOCK
            first = torch.repeat_interleave(starts_of(counts)[:-1], blocks)
            number = torch.arange(first.numel(), device="cpu")
            number = number - torch.repeat_interleave(starts_of(blocks)[:-1], blocks)
            starts = torch.cat([first + number * BLOCK, counts.sum()[None]])
            levels.append((order, starts.to(self.device, non_blocking=True)))
            order, counts = torch.arange(first.numel(), device=self.device), blocks
        return (*levels, (order, starts_of(counts).to(self.device, non_blocking=True)))

    @cached_property
    @remembered
    def some(self) -> Tensor:
        """The number of rows of each sample, int64 ``[S, 1]``; 1 where there is none."""
        return self.counts.clamp(min=1)[:, None]

    @cached_property
    @remembered
    def ascending(self) -> tuple[Tensor, Tensor]:
        """The rows in ascending order of their sites, int64 ``[N]``, and where samples begin."""
        order = self.order
        if order is None:
            order = torch.arange(self.num_rows, device=self.device)
        return order, to_device([0, *itertools.accumulate(self.numbers)], self.device)

    @cached_property
    @remembered
    def padded(self) -> tuple[int, Tensor]:
        """The longest sample L, and each row's place among ``[B * L]``, int64 ``[N]``."""
        length = max(self.numbers, default=0)
        order, starts = self.ascending
        sample = torch.repeat_interleave(self.counts, output_size=self.num_rows)
        place = torch.arange(self.num_rows, device=sample.device) - starts[sample]
        places = torch.empty_like(order)
        places[order] = sample * length + place
        return length, places

    @cached_property
    @remembered
    def first_counts(self) -> Tensor:
        """How many rows each block of the first level holds, int64."""
        return self.levels[0][1].diff()

    @cached_property
    @remembered
    def learnt_from(self) -> tuple[Tensor | None, Tensor] | None:
        """The samples that have a variance, and ``n / (n - 1)`` of each, float64 ``[S', 1]``.

        The samples, int64, are None where they are all, and the whole is None where there are none.
        """
        enough = [sample for sample, n in enumerate(self.numbers) if n > 1]
        if not enough:
            return None
        sites = to_device([[self.numbers[sample]] for sample in enough], self.device).double()
        everyone = len(enough) == len(self.numbers)
        return (None if everyone else to_device(enough, self.device)), sites / (sites - 1)
