"""Ways to fill holes, large images by tiles, and which way is best for an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.errors import SparseConvValueError
from sparseconv.inpaint.fill import average_fill
from sparseconv.inpaint.images import WORD, as_array, as_tensor, needed, psnr
from sparseconv.inpaint.masks import irregular_mask

Method: TypeAlias = Callable[[Tensor, Tensor], Tensor]

TELEA_RADIUS = 3  # pixels
TILE, MARGIN = 1024, 128  # pixels of a tile, and of what it sees around it
HELD_OUT = 0.1  # of the valid pixels: by these methods are compared


def telea(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes from their rim inwards, along lines of equal brightness; by OpenCV.

    Args:
        image: ``[1, C, H, W]``, from 0 to 1.
        mask: bool ``[1, 1, H, W]``, True where the image is valid.

    Raises:
        SparseConvError: OpenCV is not installed.

    Source: Telea 2004, "An Image Inpainting Technique Based on the Fast Marching Method".
    """
    library = needed("cv2", "opencv-python-headless")
    hole = (~mask[0, 0]).numpy().astype(np.uint8)
    known = torch.where(mask, image, 0.0)
    # of one channel OpenCV fills 16 bits, of three only 8
    whole = (known[0].clamp(0, 1) * WORD).round().numpy().astype(np.uint16)
    planes = [library.inpaint(p, hole, TELEA_RADIUS, library.INPAINT_TELEA) for p in whole]
    filled = torch.from_numpy(np.stack(planes).astype(np.float32) / WORD)[None].to(image.dtype)
    return torch.where(mask, image, filled)


def biharmonic(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with the smoothest surface that fits their rim; by scikit-image.

    Args:
        image, mask: as of :func:`telea`.

    Raises:
        SparseConvError: scikit-image is not installed.

    Source: Damelin and Hoang 2018, "On Surface Completion and Image Inpainting by Biharmonic
        Functions".
    """
    library = needed("skimage.restoration", "scikit-image")
    values = as_array(torch.where(mask, image, 0.0)).astype(np.float64)
    axis = None if values.ndim == 2 else -1
    filled = library.inpaint_biharmonic(values, (~mask[0, 0]).numpy(), channel_axis=axis)
    return torch.where(mask, image, as_tensor(filled).to(image.dtype))


METHODS: dict[str, Method] = {"average": average_fill, "telea": telea, "biharmonic": biharmonic}


def tiles(mask: Tensor) -> list[tuple[int, int, int, int]]:
    """Return the tiles that have holes: top, bottom, left, right; one for a small image."""
    height, width = mask.shape[2:]
    if height * width <= (TILE + 2 * MARGIN) ** 2:
        return [(0, height, 0, width)]
    corners = [(top, left) for top in range(0, height, TILE) for left in range(0, width, TILE)]
    found = [(top, min(top + TILE, height), left, min(left + TILE, width)) for top, left in corners]
    return [t for t in found if not bool(mask[..., t[0] : t[1], t[2] : t[3]].all())]


def by_tiles(method: Method, image: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """Fill a large image tile by tile; what yields last is the result.

    A tile sees 128 pixels around it; where all of that is missing it sees the whole image.

    Args:
        method: how to fill.
        image: ``[1, C, H, W]``.
        mask: bool ``[1, 1, H, W]``.

    Yields:
        The image, filled so far, after each of the tiles that :func:`tiles` returns.
    """
    height, width = mask.shape[2:]
    filled = torch.where(mask, image, 0.0)
    for top, bottom, left, right in tiles(mask):
        rows = slice(max(top - MARGIN, 0), min(bottom + MARGIN, height))
        columns = slice(max(left - MARGIN, 0), min(right + MARGIN, width))
        if not bool(mask[..., rows, columns].any()):
            rows, columns = slice(0, height), slice(0, width)
        part = method(image[..., rows, columns], mask[..., rows, columns])
        inner = part[
            ...,
            top - rows.start : bottom - rows.start,
            left - columns.start : right - columns.start,
        ]
        filled[..., top:bottom, left:right] = inner
        yield filled


def dilated(mask: Tensor, pixels: int) -> Tensor:
    """Return a mask whose holes are larger by so many pixels on each side."""
    if pixels < 0:
        raise SparseConvValueError(f"dilate: must be 0 or more, got {pixels}")
    hole = (~mask).float()
    size = 2 * pixels + 1
    return F.max_pool2d(hole, size, stride=1, padding=pixels) == 0 if pixels else mask


def judged(methods: dict[str, Method], image: Tensor, mask: Tensor, seed: int) -> dict[str, float]:
    """Return how well methods fill valid pixels of this very image that they do not see, in dB.

    Strokes hide a tenth of the image; what is a hole already does not count.

    Args:
        methods: by name.
        image: ``[1, C, H, W]``.
        mask: bool ``[1, 1, H, W]``.
        seed: of the strokes.
    """
    height, width = mask.shape[2:]
    strokes = irregular_mask(height, width, HELD_OUT, torch.Generator().manual_seed(seed))
    shown = mask & strokes
    hidden = mask & ~strokes
    if not bool(hidden.any()) or not bool(shown.any()):
        return {}
    return {name: psnr(method(image, shown), image, hidden) for name, method in methods.items()}
