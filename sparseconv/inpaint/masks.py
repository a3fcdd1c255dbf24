"""Masks with random holes: brush strokes, single pixels, blocks.

Masks are bool ``[1, 1, H, W]``, True where an image is valid.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError

RADIUS = (1.0, 5.0)  # of a brush, in pixels
LENGTH = (4.0, 40.0)  # of either half of a stroke, in pixels
BLOCK = (12, 28)  # side of a block, in pixels
STROKES, SCATTERED = 0.45, 0.4  # of the holes to learn from; the rest are blocks
SHARES = (0.1, 0.65)  # of the pixels under strokes
SCATTERED_SHARES = (0.3, 0.97)
SHEETS, SHEET = 120, 2.5  # sheets full of strokes that holes are cut from, and their side in holes


def irregular_mask(height: int, width: int, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask bool ``[1, 1, H, W]``: what random brush strokes cover is missing.

    Args:
        height, width: extent.
        share: of the pixels to take away, from 0 to 1; it is met to the pixel.
        generator: source of the random numbers.

    Example:
        >>> import torch
        >>> from sparseconv.inpaint.masks import irregular_mask
        >>> irregular_mask(20, 20, 0.25, torch.Generator().manual_seed(0)).sum()
        tensor(300)
    """
    if not 0 <= share <= 1:
        raise SparseConvValueError(f"share: must lie from 0 to 1, got {share}")
    wanted = round(share * height * width)
    # the time at which each pixel goes: the first `wanted` are taken
    time = torch.full((height, width), torch.inf)
    missing, stroke = 0, 0
    while missing < wanted:
        time = torch.minimum(time, _stroke(height, width, stroke, generator))
        stroke += 1
        missing = int(time.isfinite().sum())
    order = time.flatten().argsort(stable=True)
    mask = torch.ones(height * width, dtype=torch.bool)
    mask[order[:wanted]] = False
    return mask.reshape(1, 1, height, width)


def scattered_mask(height: int, width: int, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask that lacks single pixels, each with probability ``share``.

    Args:
        height, width, share, generator: as of :func:`irregular_mask`.
    """
    return torch.rand(1, 1, height, width, generator=generator) >= share


def block_mask(
    height: int, width: int, count: int, side: int, generator: torch.Generator
) -> Tensor:
    """Return a mask that lacks square blocks; they may overlap.

    Args:
        height, width, generator: as of :func:`irregular_mask`.
        count: of the blocks.
        side: of a block, in pixels; no more than the mask's.
    """
    mask = torch.ones(1, 1, height, width, dtype=torch.bool)
    for _ in range(count):
        top, left = (below(n - side + 1, generator) for n in (height, width))
        mask[..., top : top + side, left : left + side] = False
    return mask


def varied_holes(size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield square masks without end, to learn from: strokes, single pixels or blocks.

    Every mask has a hole and a valid pixel. Strokes are slow to draw: once there are some sheets
    full of them, they are cut from those, turned at random.

    Args:
        size: of a side, in pixels, 8 or more.
        generator: source of the random numbers.
    """
    side = int(SHEET * size)
    sheets: list[Tensor] = []
    while True:
        kind = _uniform(0, 1, generator)
        if kind < STROKES:
            if len(sheets) < SHEETS:
                share = _uniform(*SHARES, generator)
                sheets.append(irregular_mask(side, side, share, generator))
            sheet = sheets[below(len(sheets), generator)]
            top, left = (below(side - size + 1, generator) for _ in range(2))
            mask = sheet[..., top : top + size, left : left + size]
            mask = mask.rot90(below(4, generator), (2, 3))
        elif kind < STROKES + SCATTERED:
            share = _uniform(*SCATTERED_SHARES, generator)
            mask = scattered_mask(size, size, share, generator)
        else:
            block = min(BLOCK[0] + below(BLOCK[1] - BLOCK[0], generator), size // 2)
            mask = block_mask(size, size, 1 + below(3, generator), block, generator)
        if bool(mask.any()) and not bool(mask.all()):
            yield mask


def _stroke(height: int, width: int, number: int, generator: torch.Generator) -> Tensor:
    """Return when a stroke of two straight halves reaches each pixel, infinite if it does not."""
    radius, first, second = (
        _uniform(low, high, generator) for low, high in (RADIUS, LENGTH, LENGTH)
    )
    angles = torch.rand(2, generator=generator) * torch.tensor([2 * torch.pi, 2.0])
    angle = angles[0] + torch.stack([torch.tensor(0.0), angles[1] - 1])  # bends by one at most
    steps = torch.stack([angle.sin(), angle.cos()], dim=1) * torch.tensor([[first], [second]])
    start = torch.rand(2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([rows, columns], dim=-1).float()
    time = torch.full((height, width), torch.inf)
    for half, along in enumerate(steps):
        share = ((pixels - start) @ along / along.square().sum()).clamp(0, 1)
        distance = (pixels - start - share[..., None] * along).square().sum(dim=-1)
        reached = torch.where(distance < radius**2, number + (half + share) / 2, torch.inf)
        time = torch.minimum(time, reached)
        start = start + along
    return time


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def below(limit: int, generator: torch.Generator) -> int:
    """Return a random int from 0 to ``limit`` - 1."""
    return int(torch.randint(limit, (), generator=generator))
