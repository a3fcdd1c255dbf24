"""Where the rows of a tensor lie: the indices that people see, and the sites that layers read."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints
from sparseconv.core.private_torch import version
from sparseconv.core.remember import remembered
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

_REPEATED = (
    "spconv would have taken one of these rows by chance; merge them before, or leave all but one "
    "out"
)


class Place:
    """The indices of a tensor and the sites at them, each made from the other when asked for.

    Indices may be written to by whoever reads them, as spconv allows: the sites are then made
    anew. Tensors that were given one tensor of indices share one place, and with it the rulebooks.
    """

    __slots__ = ("__weakref__", "_grid", "_indices", "_sites", "_writes")

    def __init__(self, indices: Tensor | None, sites: Any, grid: tuple[Ints, int] | None) -> None:
        """Hold ``indices`` int32 ``[N, 1 + D]``, or the sites of ``grid`` (extent, batch size)."""
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
        """The indices ``[N, 1 + D]``, batch first: always the same tensor."""
        if self._indices is None:
            indices = _indices_of(self.sites)
            if torch.compiler.is_compiling():
                return indices
            self._indices, self._writes = indices, version(indices)
            _BY_INDICES[id(indices)] = self
        return self._indices

    def sites_on(self, spatial_shape: Ints, batch_size: int) -> Any:
        """Return the sites on a grid; made anew where somebody wrote to the indices.

        Raises:
            SparseConvValueError: rows that repeat a site or lie outside of the grid.
        """
        grid = (spatial_shape, batch_size)
        if self._sites is None or self._grid != grid or not self._is_current():
            self._sites = _made(self.indices, *grid)
            self._grid, self._writes = grid, version(self.indices)
        return self.sites

    def _is_current(self) -> bool:
        """Return whether the indices still say what the sites were made from."""
        indices = self._indices
        if indices is None:
            return True
        if indices.is_inference():  # it counts no writes
            return torch.equal(indices, self._sites.shared_coords)
        return version(indices) == self._writes


# A place holds its indices and its sites, so the numbers mean these as long as it lives.
_BY_INDICES: weakref.WeakValueDictionary[int, Place] = weakref.WeakValueDictionary()
_BY_SITES: weakref.WeakValueDictionary[int, Place] = weakref.WeakValueDictionary()


def place_of_indices(indices: Tensor) -> Place:
    """Return the place of these very indices."""
    if torch.compiler.is_compiling():
        return Place(indices, None, None)
    place = _BY_INDICES.get(id(indices))
    if place is None:
        place = _BY_INDICES.setdefault(id(indices), Place(indices, None, None))
    return place


def place_of_sites(sites: Any, spatial_shape: Ints, batch_size: int) -> Place:
    """Return the place of sites that a layer made."""
    grid = (spatial_shape, batch_size)
    place = _BY_SITES.get(sites.number)
    if place is None or place.sites is not sites:
        place = _BY_SITES[sites.number] = Place(None, sites, grid)
    return place


@remembered
def _indices_of(sites: Sites) -> Tensor:
    return sites.shared_coords.to(torch.int32, copy=True)


def _made(indices: Tensor, spatial_shape: Ints, batch_size: int) -> Sites:
    """Return the sites at ``indices``, whose errors call them so."""
    try:
        return sites_from_coords(indices, spatial_shape, batch_size, remedy=_REPEATED)
    except SparseConvValueError as error:
        raise SparseConvValueError(str(error).replace("coords:", "indices:", 1)) from None
