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

from sparseconv.errors import SparseConvValueError
from sparseconv.functional import partial_avg_pool
from sparseconv.models import PartialUNet

WIDTHS = (16, 32, 48, 48)
HOLE_WEIGHT = 6.0  # of the loss inside holes, against that outside: Liu et al. 2018, section 3.3
SWEEPS = 8  # averages with the neighbours, per scale
NEIGHBOURS = ((1.0, 2.0, 1.0), (2.0, 0.0, 2.0), (1.0, 2.0, 1.0))
RADIUS = (1.0, 5.0)  # of a brush, in pixels
LENGTH = (4.0, 40.0)  # of either half of a stroke, in pixels


class Sample(NamedTuple):
    """What a step of training sees.

    Attributes:
        image: ``[B, C, H, W]``, the truth.
        known: ``[B, 1, H, W]``, where it is the truth.
        shown: ``[B, 1, H, W]``, the part of it that the network sees.
    """

    image: Tensor
    known: Tensor
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
        >>> from sparseconv.inpainting import average_fill
        >>> image = torch.tensor([[[[0.5, 0.5, torch.nan]]]])
        >>> average_fill(image, ~image.isnan())
        tensor([[[[0.5000, 0.5000, 0.5000]]]])
    """
    size = image.shape[2:]
    if bool(mask.all()) or max(size) == 1:
        return torch.where(mask, image, 0.0)
    pads = (0, size[1] % 2, 0, size[0] % 2)
    coarse, known = partial_avg_pool(F.pad(image, pads), 2, mask=F.pad(mask, pads))
    guess = F.interpolate(
        average_fill(coarse, known), scale_factor=2, mode="bilinear", align_corners=False
    )
    filled = torch.where(mask, image, guess[..., : size[0], : size[1]])
    channels = image.shape[1]
    kernel = image.new_tensor(NEIGHBOURS).expand(channels, 1, 3, 3) / 12
    for _ in range(SWEEPS):
        around = F.pad(filled, (1, 1, 1, 1), mode="replicate")
        filled = torch.where(mask, image, F.conv2d(around, kernel, groups=channels))
    return filled


def fill(network: PartialUNet | None, image: Tensor, mask: Tensor) -> Tensor:
    """Return the image with its holes filled; valid pixels stay as they are.

    Args:
        network: corrects the first guess, :func:`average_fill`; None for that guess alone.
        image, mask: as of :func:`average_fill`.
    """
    if network is None:
        return average_fill(image, mask)
    with torch.no_grad():
        return torch.where(mask, image, corrected(network, image, mask).clamp(0, 1))


def corrected(network: PartialUNet, image: Tensor, mask: Tensor) -> Tensor:
    """Return the first guess and what the network adds to it, at valid pixels as well."""
    result: Tensor = average_fill(image, mask) + network(image, mask)[0]
    return result


def new_network(
    channels: int, widths: Sequence[int] = WIDTHS, normalize: str = "ratio"
) -> PartialUNet:
    """Return an untrained network: its correction of the first guess is 0.

    Args:
        channels: of the images.
        widths, normalize: as of :class:`sparseconv.models.PartialUNet`.
    """
    network = PartialUNet(channels, channels, widths, normalize=normalize)
    for parameter in network.last.parameters():
        torch.nn.init.zeros_(parameter)
    return network


def train(
    network: PartialUNet,
    samples: Iterator[Sample],
    steps: int,
    learning_rate: float = 2e-3,
    progress: Callable[[int, float], None] | None = None,
) -> PartialUNet:
    """Train ``network`` to correct the first guess; the rate rises and falls once.

    Args:
        network: in place.
        samples: batches; only pixels that are known count, those that are hidden the most.
        steps: batches to take.
        learning_rate: the highest.
        progress: is called with the number of the step and its loss.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2), pct_start=0.1
    )
    for step in range(steps):
        image, known, shown = next(samples)
        filled = corrected(network, image, shown)
        weight = known * torch.where(shown, 1.0, HOLE_WEIGHT)
        # what is not known may be NaN: it must not meet the weight 0
        error = torch.where(known, filled - image, 0.0).square()
        loss = (error * weight).sum() / (weight.sum() * image.shape[1])
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
    known: Tensor,
    size: int,
    batch: int,
    generator: torch.Generator,
    shares: tuple[float, float] = (0.1, 0.6),
) -> Iterator[Sample]:
    """Yield random crops without end, turned and mirrored, with random irregular holes.

    Args:
        image: ``[1, C, H, W]``.
        known: ``[1, 1, H, W]``; nothing else of the image is used.
        size: of the square crops; no more than the image has.
        batch: crops per sample.
        generator: source of the random numbers.
        shares: least and largest share of a crop that is hidden.
    """
    height, width = image.shape[2:]
    size = min(size, height, width)
    while True:
        parts: list[Tensor] = []
        while len(parts) < batch:
            top, left = (_below(n - size + 1, generator) for n in (height, width))
            part = torch.cat([image, known.to(image.dtype)], dim=1)
            part = part[0, :, top : top + size, left : left + size]
            part = part.rot90(_below(4, generator), (1, 2))
            parts.append(part.flip(2) if _below(2, generator) else part)
        stack = torch.stack(parts)
        seen = stack[:, -1:] > 0
        low, high = shares
        share = low + (high - low) * torch.rand(batch, generator=generator)
        holes = [irregular_mask(size, size, each, generator) for each in share.tolist()]
        yield Sample(stack[:, :-1], seen, seen & torch.cat(holes))


def irregular_mask(height: int, width: int, share: float, generator: torch.Generator) -> Tensor:
    """Return a mask bool ``[1, 1, H, W]``: what random brush strokes cover is missing.

    Args:
        height, width: extent.
        share: of the pixels to take away, from 0 to 1; it is met to the pixel.
        generator: source of the random numbers.

    Example:
        >>> import torch
        >>> from sparseconv.inpainting import irregular_mask
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


def _stroke(height: int, width: int, number: int, generator: torch.Generator) -> Tensor:
    """Return when a stroke of two straight halves reaches each pixel, infinite if it does not."""
    radius, first, second = (
        low + (high - low) * float(torch.rand(1, generator=generator))
        for low, high in (RADIUS, LENGTH, LENGTH)
    )
    angles = torch.rand(2, generator=generator) * torch.tensor([2 * torch.pi, 2.0])
    angle = angles[0] + torch.stack([torch.tensor(0.0), angles[1] - 1])  # bends by one at most
    steps = torch.stack([angle.sin(), angle.cos()], dim=1) * torch.tensor([[first], [second]])
    start = torch.rand(2, generator=generator) * torch.tensor([height, width])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).float()
    time = torch.full((height, width), torch.inf)
    for half, along in enumerate(steps):
        share = ((places - start) @ along / along.square().sum()).clamp(0, 1)
        distance = (places - start - share[..., None] * along).square().sum(dim=-1)
        reached = torch.where(distance < radius**2, number + (half + share) / 2, torch.inf)
        time = torch.minimum(time, reached)
        start = start + along
    return time


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
