"""Index: the keys of a set of sites; Groups: rows that share a site; where runs of rows begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.core.packing import Packing


@dataclass(frozen=True, eq=False)
class Index:
    """The sites of a set in ascending key order, and the rows that they came from.

    Attributes:
        keys: int64 ``[N]``, ascending.
        order: int64 ``[N]``, the row of each key; None where row ``i`` holds key ``i``.
        packing: how the keys unpack to coordinates.
        tables: what was derived from the keys, under names of those who derived it.
    """

    keys: Tensor
    order: Tensor | None
    packing: Packing
    tables: dict[str, Any] = field(default_factory=dict, repr=False)


class Groups(NamedTuple):
    """Rows that share a site, side by side.

    Attributes:
        order: int64 ``[N]``, the rows in ascending order of their sites; ties keep row order.
        starts: int64 ``[S + 1]``, where the rows of each site begin in ``order``.
        site_of_row: int64 ``[N]``, the site that each row falls on.
    """

    order: Tensor
    starts: Tensor
    site_of_row: Tensor


def starts_of(counts: Tensor) -> Tensor:
    """Return where runs of the lengths ``counts`` ``[S]`` begin, and the end, ``[S + 1]``."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
