"""Sites as an operator takes them: a number in a tensor.

A graph that is compiled runs while the sites that it takes live. Sites that a graph makes belong to
their handle: they live as long as its memory, so no program has to keep a list of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.handles import LIVING
from sparseconv.sites.sites import Sites


def handle_of(sites: Sites) -> Tensor:
    """Return the handle of sites, int64 ``[]`` on the CPU."""
    return torch.full((), sites.number, dtype=torch.int64, device="cpu")


class _Owner(np.ndarray[Any, Any]):
    """The memory of a handle, which keeps what it stands for alive."""

    thing: Any


def owning_handle(sites: Sites) -> Tensor:
    """Return a handle of sites that live as long as it does."""
    return owner_of(sites, sites.number)


def owner_of(thing: Any, number: int) -> Tensor:
    """Return ``number``, int64 ``[]``, in memory that keeps ``thing`` alive."""
    owner = np.array(number, dtype=np.int64).view(_Owner)
    owner.thing = thing
    return torch.from_numpy(owner)


def living(handle: Tensor) -> Sites:
    """Return the sites of a handle.

    Raises:
        RuntimeError: they were freed, or belong to another process.
    """
    sites: Sites | None = LIVING.get(int(handle))
    if sites is None:
        raise RuntimeError(
            f"the sites with handle {int(handle)} are gone: a compiled graph runs while the sites "
            f"that it takes live, an exported program makes them from coordinates"
        )
    return sites
