"""What nothing can be faster than, or is not: products, copies and sorts of the same size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.rulebook import Rulebook

FORWARD, TRAINING = ("forward",), ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True)
class Work:
    """The matrix products of one convolution.

    Attributes:
        counts: pairs of each kernel cell.
        c_in, c_out: channels of one group.
        groups: number of groups.
        first: whether its input is the net's, which needs no gradient.
    """

    counts: tuple[int, ...]
    c_in: int
    c_out: int
    groups: int = 1
    first: bool = False

    @classmethod
    def of(
        cls, rulebook: Rulebook, c_in: int, c_out: int, groups: int = 1, first: bool = False
    ) -> Work:
        """Return the work of a layer of so many channels in all on ``rulebook``."""
        counts = tuple(np.diff(rulebook.splits).tolist())
        return cls(counts, c_in // groups, c_out // groups, groups, first)

    @property
    def pairs(self) -> int:
        """Pairs of all kernel cells."""
        return sum(self.counts)

    @property
    def gflop(self) -> float:
        """Multiplications and additions of the forward pass, in billions."""
        return 2e-9 * self.pairs * self.c_in * self.c_out * self.groups

    def gflop_of(self, passes: Sequence[str]) -> float:
        """Return the same for several passes."""
        return self.gflop * len([name for name in passes if self._needs(name)])

    def operands(self, left: Tensor, right: Tensor, passes: Sequence[str]) -> list[_Operands]:
        """Return left, right and result of every product.

        Args:
            left, right: memory of the longest operands; all cells and layers take turns in it, as
                if what they need were always in the cache.
            passes: of ``TRAINING``.
        """
        weight, weight_grad = torch.randn(self.c_in, self.c_out), torch.empty(self.c_in, self.c_out)
        found = []
        for count in self.counts:
            rows = left[: count * self.c_in].view(count, self.c_in)
            grads = right[: count * self.c_out].view(count, self.c_out)
            products = {
                "forward": (rows, weight, grads),
                "input gradient": (grads, weight.t(), rows),
                "weight gradient": (rows.t(), grads, weight_grad),
            }
            found += [products[name] for name in passes if self._needs(name)] * self.groups
        return found

    def _needs(self, name: str) -> bool:
        return not (self.first and name == "input gradient")


_Operands = tuple[Tensor, Tensor, Tensor]


def products(works: Sequence[Work], passes: Sequence[str] = FORWARD) -> Callable[[], None]:
    """Return the matrix products of convolutions alone, per kernel cell, on contiguous operands."""
    longest = [
        max((max(work.counts, default=0) * channels for work, channels in sides), default=0)
        for sides in ([(w, w.c_in) for w in works], [(w, w.c_out) for w in works])
    ]
    left, right = torch.randn(longest[0]) * 1e-3, torch.randn(longest[1]) * 1e-3
    operands = [entry for work in works for entry in work.operands(left, right, passes)]

    def run() -> None:
        for a, b, out in operands:
            torch.mm(a, b, out=out)

    return run


def copy(size: float, given: Tensor | None = None) -> Callable[[], object]:
    """Return a copy that reads and writes ``size`` bytes in all, into memory that exists.

    It reads the layer's own input ``given`` where there is one, over again if that is shorter: what
    the layer finds in the cache, or has pushed out of it, the copy does too.
    """
    count = int(size) // 8
    source = torch.ones(count) if given is None else given.detach().flatten()
    target = torch.empty(count)
    parts = [(part, source[: len(part)]) for part in target.split(max(len(source), 1))]

    def run() -> None:
        for part, own in parts:
            part.copy_(own)

    return run


def sort_and_write(keys: Tensor, rulebook: Rulebook) -> Callable[[], object]:
    """Return one sort of the packed keys and one writing of the rulebook's bytes."""
    values = keys.numpy()
    pairs = np.empty((2, rulebook.num_pairs), np.int32)

    def run() -> None:
        np.argsort(values)
        pairs.fill(1)

    return run
