"""Filling holes in images: a first guess from averages, a network that learns the rest.

Images are float tensors ``[B, C, H, W]`` from 0 to 1, masks bool ``[B, 1, H, W]``, True where the
image is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.functional import partial_avg_pool
from sparseconv.inpaint.masks import below, varied_holes
from sparseconv.models import PartialUNet

WIDTHS = (16, 32, 48, 48)
VALID_WEIGHT = 0.1  # weight in the loss of pixels that the network sees; hidden ones weigh 1
CONTRAST = 0.25  # details of this size, on a scale from 0 to 1, enter the network as 1
BLUR = 5  # pixels: side of the mean that is subtracted to get the details; taken twice
SWEEPS = 8  # averages with the neighbours, per scale
NEIGHBOURS = ((1.0, 2.0, 1.0), (2.0, 0.0, 2.0), (1.0, 2.0, 1.0))


Filler = Callable[[PartialUNet, Tensor, Tensor], Tensor]


class Sample(NamedTuple):
    """What a step of training sees.

    Attributes:
        image: ``[B, C, H, W]``, the truth.
        valid: ``[B, 1, H, W]``, where it is the truth.
        shown: ``[B, 1, H, W]``, the part of it that the network sees.
    """

    image: Tensor
    valid: Tensor
    shown: Tensor


def average_fill(image: Tensor, mask: Tensor) -> Tensor:
    """Fill holes with averages of their surroundings: the first guess of :func:`fill`.

    Partial pooling halves image and mask until nothing is missing; on the way back each scale's
    holes are interpolated from the next coarser one, and then averaged with their neighbours a few
    times, which nears the harmonic function (a soap film) over the hole.

    Args:
        image: ``[B, C, H, W]``; what lies under mask 0 is never read.
        mask: bool ``[B, 1, H, W]``.

    Returns:
        ``[B, C, H, W]``, the image itself where it is valid; 0 where nothing is valid at all.

    Example:
        >>> import torch
        >>> from sparseconv.inpaint.fill import average_fill
        >>> image = torch.tensor([[[[0.5, 0.5, torch.nan]]]])
        >>> average_fill(image, ~image.isnan())
        tensor([[[[0.5000, 0.5000, 0.5000]]]])
    """
    size = image.shape[2:]
    if bool(mask.all()) or max(size) == 1:
        return torch.where(mask, image, 0.0)
    pads = (0, size[1] % 2, 0, size[0] % 2)
    coarse, valid = partial_avg_pool(F.pad(image, pads), 2, mask=F.pad(mask, pads))
    guess = F.interpolate(
        average_fill(coarse, valid), scale_factor=2, mode="bilinear", align_corners=False
    )
    filled = torch.where(mask, image, guess[..., : size[0], : size[1]])
    channels = image.shape[1]
    kernel = image.new_tensor(NEIGHBOURS).expand(channels, 1, 3, 3) / 12
    for _ in range(SWEEPS):
        around = F.pad(filled, (1, 1, 1, 1), mode="replicate")
        filled = torch.where(mask, image, F.conv2d(around, kernel, groups=channels))
    return filled


def fill(
    network: PartialUNet | None, image: Tensor, mask: Tensor, filler: Filler | None = None
) -> Tensor:
    """Return the image with its holes filled; valid pixels stay as they are.

    The network fills the image in eight positions, turned and mirrored; their mean counts.

    Args:
        network: corrects the first guess, :func:`average_fill`; None for that guess alone.
        image, mask: as of :func:`average_fill`.
        filler: what the network is for, :func:`corrected` where left out, or :func:`unaided`.
    """
    filler = corrected if filler is None else filler
    if network is None:
        return average_fill(image, mask)
    total = torch.zeros_like(image)
    with torch.no_grad():
        for turns in range(4):
            for mirrored in ((), (3,)):
                seen = (part.rot90(turns, (2, 3)).flip(mirrored) for part in (image, mask))
                total += filler(network, *seen).flip(mirrored).rot90(-turns, (2, 3))
    return torch.where(mask, image, (total / 8).clamp(0, 1))


def corrected(network: PartialUNet, image: Tensor, mask: Tensor) -> Tensor:
    """Return the first guess and what the network adds to it, at valid pixels as well.

    The network sees the details alone, the difference to a blurred first guess: a sum over part of
    a window says more about which part that is than about edges while the mean is in it. It sees
    those of the image, with the image's mask, and those of the first guess, valid everywhere.
    """
    guess = average_fill(image, mask)
    blurred = guess
    for _ in range(2):
        around = F.pad(blurred, (BLUR // 2,) * 4, mode="replicate")
        blurred = F.avg_pool2d(around, BLUR, 1)
    details = torch.cat([image - blurred, guess - blurred], dim=1) / CONTRAST
    masks = torch.cat([mask.expand_as(image), torch.ones_like(mask).expand_as(image)], dim=1)
    layout = torch.channels_last
    correction: Tensor = network(
        *(part.contiguous(memory_format=layout) for part in (details, masks))
    )[0]
    return guess + CONTRAST * correction


def unaided(network: PartialUNet, image: Tensor, mask: Tensor) -> Tensor:
    """Return what the network makes of the image without a first guess."""
    layout = torch.channels_last
    result: Tensor = network(image.contiguous(memory_format=layout), mask)[0]
    return result


def new_network(
    channels: int,
    widths: Sequence[int] = WIDTHS,
    normalize: str = "ratio",
    filler: Filler | None = None,
) -> PartialUNet:
    """Return an untrained network: its output, the correction of the first guess, is 0.

    Args:
        channels: of the images.
        widths, normalize: as of :class:`sparseconv.models.PartialUNet`.
        filler: as of :func:`fill`.
    """
    seen = channels if filler is unaided else 2 * channels
    network = PartialUNet(seen, channels, widths, normalize=normalize)
    for parameter in network.last.parameters():
        torch.nn.init.zeros_(parameter)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # twice as fast on a CPU as torch's default
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def train(
    network: PartialUNet,
    samples: Iterator[Sample],
    steps: int,
    learning_rate: float = 3e-3,
    progress: Callable[[int, float], None] | None = None,
    filler: Filler | None = None,
) -> PartialUNet:
    """Train ``network`` to fill holes; the rate rises and falls once.

    The loss is the root of each image's mean square error: one full of noise counts no more than
    a smooth one, as in a mean of PSNR.

    Args:
        network: in place.
        samples: batches; only valid pixels count, those that are hidden the most.
        steps: batches to take.
        learning_rate: the highest.
        progress: is called with the number of the step and its loss.
        filler: as of :func:`fill`.
    """
    filler = corrected if filler is None else filler
    optimizer = torch.optim.AdamW(
        network.parameters(), learning_rate, (0.9, 0.98), weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, max(steps, 2), pct_start=0.05, cycle_momentum=False
    )
    for step in range(steps):
        image, valid, shown = next(samples)
        filled = filler(network, image, shown)
        weight = valid * torch.where(shown, VALID_WEIGHT, 1.0)
        # what is invalid may be NaN: it must not meet the weight 0
        error = torch.where(valid, filled - image, 0.0).square()
        each = (error * weight).mean(dim=(1, 2, 3)) / weight.mean(dim=(1, 2, 3)).clamp(min=1e-6)
        loss = (each + 1e-5).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, loss.item())
    return network


def crops(
    image: Tensor,
    valid: Tensor,
    size: int,
    batch: int,
    generator: torch.Generator,
    holes: Iterator[Tensor] | None = None,
) -> Iterator[Sample]:
    """Yield random crops without end, turned and mirrored, with random holes.

    Args:
        image: ``[1, C, H, W]``.
        valid: ``[1, 1, H, W]``; nothing else of the image is used.
        size: of the square crops; no more than the image has.
        batch: crops per sample.
        generator: source of the random numbers.
        holes: masks of that size; of :func:`sparseconv.inpaint.masks.varied_holes` where left out.
    """
    height, width = image.shape[2:]
    size = min(size, height, width)
    holes = varied_holes(size, generator) if holes is None else holes
    both = torch.cat([image, valid.to(image.dtype)], dim=1)[0]
    while True:
        parts: list[Tensor] = []
        for _ in range(batch):
            top, left = (below(n - size + 1, generator) for n in (height, width))
            part = both[:, top : top + size, left : left + size]
            part = part.rot90(below(4, generator), (1, 2))
            parts.append(part.flip(2) if below(2, generator) else part)
        stack = torch.stack(parts)
        seen = stack[:, -1:] > 0
        masks = torch.cat([next(holes) for _ in range(batch)])
        yield Sample(stack[:, :-1], seen, seen & masks)
