"""Fill holes in photographs: partial convolution against zero-filling and three classics.

    python examples/inpaint_image.py             # under 10 minutes on two free cores
    python examples/inpaint_image.py --quick     # under a minute, and far from trained

Two networks learn from crops of images that come with scikit-image (nothing is downloaded): one of
partial convolutions, and the same one of plain convolutions, which sees its holes as zeros. Both
correct the same first guess. On images that neither has seen the script hides 10 to 60 % of the
pixels under irregular strokes and prints PSNR and SSIM inside the holes, next to that first guess,
biharmonic inpainting and OpenCV's Telea and Navier-Stokes. It draws a sheet of the results, and
keeps the network for `sparseconv inpaint --weights`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import skimage.data
import torch
from skimage.restoration import inpaint_biharmonic
from skimage.transform import resize
from torch import Tensor
from tqdm import tqdm

from sparseconv import images
from sparseconv.inpaint_command import save_network
from sparseconv.inpainting import WIDTHS, Sample, crops, fill, irregular_mask, new_network, train
from sparseconv.models import PartialUNet

mpl.use("Agg")

TRAINED_ON = (
    "chelsea", "rocket", "hubble_deep_field", "stereo_motorcycle", "brick", "grass", "gravel",
    "coins", "moon", "retina", "clock", "page", "text",
)  # fmt: skip
HELD_OUT = ("astronaut", "camera", "coffee")
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SIZE, CROP, BATCH = 256, 64, 8

Method = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, list[tuple[float, float]]]


def photograph(name: str) -> Tensor:
    """Return one of scikit-image's images as [1, 3, H, W], its shorter side SIZE pixels."""
    values = getattr(skimage.data, name)()
    values = values[0] if isinstance(values, tuple) else values  # the left one of a stereo pair
    values = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]
    scale = SIZE / min(values.shape[:2])
    shape = [round(scale * length) for length in values.shape[:2]]
    return images.as_tensor(resize(values, shape, anti_aliasing=True))


def samples(seed: int) -> Iterator[Sample]:
    """Yield batches of crops, half from one image and half from another."""
    generator = torch.Generator().manual_seed(seed)
    sources = []
    for name in TRAINED_ON:
        picture = photograph(name)
        known = torch.ones(1, 1, *picture.shape[2:], dtype=torch.bool)
        sources.append(crops(picture, known, CROP, BATCH // 2, generator))
    while True:
        chosen = torch.randint(len(sources), (2,), generator=generator).tolist()
        halves = [next(sources[number]) for number in chosen]
        yield Sample(*(torch.cat(parts) for parts in zip(*halves, strict=True)))


def trained(normalize: str, steps: int) -> PartialUNet:
    """Return a network trained from the same seed, on the same crops, for so many steps."""
    torch.manual_seed(0)
    network = new_network(3, normalize=normalize)
    with tqdm(total=steps, desc=f"training, {normalize}") as bar:

        def show(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.5f}")

        return train(network, samples(1), steps, 3e-3, show)


def with_network(network: PartialUNet | None) -> Method:
    """Return the method that corrects the first guess by a network, or leaves it at that."""
    return lambda image, mask: fill(network, image, mask)


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
) -> tuple[Scores, list[list[Tensor]]]:
    """Return the mean scores per method and hole share, and one row of pictures per share."""
    scores: Scores = {name: [] for name in methods}
    rows = []
    for number, share in enumerate(shares):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        for place, name in enumerate(names):
            truth = photograph(name)[..., :SIZE, :SIZE]
            generator = torch.Generator().manual_seed(100 * number + place)
            mask = irregular_mask(SIZE, SIZE, share, generator)
            seen = torch.where(mask, truth, 0.0)
            row = [truth, torch.where(mask, truth, 1.0)]
            for method, run in methods.items():
                filled = torch.where(mask, truth, run(seen, mask).clamp(0, 1))
                inside = (filled, truth, ~mask)
                found[method].append((images.psnr(*inside), images.ssim(*inside)))
                row.append(filled)
            if place == number % len(names):
                rows.append(row)
        for method, values in found.items():
            ratio, similarity = np.mean(values, axis=0).tolist()
            scores[method].append((ratio, similarity))
    return scores, rows


def print_table(scores: Scores, shares: tuple[float, ...]) -> None:
    """Print PSNR / SSIM, one row per method."""
    print(f"{'PSNR (dB) / SSIM in holes':28}" + "".join(f"{share:>14.0%}" for share in shares))
    for method, values in scores.items():
        print(f"{method:28}" + "".join(f"{a:8.2f} {b:5.3f}" for a, b in values))


def draw(rows: list[list[Tensor]], titles: list[str], path: Path) -> None:
    """Write the contact sheet: a row per hole share, a column per method."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    shape = (len(rows), len(titles))
    figure, axes = plt.subplots(*shape, figsize=(2 * shape[1], 2.1 * shape[0]), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for picture, place in zip(row, line, strict=True):
            place.imshow(images.as_array(picture).clip(0, 1))
            place.axis("off")
    for title, place in zip(titles, axes[0], strict=True):
        place.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train both networks, compare, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, help="of training (default 900, --quick 15)")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    steps = options.steps or (15 if options.quick else 900)
    shares = (0.1, 0.3, 0.6) if options.quick else SHARES
    names = HELD_OUT[:1] if options.quick else HELD_OUT
    options.output.mkdir(parents=True, exist_ok=True)
    network = trained("ratio", steps)
    methods = {
        "partial convolution": with_network(network),
        "plain, zero-filled": with_network(trained("none", steps)),
        "first guess (averages)": with_network(None),
        "biharmonic": biharmonic,
        "Telea": opencv(cv2.INPAINT_TELEA),
        "Navier-Stokes": opencv(cv2.INPAINT_NS),
    }
    scores, rows = compare(methods, names, shares)
    print_table(scores, shares)
    sheet = options.output / "inpaint_image.png"
    draw(rows, ["image", "hole", *methods], sheet)
    weights = options.output / "inpaint_image.pt"
    save_network(weights, network, WIDTHS)
    print(f"wrote {sheet} and {weights}")


if __name__ == "__main__":
    main()
