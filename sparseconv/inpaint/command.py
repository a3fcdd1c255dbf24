"""``sparseconv inpaint``: fill the holes of one image file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError
from sparseconv.inpaint import images
from sparseconv.inpaint.fill import crops, fill, new_network, train
from sparseconv.inpaint.masks import irregular_mask
from sparseconv.models import PartialUNet

CROP, BATCH, SMALLEST = 64, 8, 8


def add_inpaint(commands: Any) -> None:
    """Add the command's arguments to the parser's commands."""
    parser = commands.add_parser(
        "inpaint",
        help="fill the holes of an image",
        description="Fill the holes of an image with averages of their surroundings, and with "
        "--fit or --weights with what a partial-convolution network adds to that. Transparent "
        "pixels are holes.",
        epilog="example: sparseconv inpaint photo.jpg --mask scratches.png -o restored.jpg",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="what has holes")
    holes = parser.add_mutually_exclusive_group()
    holes.add_argument("--mask", type=Path, help="image that is bright where IMAGE is missing")
    holes.add_argument(
        "--random-mask", type=float, metavar="SHARE", help="hide this share (0 to 1) by strokes"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="file to write"
    )
    parser.add_argument("--truth", type=Path, help="the image without holes, to compare with")
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--fit", action="store_true", help="train on the valid pixels of IMAGE, and nothing else"
    )
    network.add_argument("--weights", type=Path, help="network from examples/inpaint_image.py")
    parser.add_argument("--steps", type=int, default=300, help="steps of training with --fit (300)")
    parser.add_argument("--seed", type=int, default=0, help="of random numbers (0)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read, fill, write, and compare where the truth is known."""
    images.check_output(options.output)
    if options.steps < 1:
        raise SparseConvValueError(f"steps: must be 1 or more, got {options.steps}")
    generator = torch.Generator().manual_seed(options.seed)
    image = images.read_image(options.image)
    size = (image.shape[2], image.shape[3])
    if options.fit and min(size) < SMALLEST:
        raise SparseConvValueError(
            f"image: --fit needs {SMALLEST} x {SMALLEST} pixels or more, got {size[0]} x {size[1]}"
        )
    mask = _mask(options, size, generator)
    truth = image if options.random_mask is not None else None
    truth = truth if options.truth is None else images.read_image(options.truth)
    if truth is not None and truth.shape != image.shape:
        raise SparseConvValueError(
            f"truth: has shape {tuple(truth.shape[1:])}, the image {tuple(image.shape[1:])}"
        )
    if not bool(mask.any()):
        raise SparseConvValueError("mask: nothing of the image is valid")
    filled = _filled(_network(options, image, mask, generator), image, mask)
    images.write_image(options.output, filled, options.image)
    hole = ~mask
    sys.stdout.write(f"filled {100 * float(hole.float().mean()):.1f} % of {options.image.name}\n")
    if truth is not None and bool(hole.any()):
        scores = f"PSNR {images.psnr(filled, truth, hole):.2f} dB"
        if min(size) >= images.SSIM_WINDOW:
            scores += f", SSIM {images.ssim(filled, truth, hole):.4f}"
        sys.stdout.write(f"inside the holes: {scores}\n")


def _mask(options: argparse.Namespace, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return bool ``[1, 1, H, W]``, False in the holes that the options or transparency say."""
    opaque = images.read_alpha(options.image)
    if options.mask is not None:
        mask = images.read_mask(options.mask, size)
    elif options.random_mask is not None:
        mask = irregular_mask(*size, options.random_mask, generator)
    elif opaque is None:
        raise SparseConvValueError(
            f"mask: give --mask or --random-mask, {options.image.name} has no transparent pixels"
        )
    else:
        return opaque
    return mask if opaque is None else mask & opaque


def _filled(network: PartialUNet | None, image: Tensor, mask: Tensor) -> Tensor:
    """Return the filled image; a network for colours sees a grey one as three equal channels."""
    if network is None or _channels(network.state_dict()) == image.shape[1]:
        return fill(network, image, mask)
    coloured = image.expand(-1, _channels(network.state_dict()), -1, -1)
    return torch.where(mask, image, fill(network, coloured, mask).mean(dim=1, keepdim=True))


def _channels(weights: dict[str, Tensor]) -> int:
    """Return how many channels a network with these weights fills."""
    return weights["last.bias"].numel()


def _network(
    options: argparse.Namespace, image: Tensor, mask: Tensor, generator: torch.Generator
) -> PartialUNet | None:
    """Return the network that the options ask for."""
    if options.weights is not None:
        return load_network(options.weights, image.shape[1])
    if not options.fit:
        return None
    torch.manual_seed(options.seed)
    network = new_network(image.shape[1])
    samples = crops(image, mask, CROP, BATCH, generator)
    with images.needed("tqdm", "tqdm").tqdm(total=options.steps, desc="fit", unit="step") as bar:

        def show(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")

        return train(network, samples, options.steps, progress=show)


def save_network(path: Path, network: PartialUNet, widths: tuple[int, ...]) -> None:
    """Write weights and widths."""
    torch.save({"widths": list(widths), "weights": network.state_dict()}, path)


def load_network(path: Path, channels: int) -> PartialUNet:
    """Return a network that :func:`save_network` wrote; one for colours fills grey images too.

    Raises:
        SparseConvValueError: the file is none, or for images of other channels.
    """
    try:
        saved = torch.load(path, weights_only=True)
        filled_channels = _channels(saved["weights"]) if channels == 1 else channels
        network = new_network(filled_channels, saved["widths"])
        network.load_state_dict(saved["weights"])
    except (KeyError, TypeError, RuntimeError, ValueError, UnpicklingError) as error:
        raise SparseConvValueError(
            f"weights: {path.name} holds no network for images of {channels} channels"
        ) from error
    return network
