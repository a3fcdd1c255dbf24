"""What the features, the mask and the index of a tensor must be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import as_bools, came, check_device, check_floating, check_kind
from sparseconv.core.dtypes import FLOATS
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.sites import Sites
from sparseconv.tensor.methods import Methods


def check_alone(sites: Any, *others: Any) -> None:
    """Raise unless these are sites, and no other argument says where the features lie."""
    check_kind("sites", sites, Sites, "the sites of a SparseTensor, x.sites")
    if any(entry is not None for entry in others):
        raise SparseConvTypeError(
            "sites: stand in place of coords, spatial_shape, batch_size and reduce; leave those out"
        )


def check_features(features: Any) -> None:
    """Raise unless these are floating point ``[N, C]``, of a dtype that the engines know."""
    check_floating("features", features)
    if features.dtype not in FLOATS:
        raise SparseConvTypeError(f"features: must be one of {FLOATS}, got {features.dtype}")
    if features.ndim != 2:
        raise SparseConvValueError(f"features: must have shape (N, C), got {tuple(features.shape)}")


def check_match(features: Tensor, rows: int, device: torch.device) -> None:
    """Raise unless the features have a row for each site, on the device of the sites."""
    if features.shape[0] != rows:
        raise SparseConvValueError(
            f"features: must have one row per site, got {features.shape[0]} rows for {rows} sites"
        )
    check_device("features", features, device, "site set")


def checked_mask(t: Tensor, mask: Tensor) -> Tensor:
    """Return ``mask`` as bool ``[B, *spatial]``."""
    mask = as_bools("mask", mask)
    spatial = tuple(t.shape[2:])
    allowed = ((t.shape[0], 1, *spatial), (t.shape[0], *spatial))
    if tuple(mask.shape) not in (*allowed, (1, 1, *spatial), (1, *spatial)):
        raise SparseConvValueError(
            f"mask: must have shape {allowed[0]} or {allowed[1]}, got {tuple(mask.shape)}"
        )
    check_device("mask", mask, t.device, "tensor")
    return mask.reshape(mask.shape[0], *spatial).expand(allowed[1])


def shown_index(value: Any) -> str:
    """Return what an error says of an index: no dump of a tensor."""
    if isinstance(value, Tensor | Methods):
        return f"{came(value)}; sparseconv.prune(x, keep) keeps some of the sites"
    return repr(value) if isinstance(value, str | float | slice) else came(value)


def is_slice(value: Any) -> bool:
    """Return whether this is a slice from and to integers."""
    if not isinstance(value, slice):
        return False
    bounds = (value.start, value.stop, value.step)
    return all(bound is None or isinstance(bound, int) for bound in bounds) and value.step != 0
