"""Rulebook and taps: which input row meets which output row at which kernel cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.remember import remembered


@dataclass(frozen=True, eq=False)
class Rulebook:
    """The pairs (input row, output row) of every kernel cell.

    Pairs ``splits[k]`` to ``splits[k + 1]`` belong to kernel cell ``k``. Within a cell an output
    row occurs at most once, and so does an input row: that is why no product over the pairs of a
    cell ever needs an atomic addition, in either direction.

    Attributes:
        in_rows, out_rows: int32 ``[P]`` rows of the features read and written.
        splits: ``K + 1`` offsets into the pairs.
        n_in, n_out: number of input and output rows.
        layouts: what an engine derived from the pairs, under the engine's own names.
        transposed_layouts: the same for the rulebook with its pairs swapped.
    """

    in_rows: Tensor
    out_rows: Tensor
    splits: tuple[int, ...]
    n_in: int
    n_out: int
    layouts: dict[str, Any] = field(default_factory=dict, repr=False)
    transposed_layouts: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def num_cells(self) -> int:
        """Number of kernel cells K."""
        return len(self.splits) - 1

    @property
    def num_pairs(self) -> int:
        """Number of pairs P: a convolution's multiply-adds are ``P * C_in * C_out``."""
        return self.splits[-1]

    @property
    def pairs_of_output(self) -> Tensor:
        """Number of pairs of each output row, int64 ``[n_out]``."""
        return torch.bincount(self.out_rows, minlength=self.n_out)

    def derived(self, name: str, build: Callable[[Rulebook], Any]) -> Any:
        """Return ``build(rulebook)``, built once and kept under ``name``."""
        layout = self.layouts.get(name)
        if layout is None:
            layout = self.layouts.setdefault(name, remembered(build)(self))
        return layout

    def copied(self, copy: Callable[[Tensor], Tensor]) -> Rulebook:
        """Return the same pairs in other memory; layouts are derived there anew."""
        in_rows, out_rows = copy(self.in_rows), copy(self.out_rows)
        return Rulebook(in_rows, out_rows, self.splits, self.n_in, self.n_out)

    @property
    def transposed(self) -> Rulebook:
        """The rulebook of the adjoint: every pair swapped; derived layouts are shared."""
        return Rulebook(
            self.out_rows,
            self.in_rows,
            self.splits,
            self.n_out,
            self.n_in,
            self.transposed_layouts,
            self.layouts,
        )


@dataclass(frozen=True, eq=False)
class Taps:
    """The input rows that the sample positions of a deformable kernel lie between.

    Each of H offset groups moves each kernel cell of each output row on its own; Q = 2^D input
    sites surround a position.

    Attributes:
        rows: int32 ``[H, K, Q, n_out]``, negative where the site is not there.
        splits: B + 1 offsets into the output rows: a sample's rows read its own inputs alone.
        n_in: number of input rows.
    """

    rows: Tensor
    splits: tuple[int, ...]
    n_in: int
