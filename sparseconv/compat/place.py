"""Where the rows of a tensor lie: the indices that people see, and the sites that layers read."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.private_torch import version
from sparseconv.core.remember import remembered
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


class Reading:
    """How a library's indices become sites, and sites its indices.

    Args:
        made: returns the sites at indices on a grid: ``made(indices, *grid)``.
        shown: returns the indices of sites on a grid: ``shown(sites, *grid)``.
    """

    def __init__(self, made: Callable[..., Sites], shown: Callable[..., Tensor]) -> None:
        self.made, self.shown = made, remembered(shown)
        # A place holds its indices and its sites, so the numbers mean these as long as it lives.
        self.by_indices: weakref.WeakValueDictionary[int, Place] = weakref.WeakValueDictionary()
        self.by_sites: weakref.WeakValueDictionary[int, Place] = weakref.WeakValueDictionary()

    def of_indices(self, indices: Tensor) -> Place:
        """Return the place of these very indices."""
        if torch.compiler.is_compiling():
            return Place(self, indices, None, None)
        place = self.by_indices.get(id(indices))
        if place is None:
            place = self.by_indices.setdefault(id(indices), Place(self, indices, None, None))
        return place

    def of_sites(self, sites: Any, *grid: Any) -> Place:
        """Return the place of sites that a layer made, on a grid."""
        place = self.by_sites.get(sites.number)
        if place is None or place.sites is not sites:
            place = self.by_sites[sites.number] = Place(self, None, sites, grid)
        return place


class Place:
    """The indices of a tensor and the sites at them, each made from the other when asked for.

    Indices may be written to by whoever reads them: the sites are then made anew. Tensors that were
    given one tensor of indices share one place, and with it the rulebooks.
    """

    __slots__ = ("__weakref__", "_grid", "_indices", "_reading", "_sites", "_writes")

    def __init__(
        self, reading: Reading, indices: Tensor | None, sites: Any, grid: tuple[Any, ...] | None
    ) -> None:
        """Hold ``indices`` ``[N, 1 + D]``, or the sites on ``grid``."""
        self._reading = reading
        self._indices = indices
        self._writes = 0 if indices is None else version(indices)
        self._sites = sites
        self._grid = grid

    sites: Any = SparseTensor.sites  # the same door into graphs

    @property
    def num_rows(self) -> int:
        """Number of rows N."""
        rows: int = self.sites.num_sites if self._indices is None else self._indices.shape[0]
        return rows

    @property
    def indices(self) -> Tensor:
        """The indices ``[N, 1 + D]``: always the same tensor."""
        if self._indices is None:
            indices = self._reading.shown(self.sites, *(self._grid or ()))
            if torch.compiler.is_compiling():
                return indices
            self._indices, self._writes = indices, version(indices)
            self._reading.by_indices[id(indices)] = self
        return self._indices

    def sites_on(self, *grid: Any) -> Any:
        """Return the sites on a grid; made anew where somebody wrote to the indices.

        Raises:
            SparseConvValueError: rows that repeat a site or lie outside of the grid.
        """
        if self._sites is None or self._grid != grid or not self._is_current():
            self._sites = self._reading.made(self.indices, *grid)
            self._grid, self._writes = grid, version(self.indices)
        return self.sites

    def _is_current(self) -> bool:
        """Return whether the indices still say what the sites were made from."""
        indices = self._indices
        if indices is None:
            return True
        if indices.is_inference():  # it counts no writes
            return torch.equal(indices, self._reading.shown(self._sites, *(self._grid or ())))
        return version(indices) == self._writes
