"""How spconv's indices become sites: on a closed grid, each site once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.place import Place, Reading
from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites

_REPEATED = (
    "spconv would have taken one of these rows by chance; merge them before, or leave all but one "
    "out"
)


def _made(indices: Tensor, spatial_shape: Ints, batch_size: int) -> Sites:
    """Return the sites at ``indices``, whose errors call them so."""
    try:
        return sites_from_coords(indices, spatial_shape, batch_size, remedy=_REPEATED)
    except SparseConvValueError as error:
        raise SparseConvValueError(str(error).replace("coords:", "indices:", 1)) from None


def _shown(sites: Sites, *_grid: Any) -> Tensor:
    """Return the coordinates, int32 ``[N, 1 + D]``, batch first."""
    return sites.shared_coords.to(torch.int32, copy=True)


READING = Reading(_made, _shown)


def place_of_indices(indices: Tensor) -> Place:
    """Return the place of these very indices."""
    return READING.of_indices(indices)


def place_of_sites(sites: Any, spatial_shape: Ints, batch_size: int) -> Place:
    """Return the place of sites that a layer made."""
    return READING.of_sites(sites, spatial_shape, batch_size)
