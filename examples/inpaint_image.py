"""Fill holes in photographs: partial convolution against zero-filling and three classics.

    python examples/inpaint_image.py             # under 10 minutes on two free cores
    python examples/inpaint_image.py --quick     # under a minute, and far from trained
    python examples/inpaint_image.py --targets   # all the time for one network, as good as it gets

Networks learn from crops of images that come with scikit-image (nothing is downloaded): one of
partial convolutions, and the same one of plain convolutions, which sees its holes as zeros. Both
begin with the same weights and see the same crops. They do so twice: unaided, and to correct a
first guess by averages of the valid pixels. On images that none has seen the script prints PSNR
and SSIM inside the holes for 10 to 60 % of the pixels under irregular strokes, next to that first
guess, biharmonic inpainting and OpenCV's Telea and Navier-Stokes, and draws a sheet of the results.

With --targets all the time goes into the partial network on a first guess, and the PSNR of whole
images is printed that lack 50, 80, 95 % of their pixels at random, or 12 blocks of 24 pixels. Both
keep that network for `sparseconv inpaint --weights`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import skimage.data
import torch
from skimage.restoration import inpaint_biharmonic
from skimage.transform import resize
from sklearn.datasets import load_sample_image
from torch import Tensor
from tqdm import tqdm

from sparseconv.inpaint import images
from sparseconv.inpaint.command import save_network
from sparseconv.inpaint.fill import (
    WIDTHS,
    Filler,
    Sample,
    corrected,
    crops,
    fill,
    new_network,
    train,
    unaided,
)
from sparseconv.inpaint.masks import block_mask, irregular_mask, scattered_mask, varied_holes
from sparseconv.models import PartialUNet

mpl.use("Agg")

# how often a picture is chosen; the photographs most often
TRAINED_ON = {
    "chelsea": 3, "coffee": 3, "rocket": 3, "stereo_motorcycle": 3, "coins": 2, "brick": 1,
    "clock": 1, "grass": 1, "gravel": 1, "hubble_deep_field": 1, "immunohistochemistry": 1,
    "moon": 1, "retina": 1, "page": 0.5, "text": 0.5,
}  # fmt: skip
SCALES = (128, 192, 256, 384)  # shorter sides, in pixels, that they are seen at
HELD_OUT = ("camera", "astronaut", "china")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SCATTERED, BLOCKS, BLOCK = (0.5, 0.8, 0.95), 12, 24
SIZE, CROP, BATCH = 256, 64, 16
STEPS, QUICK_STEPS, TARGET_STEPS = 800, 12, 4500

SHOWN = ("plain, unaided", "partial, unaided", "partial, on a first guess", "biharmonic")
ZOOM = (96, 160)  # rows and columns of the magnified part

Method = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, list[tuple[float, float]]]


class Row(NamedTuple):
    """A row of the sheet: an image, its hole, and by method what fills it and how well (dB)."""

    share: float
    truth: Tensor
    hole: Tensor
    filled: dict[str, tuple[Tensor, float]]


@functools.cache
def photograph(name: str, side: int = SIZE) -> Tensor:
    """Return a bundled image as [1, 3, H, W], its shorter side `side` pixels, never enlarged."""
    values = load_sample_image(f"{name}.jpg") if name == "china" else getattr(skimage.data, name)()
    values = values[0] if isinstance(values, tuple) else values  # the left one of a stereo pair
    values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]
    scale = min(side / min(values.shape[:2]), 1)
    shape = [round(scale * length) for length in values.shape[:2]]
    return images.as_tensor(resize(values, shape, anti_aliasing=True))


def samples(seed: int) -> Iterator[Sample]:
    """Yield batches of crops, each from an image and a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    holes = varied_holes(CROP, generator)
    sources, often = [], []
    for name, weight in TRAINED_ON.items():
        for side in SCALES:
            picture = photograph(name, side)
            known = torch.ones(1, 1, *picture.shape[2:], dtype=torch.bool)
            sources.append(crops(picture, known, CROP, 1, generator, holes))
            often.append(weight)
    while True:
        chosen = torch.multinomial(torch.tensor(often), BATCH, True, generator=generator)
        parts = [next(sources[number]) for number in chosen.tolist()]
        image, known, shown = (torch.cat(part) for part in zip(*parts, strict=True))
        yield Sample(recoloured(image, generator), known, shown)


