"""Packed keys, one int64 a site, ascending as (batch, *spatial) is; rows that share a site."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError

# A user's bounding box must hold fewer cells than this; what layers derive from it may grow to
# MAX_DERIVED_CELLS, so that a key always fits a signed 64-bit integer.
MAX_CELLS = 2**62
MAX_DERIVED_CELLS = 2**63 - 1

# Number of keys that stay unused behind every spatial axis, where 64 bits leave room for them. A
# cell up to so many cells outside the box then shares its key with no other cell, so one addition
# gives the key of a neighbour, and nobody looks at coordinates.
GUARD = 2


KEY_BYTES = 8
MAX_COPY = 2**29  # bytes: no copy that a map or a product makes on a device is larger


@dataclass(frozen=True)
class Packing:
    """A box of integer coordinates and the mixed-radix key of every cell in it.

    ``key = ((b - lower[0]) * radix[1] + (i - lower[1])) * radix[2] + ...``: keys are ordered as
    the coordinates are, lexicographically, and no two cells of the box share one, nor do cells that
    lie up to ``guard`` outside its spatial axes.

    Attributes:
        lower: smallest coordinate per column, batch first, length 1 + D.
        extent: number of cells per column, each at least 1.
        guard: by how much the spatial entries of ``radix`` exceed ``extent``.
    """

    lower: tuple[int, ...]
    extent: tuple[int, ...]
    guard: int = 0

    @classmethod
    def around(
        cls, lower: tuple[int, ...], upper: tuple[int, ...], limit: int = MAX_DERIVED_CELLS
    ) -> Packing:
        """Return the packing of the box from ``lower`` to ``upper``, both inside.

        Raises:
            SparseConvValueError: the box holds ``limit`` cells or more.
        """
        extent = tuple(max(high - low + 1, 1) for low, high in zip(lower, upper, strict=True))
        cells = math.prod(extent)
        if cells >= limit:
            raise SparseConvValueError(
                f"coords: the bounding box {extent} (batch first) holds {cells:.3g} cells; "
                f"coordinates can be packed into 64-bit keys for fewer than {limit:.3g}"
            )
        return cls(lower, extent).guarded(GUARD) or cls(lower, extent)

    @classmethod
    def dense(cls, grid: tuple[int, ...]) -> Packing:
        """Return the packing whose keys number the cells of a dense grid ``(B, *spatial)``."""
        return cls((0,) * len(grid), grid)

    def guarded(self, guard: int) -> Packing | None:
        """Return the box with a guard of at least ``guard`` cells, None where keys overflow."""
        if guard <= self.guard:
            return self
        wider = Packing(self.lower, self.extent, guard)
        return wider if math.prod(wider.radix) < MAX_DERIVED_CELLS else None

    @functools.cached_property
    def radix(self) -> tuple[int, ...]:
        """Keys per column: the extent, and the guard on the spatial ones."""
        batch, *spatial = self.extent
        return (batch, *(size + self.guard for size in spatial))

    @functools.cached_property
    def weights(self) -> tuple[int, ...]:
        """What one step along each column adds to the key."""
        return tuple(math.prod(self.radix[column + 1 :]) for column in range(len(self.radix)))

    @property
    def upper(self) -> tuple[int, ...]:
        """Largest coordinate per column."""
        return tuple(low + size - 1 for low, size in zip(self.lower, self.extent, strict=True))

    def pack(self, coords: Tensor) -> Tensor:
        """Return the int64 keys ``[N]`` of ``coords`` ``[N, 1 + D]``, which lie in the box."""
        keys = coords[:, 0].long() - self.lower[0]
        for axis in range(1, len(self.lower)):
            steps = coords[:, axis].long() - self.lower[axis]
            keys = torch.add(steps, keys, alpha=self.radix[axis])
        return keys

    def unpack(self, keys: Tensor) -> Tensor:
        """Return the int64 coordinates ``[N, 1 + D]`` of ``keys`` ``[N]``."""
        columns = []
        for axis in reversed(range(1, len(self.lower))):
            columns.append(keys % self.radix[axis] + self.lower[axis])
            keys = keys // self.radix[axis]
        columns.append(keys + self.lower[0])
        return torch.stack(columns[::-1], dim=1)

    def contains(self, coords: Tensor) -> Tensor:
        """Return a bool mask ``[N]``: which rows of ``coords`` ``[N, 1 + D]`` lie in the box."""
        inside = torch.ones(coords.shape[0], dtype=torch.bool, device=coords.device)
        for axis, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            inside &= (coords[:, axis] >= low) & (coords[:, axis] <= high)
        return inside


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


def to_device(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Return integers of the host as an int64 tensor; the host does not wait for the copy."""
    return torch.tensor(numbers, dtype=torch.int64, device="cpu").to(device, non_blocking=True)
