"""``sparseconv inpaint``: fill the holes of one image file."""

from __future__ import annotations

import argparse
import importlib.util
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
from sparseconv.inpaint.methods import METHODS, Method, by_tiles, dilated, judged, tiles
from sparseconv.models import PartialUNet

CROP, BATCH, SMALLEST = 64, 8, 8
NETWORK = "network"


def add_inpaint(commands: Any) -> None:
    """Add the command's arguments to the parser's commands."""
    parser = commands.add_parser(
        "inpaint",
        help="fill the holes of an image",
        description="Fill the holes of an image. Which method when: telea (OpenCV) for scratches, "
        "lines and small holes in photographs, in a fraction of a second; biharmonic "
        "(scikit-image) for smooth pictures such as heights, slow for large holes; average (needs "
        "nothing) for a quick look and for large holes; network for textures and repeated "
        "patterns, in half a minute: it is trained on this image and used only where it fills "
        "valid pixels of this image that it has not seen better than the others. Transparent "
        "pixels are holes.",
        epilog="example: sparseconv inpaint photo.jpg --mask scratches.png --method telea "
        "-o restored.jpg",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="what has holes")
    holes = parser.add_mutually_exclusive_group()
    holes.add_argument("--mask", type=Path, help="image that is bright where IMAGE is missing")
    holes.add_argument(
        "--random-mask", type=float, metavar="SHARE", help="hide this share (0 to 1) by strokes"
    )
    holes.add_argument("--mask-color", metavar="COLOR", help="fill what is white, #ff00ff, ...")
    parser.add_argument("--dilate", type=int, default=0, help="enlarge holes by pixels (0)")
    parser.add_argument("--method", choices=(*METHODS, NETWORK), help="see above (average)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="file to write"
    )
    parser.add_argument("--truth", type=Path, help="the image without holes, to compare with")
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--fit",
        action="store_true",
        help="train on the valid pixels of IMAGE, and nothing else; use it in any case",
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
    if (options.fit or options.method == NETWORK) and min(size) < SMALLEST:
        raise SparseConvValueError(
            f"image: --fit needs {SMALLEST} x {SMALLEST} pixels or more, got {size[0]} x {size[1]}"
        )
    mask = dilated(_mask(options, size, generator), options.dilate)
    truth = image if options.random_mask is not None else None
    truth = truth if options.truth is None else images.read_image(options.truth)
    if truth is not None and truth.shape != image.shape:
        raise SparseConvValueError(
            f"truth: has shape {tuple(truth.shape[1:])}, the image {tuple(image.shape[1:])}"
        )
    mask = mask & image.isfinite().all(dim=1, keepdim=True)
    if not bool(mask.any()):
        raise SparseConvValueError("mask: nothing of the image is valid")
    low, span = _range(image, mask)  # floats have a range of their own
    image = (image - low) / span
    method = _method(options, image, mask, generator)
    filled = _whole(method, image, mask)
    images.write_image(options.output, filled * span + low, options.image)
    hole = ~mask
    say(f"filled {100 * float(hole.float().mean()):.1f} % of {options.image.name}")
    if truth is not None and bool(hole.any()):
        truth = (truth - low) / span
        scores = f"PSNR {images.psnr(filled, truth, hole):.2f} dB"
        if min(size) >= images.SSIM_WINDOW:
            scores += f", SSIM {images.ssim(filled, truth, hole):.4f}"
        say(f"inside the holes: {scores}")


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(text + "\n")


def _range(image: Tensor, mask: Tensor) -> tuple[float, float]:
    """Return the lowest valid value and the span, 0 and 1 where these hold all of them."""
    valid = image[mask.expand_as(image)]
    low, high = float(valid.min()), float(valid.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high - low, 1e-12))


def _method(
    options: argparse.Namespace, image: Tensor, mask: Tensor, generator: torch.Generator
) -> Method:
    """Return the method that the options ask for, or the best one where they ask for a network."""
    network = _network(options, image, mask, generator)

    def trained(part: Tensor, valid: Tensor) -> Tensor:
        return _filled(network, part, valid)

    if options.method != NETWORK:
        return METHODS[options.method or "average"] if network is None else trained
    rivals: dict[str, Method] = {"average": METHODS["average"]}
    if importlib.util.find_spec("cv2") is not None:
        rivals["telea"] = METHODS["telea"]
    scores = judged({**rivals, NETWORK: trained}, image, mask, options.seed)
    if not scores:
        return trained
    best = max(scores, key=lambda name: scores[name])
    words = ", ".join(f"{name} {score:.2f} dB" for name, score in scores.items())
    say(f"valid pixels held out: {words}; using {best}")
    return trained if best == NETWORK else rivals[best]


def _whole(method: Method, image: Tensor, mask: Tensor) -> Tensor:
    """Return the filled image; a large one is filled by tiles, and says how far it is."""
    filled = torch.where(mask, image, 0.0)
    count = len(tiles(mask))
    parts = by_tiles(method, image, mask)
    if count > 1:
        parts = images.needed("tqdm", "tqdm").tqdm(parts, total=count, desc="fill", unit="tile")
    for part in parts:
        filled = part
    return filled


def _mask(options: argparse.Namespace, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return bool ``[1, 1, H, W]``, False in the holes that the options or transparency say."""
    opaque = images.read_alpha(options.image)
    if options.mask is not None:
        mask = images.read_mask(options.mask, size)
    elif options.random_mask is not None:
        mask = irregular_mask(*size, options.random_mask, generator)
    elif options.mask_color is not None:
        mask = images.color_mask(options.image, options.mask_color)
    elif opaque is None:
        raise SparseConvValueError(
            "mask: give --mask, --mask-color or --random-mask, "
            f"{options.image.name} has no transparent pixels"
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
    if not options.fit and options.method != NETWORK:
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