def recoloured(image: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, the channels of some exchanged, others grey."""
    order = torch.randperm(3, generator=generator)
    kind = torch.rand(len(image), 1, 1, 1, generator=generator)
    grey = image.mean(dim=1, keepdim=True).expand_as(image)
    return torch.where(kind < 0.15, grey, torch.where(kind < 0.45, image[:, order], image))


def trained(normalize: str, steps: int, filler: Filler) -> PartialUNet:
    """Return a network trained from the same seed, on the same crops, for so many steps."""
    torch.manual_seed(0)
    network = new_network(3, normalize=normalize, filler=filler)
    with tqdm(total=steps, desc=f"training, {filler.__name__}, {normalize}") as bar:

        def show(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.5f}")

        return train(network, samples(1), steps, progress=show, filler=filler)


def with_network(network: PartialUNet | None, filler: Filler = corrected) -> Method:
    """Return the method that fills by a network, or leaves it at the first guess."""
    return lambda image, mask: fill(network, image, mask, filler)


def biharmonic(image: Tensor, mask: Tensor) -> Tensor:
    """Return scikit-image's biharmonic inpainting."""
    hole = ~mask[0, 0].numpy()
    return images.as_tensor(inpaint_biharmonic(images.as_array(image), hole, channel_axis=-1))


def opencv(method: int) -> Method:
    """Return one of OpenCV's two methods, with the radius of its documentation."""

    def inpaint(image: Tensor, mask: Tensor) -> Tensor:
        picture = np.round(images.as_array(image) * 255).astype(np.uint8)
        hole = (~mask[0, 0]).numpy().astype(np.uint8)
        return images.as_tensor(cv2.inpaint(picture, hole, 3, method) / 255)

    return inpaint


def compare(
    methods: dict[str, Method], names: tuple[str, ...], shares: tuple[float, ...]
) -> tuple[Scores, list[Row]]:
    """Return the mean scores per method and hole share, and one row of pictures per share."""
    scores: Scores = {name: [] for name in methods}
    rows = []
    for number, share in enumerate(shares):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        for place, name in enumerate(names):
            truth = photograph(name)[..., :SIZE, :SIZE]
            generator = torch.Generator().manual_seed(100 * number + place)
            mask = irregular_mask(SIZE, SIZE, share, generator)
            filled = {method: filling(run, truth, mask) for method, run in methods.items()}
            for method, picture in filled.items():
                inside = (picture, truth, ~mask)
                found[method].append((images.psnr(*inside), images.ssim(*inside)))
            if place == number % len(names):
                shown = {
                    name: (filled[name], images.psnr(filled[name], truth, ~mask)) for name in SHOWN
                }
                rows.append(Row(share, truth, torch.where(mask, truth, 1.0), shown))
        for method, values in found.items():
            ratio, similarity = np.mean(values, axis=0).tolist()
            scores[method].append((ratio, similarity))
    return scores, rows


def filling(run: Method, truth: Tensor, mask: Tensor) -> Tensor:
    """Return what a method makes of an image, of which it sees the valid part."""
    return torch.where(mask, truth, run(torch.where(mask, truth, 0.0), mask).clamp(0, 1))


def print_targets(methods: dict[str, Method], names: tuple[str, ...]) -> None:
    """Print the PSNR over whole images that lack random pixels, or blocks."""
    heads = [f"{share:.0%}" for share in SCATTERED] + ["blocks"]
    print(f"\n{'PSNR (dB) of whole images':28}" + "".join(f"{name:>28}" for name in names))
    print(f"{'random pixels, or blocks':28}" + "".join(f"{head:>7}" for head in heads * len(names)))
    scores: dict[str, list[float]] = {method: [] for method in methods}
    for number, name in enumerate(names):
        truth = photograph(name)[..., :SIZE, :SIZE]
        generator = torch.Generator().manual_seed(number)
        masks = [scattered_mask(SIZE, SIZE, share, generator) for share in SCATTERED]
        for mask in [*masks, block_mask(SIZE, SIZE, BLOCKS, BLOCK, generator)]:
            for method, run in methods.items():
                filled = filling(run, truth, mask)
                scores[method].append(images.psnr(filled, truth, torch.ones_like(mask)))
    for method, values in scores.items():
        print(f"{method:28}" + "".join(f"{value:7.2f}" for value in values))


def print_table(scores: Scores, shares: tuple[float, ...]) -> None:
    """Print PSNR / SSIM, one row per method."""
    print(f"{'PSNR (dB) / SSIM in holes':28}" + "".join(f"{share:>14.0%}" for share in shares))
    for method, values in scores.items():
        print(f"{method:28}" + "".join(f"{a:8.2f} {b:5.3f}" for a, b in values))


def draw(rows: list[Row], path: Path) -> None:
    """Write the contact sheet: a row per hole share, a column per method, a zoom into each."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    titles = ["image", "hole", *SHOWN]
    size = (2.1 * len(titles), 2.3 * len(rows))
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=size, layout="constrained", squeeze=False
    )
    for row, line in zip(rows, axes, strict=True):
        shown = [row.truth, row.hole, *(picture for picture, _ in row.filled.values())]
        words = ["", "", *(f"{ratio:.1f} dB" for _, ratio in row.filled.values())]
        for picture, word, place in zip(shown, words, line, strict=True):
            pixels = images.as_array(picture).clip(0, 1)
            place.imshow(pixels)
            place.set(xticks=[], yticks=[])
            place.set_xlabel(word, fontsize=9)
            zoom = place.inset_axes(
                (0.52, 0.02, 0.46, 0.46), xlim=ZOOM, ylim=ZOOM[::-1], xticks=[], yticks=[]
            )
            zoom.imshow(pixels)
            place.indicate_inset_zoom(zoom, edgecolor="#ffcc00", alpha=1)
        line[0].set_ylabel(f"{row.share:.0%} missing", fontsize=9)
    for title, place in zip(titles, axes[0], strict=True):
        place.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def classics() -> dict[str, Method]:
    """Return the methods that learn nothing."""
    return {
        "first guess (averages)": with_network(None),
        "biharmonic": biharmonic,
        "Telea": opencv(cv2.INPAINT_TELEA),
        "Navier-Stokes": opencv(cv2.INPAINT_NS),
    }


def main() -> None:
    """Train the networks, compare, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--targets",
        action="store_true",
        help="train the network on a first guess alone, for longer, and print the second table",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"of each training (default {STEPS}, --quick {QUICK_STEPS}, --targets {TARGET_STEPS})",
    )
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    options = parser.parse_args()
    options.output = options.output or Path("out/quick" if options.quick else "out")
    steps = QUICK_STEPS if options.quick else TARGET_STEPS if options.targets else STEPS
    steps = options.steps or steps
    shares = (0.1, 0.3, 0.6) if options.quick else SHARES
    names = HELD_OUT[:1] if options.quick else HELD_OUT
    options.output.mkdir(parents=True, exist_ok=True)
    network = trained("ratio", steps, corrected)
    weights = options.output / "inpaint_image.pt"
    save_network(weights, network, WIDTHS)
    best = {"partial, on a first guess": with_network(network)}
    if options.targets:
        print_targets(best | classics(), names)
        print(f"wrote {weights}")
        return
    methods = {
        f"{name}, unaided": with_network(trained(kind, steps, unaided), unaided)
        for name, kind in (("partial", "ratio"), ("plain", "none"))
    }
    methods |= best
    methods["plain, on a first guess"] = with_network(trained("none", steps, corrected))
    methods |= classics()
    scores, rows = compare(methods, names, shares)
    print_table(scores, shares)
    sheet = options.output / "inpaint_image.png"
    draw([rows[0], rows[len(rows) // 2], rows[-1]], sheet)
    print(f"wrote {sheet} and {weights}")


if __name__ == "__main__":
    main()
