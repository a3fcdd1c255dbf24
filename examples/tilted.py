"""Thin structures at any tilt, drawn on a 32 by 32 grid: poles, wires, bent pipes."""

from __future__ import annotations

import torch
from torch import Tensor

import sparseconv as sc

SIDE = 32
CLASSES = ("pole", "wire", "pipe")


def lines(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images ``[count, 1, 32, 32]`` of one thin structure each, and classes ``[count]``.

    A pole is straight, a wire sags between its ends, a pipe has one bend; the deepest point of
    wire and pipe is equally far from the straight line. A tenth of the cells is missing.

    Args:
        count: number of images.
        seed: of their shapes, tilts and places.
    """
    source = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=source)

    kinds = torch.randint(len(CLASSES), (count,), generator=source)
    along = torch.linspace(-1, 1, 4 * SIDE).expand(count, -1)
    sag = (1 - along**2) * (kinds == 1)[:, None]
    bend = (1 - along.abs()) * (kinds == 2)[:, None]
    half = uniform(10, 13, 1)
    across = (sag + bend) * uniform(4, 7, 1)
    across = across - across.mean(dim=1, keepdim=True)
    tilt = uniform(0, 2 * torch.pi, 1)
    centre = uniform(SIDE / 2 - 2, SIDE / 2 + 1, 2)
    rows = centre[:, :1] + half * along * tilt.sin() + across * tilt.cos()
    columns = centre[:, 1:] + half * along * tilt.cos() - across * tilt.sin()
    cells = (rows.round().clamp(0, SIDE - 1) * SIDE + columns.round().clamp(0, SIDE - 1)).long()
    images = torch.zeros(count, SIDE * SIDE).scatter_(1, cells, 1.0)
    images *= torch.rand(images.shape, generator=source) > 0.1
    return images.reshape(count, 1, SIDE, SIDE), kinds


def sites(images: Tensor) -> sc.SparseTensor:
    """Return the cells that are not 0."""
    return sc.SparseTensor.from_dense(images)
