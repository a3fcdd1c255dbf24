"""Layouts of the pairs with room to spare: other sites fill the same memory.

A captured graph of a device reads from fixed addresses, and makes results of fixed shapes. So what
its operators read of a map lies in memory of one size, of which each map fills the beginning. What
lies behind it stays what it was: nothing reads it but rows and windows behind the last ones, whose
results nobody takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch.blocks import SCATTER_PAIRS, Part, Parts
from sparseconv.engines.torch.windows import Windows
from sparseconv.errors import SparseConvError

DENSITY_HEADROOM = 1.125  # times the pairs of an output row, of which another scan may have more


class Uncapturable(SparseConvError):
    """What a captured graph cannot hold, or has no room for; the message is its reason."""


class RoomyRulebook(Rulebook):
    """What stands for the rulebooks of any sites: their layouts, in memory of one size.

    Args:
        first: the rulebook whose layouts show how much room they need.
        n_in, n_out: rows that there is room for, more than those of ``first``.
    """

    _kernel: int
    _pairs: int
    _now: Rulebook
    _kept: dict[str, tuple[Any, Callable[[Rulebook], Any]]]

    def __init__(self, first: Rulebook, n_in: int, n_out: int) -> None:
        state = {"n_in": n_in, "n_out": n_out, "_now": first}
        self.__dict__.update(state, _kernel=first.num_cells, _kept={})
        self.__dict__["_pairs"] = self._room_for(first.num_pairs, first.n_out, n_out)

    @property
    def num_cells(self) -> int:
        """Number of kernel cells K."""
        return self._kernel

    @property
    def num_pairs(self) -> int:
        """Number of pairs that there is room for."""
        return self._pairs

    def _room_for(self, pairs: int, of_rows: int, rows: int) -> int:
        """Return how many pairs ``rows`` output rows may have, where ``of_rows`` have ``pairs``."""
        expected = math.ceil(DENSITY_HEADROOM * pairs / max(of_rows, 1) * rows)
        return min(max(expected, 1), self._kernel * rows)

    def __getattr__(self, name: str) -> Any:
        """Refuse the pairs themselves, whose number differs from map to map."""
        raise Uncapturable(f"a layer reads {name} of a map, whose number differs from scan to scan")

    def derived(self, name: str, build: Callable[[Rulebook], Any]) -> Any:
        """Return the layout that ``build`` makes of the pairs, in memory that stays."""
        if name not in self._kept:
            layout = build(self._now)
            kept = self._allocated(layout)
            _fill(kept, layout)
            self._kept[name] = kept, build
        return self._kept[name][0]

    def fill(self, rulebook: Rulebook) -> None:
        """Write the layouts of another rulebook over those that are there.

        Raises:
            Uncapturable: it has more pairs than there is room for.
        """
        self.__dict__["_now"] = rulebook
        for kept, build in self._kept.values():
            _fill(kept, build(rulebook))

    def _allocated(self, layout: Any) -> Any:
        """Return memory for layouts of this kind."""
        if isinstance(layout, Windows):
            return self._windows(layout)
        if isinstance(layout, Parts):
            rows = layout.rows
            densest = max(layout.parts, key=lambda part: part.order.numel() / part.starts.numel())
            counts = [min(rows, self.n_out - first) for first in range(0, self.n_out, rows)]
            return Parts(rows, [self._part(densest, count) for count in counts])
        raise Uncapturable(f"a layer reads a map as {type(layout).__name__}")

    def _part(self, like: Part, rows: int) -> Part:
        pairs = self._room_for(like.order.numel(), like.starts.numel() - 1, rows)
        blocks = math.ceil(pairs / SCATTER_PAIRS) + self._kernel
        sizes = Sizes(blocks * SCATTER_PAIRS, blocks, self._kernel, pairs, rows + 1)
        return Part(*map(_zeros, like, sizes))

    def _windows(self, like: Windows) -> Windows:
        sizes = self._pairs, self._pairs, self.n_out + 1, self.n_out
        return Windows(*map(_zeros, like, sizes))


class Sizes(NamedTuple):
    """Entries of a :class:`Part`, field by field."""

    rows: int
    cells: int
    ends: int
    order: int
    starts: int


def _zeros(like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size, *like.shape[1:])


def _fill(kept: Any, layout: Any) -> None:
    """Write a layout into memory at least as large."""
    if isinstance(kept, Parts):
        for part, new in zip(kept.parts, layout.parts, strict=False):
            _fill(part, new)
        for part in kept.parts[len(layout.parts) :]:
            part.starts.zero_()  # no row has a product
        return
    names = kept._fields
    if any(len(new) > len(old) for new, old in zip(layout, kept, strict=True)):
        raise Uncapturable("a map has more pairs than there is room for")
    for name, old, new in zip(names, kept, layout, strict=True):
        old[: len(new)].copy_(new)
        if name == "starts":
            old[len(new) :].copy_(new[-1:].expand(len(old) - len(new)))
