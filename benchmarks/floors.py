"""What nothing can be faster than, or is not: products, copies and sorts of the same size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sparseconv.rulebook import Rulebook


def products(rulebook: Rulebook, c_in: int, c_out: int, groups: int = 1) -> Callable[[], None]:
    """Return the convolution's matrix products alone, per kernel cell, on contiguous operands."""
    c_in, c_out = c_in // groups, c_out // groups
    longest = max(np.diff(rulebook.splits), default=0)
    left, right = torch.randn(longest, c_in), torch.randn(c_in, c_out)
    out = torch.empty(longest, c_out)
    counts = np.diff(rulebook.splits).tolist()

    def run() -> None:
        for count in counts:
            for _ in range(groups):
                torch.mm(left[:count], right, out=out[:count])

    return run


def copy(size: float) -> Callable[[], object]:
    """Return a copy that reads and writes ``size`` bytes in all."""
    source = torch.ones(int(size) // 8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def sort_and_write(keys: torch.Tensor, rulebook: Rulebook) -> Callable[[], object]:
    """Return one sort of the packed keys and one writing of the rulebook's bytes."""
    values = keys.numpy()
    pairs = np.empty((2, rulebook.num_pairs), np.int32)

    def run() -> None:
        np.argsort(values)
        pairs.fill(1)

    return run
