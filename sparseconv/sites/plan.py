"""Plans: which rulebooks a network needs, and rulebooks in one piece of memory for the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError


@dataclass(frozen=True)
class Plan:
    """The windows of a network's layers, level by level: numbers alone, whatever the sites.

    Attributes:
        layers: of each layer on one set of sites its geometry, and the plan of the sites that it
            makes (empty where it keeps them).
    """

    layers: tuple[tuple[Geometry, Plan], ...] = ()

    @property
    def num_rulebooks(self) -> int:
        """Number of rulebooks."""
        return len(self.layers) + sum(rest.num_rulebooks for _, rest in self.layers)

    def __str__(self) -> str:
        """Return the number of rulebooks and of levels."""
        return f"Plan of {self.num_rulebooks} rulebooks"


def packed_layers(layers: Mapping[Geometry, Any]) -> tuple[list[tuple[Any, ...]], Tensor]:
    """Return layers as plain values, and all rows of their rulebooks in one tensor.

    A process that sends a tensor to another one keeps a file open for it, and there is a limit to
    these: so there is one tensor for all rulebooks of a set of sites.
    """
    numbers, rows = [], []
    for geometry, layer in layers.items():
        book = layer.rulebook
        way = geometry.numbers, geometry.kind.value
        numbers.append((*way, layer.sites, book.splits, book.n_in, book.n_out))
        rows += [book.in_rows, book.out_rows]
    return numbers, torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int32)


def unpacked_layers(
    layers: list[tuple[Any, ...]], rows: Tensor, source: Any
) -> Iterator[tuple[Geometry, Any, Rulebook]]:
    """Yield geometry, sites (None: the layer keeps them) and rulebook of each layer.

    Args:
        layers, rows: what :func:`packed_layers` returned.
        source: the sites that the layers read.

    Raises:
        SparseConvValueError: rows that are not there: loops trust them.
    """
    begin = 0
    for numbers, kind, sites, splits, n_in, n_out in layers:
        pairs = splits[-1]
        middle, end = begin + pairs, begin + 2 * pairs
        in_rows, out_rows = rows[begin:middle], rows[middle:end]
        begin = end
        written = source.num_sites if sites is None else sites.num_sites
        checks = (
            rows.dtype == torch.int32 and begin <= rows.numel(),
            splits[0] == 0 and all(a <= b for a, b in pairwise(splits)),
            (n_in, n_out) == (source.num_sites, written),
        )
        if not (all(checks) and _below(in_rows, n_in) and _below(out_rows, n_out)):
            raise SparseConvValueError(
                "sites: the file holds rulebooks of other sites; it is damaged"
            )
        window = *numbers, Kind(kind)
        yield Geometry(*window), sites, Rulebook(in_rows, out_rows, tuple(splits), n_in, n_out)


def _below(rows: Tensor, count: int) -> bool:
    """Return whether rows lie from 0 to below ``count``."""
    return rows.numel() == 0 or 0 <= int(rows.min()) <= int(rows.max()) < count
