"""Sites and geometries as an operator takes them: a number in a tensor, and integers."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.handles import LIVING
from sparseconv.sites.sites import Sites

_KINDS = list(Kind)


def handle_of(sites: Sites) -> Tensor:
    """Return the handle of sites, int64 ``[]`` on the CPU."""
    return torch.full((), sites.number, dtype=torch.int64, device="cpu")


def living(handle: Tensor) -> Sites:
    """Return the sites of a handle.

    Raises:
        RuntimeError: they were freed, or belong to another process.
    """
    sites: Sites | None = LIVING.get(int(handle))
    if sites is None:
        raise RuntimeError(
            f"the sites with handle {int(handle)} are gone: a graph runs in the process that made "
            f"its sites, while they live"
        )
    return sites


def encoded(geometry: Geometry) -> list[int]:
    """Return a geometry as the integers that an operator takes."""
    rows = (
        geometry.kernel_size,
        geometry.stride,
        geometry.padding,
        geometry.padding_end,
        geometry.dilation,
        geometry.output_padding,
    )
    return [_KINDS.index(geometry.kind), *(entry for row in rows for entry in row)]


def decoded(numbers: list[int]) -> Geometry:
    """Return the geometry that :func:`encoded` gave as ``numbers``."""
    axes = (len(numbers) - 1) // 6
    rows = (tuple(numbers[1 + row * axes : 1 + (row + 1) * axes]) for row in range(6))
    kernel, stride, padding, padding_end, dilation, output_padding = rows
    kind = _KINDS[numbers[0]]
    return Geometry(kernel, stride, padding, padding_end, dilation, output_padding, kind)
