"""Fill holes in depth: one network, trained at one density, tested at all others.

    python examples/complete_depth.py                     # minutes; --quick: under a minute
    python examples/complete_depth.py --scan 000000.bin   # test on a KITTI frame as well

Uhrig et al. 2017 claim that a network which normalises by what is valid keeps its error at
densities that it was not trained on, while a plain one does not, with or without the mask as an
additional channel. Three variants of one network are compared, twice:

* the Middlebury disparity map that comes with scikit-image, trained on its left half with 5 % of
  the samples, tested on the right half with 1, 5, 20 and 70 % (mean absolute error, pixels);
* range images of the (synthetic) scans in data/, trained with 20 % of the returns, tested on other
  scans with 5 to 50 % (mean absolute error, metres).

Mean and standard deviation over the seeds are printed, and plotted to out/complete_depth.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import skimage.data
import torch
from torch import Tensor, nn
from tqdm import tqdm

import sparseconv as sc

mpl.use("Agg")

DATA = Path(__file__).resolve().parents[1] / "data"
BEAMS, COLUMNS = 64, 512
VARIANTS = ("partial", "zero-filled", "mask as channel")
WIDTH, KERNELS = 16, (11, 7, 5, 3, 3)  # the kernels of Uhrig et al.


Errors = dict[str, np.ndarray]  # by variant: [seeds, densities]


class Depth(NamedTuple):
    """A depth image [1, 1, H, W] and where it is known."""

    image: Tensor
    known: Tensor


class Task(NamedTuple):
    """What to train on, what to test on by name, and at which densities."""

    name: str
    unit: str
    train: list[Depth]
    tests: dict[str, list[Depth]]
    density: float
    densities: tuple[float, ...]


class Completion(nn.Module):
    """Convolutions at full resolution and a pointwise last one, after Uhrig et al."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        channels = [2 if variant == "mask as channel" else 1] + [WIDTH] * len(KERNELS)
        layers: list[nn.Module] = []
        for c_in, c_out, size in zip(channels, channels[1:], KERNELS, strict=False):
            layer = sc.nn.PartialConv2d if variant == "partial" else nn.Conv2d
            layers.append(layer(c_in, c_out, size, padding=size // 2))
            nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(WIDTH, 1, 1)
        self.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return a depth for every pixel of [B, 1, H, W]."""
        x = torch.where(mask, image, 0.0)
        if self.variant == "mask as channel":
            x = torch.cat([x, mask.to(x.dtype)], dim=1)
        for layer in self.layers:
            if self.variant == "partial":
                x, mask = layer(x, mask)
            else:
                x = layer(x)
            x = x.relu()
        return self.last(x)


def disparity() -> Task:
    """Return the Middlebury task, in pixels."""
    values = np.array(skimage.data.stereo_motorcycle()[2], dtype=np.float32)
    image = torch.from_numpy(values)[None, None]
    known = image.isfinite() & (image > 0)
    middle = image.shape[3] // 2
    left, right = (
        Depth(image[..., part].contiguous(), known[..., part].contiguous())
        for part in (slice(None, middle), slice(middle, None))
    )
    return Task("disparity", "px", [left], {"right half": [right]}, 0.05, (0.01, 0.05, 0.2, 0.7))


def range_image(path: Path) -> Depth:
    """Return a scan as an image of ranges in metres: a row per beam, a column per azimuth."""
    xyz = sc.io.read_points(path).xyz.astype(np.float64)
    xyz = xyz[np.isfinite(xyz).all(axis=1) & (xyz != 0).any(axis=1)]  # (0, 0, 0): no echo
    distance = np.linalg.norm(xyz, axis=1)
    turn = np.arctan2(xyz[:, 1], xyz[:, 0]) / (2 * np.pi) % 1
    elevation = np.degrees(np.arcsin(xyz[:, 2] / distance))
    rows = np.clip((2.5 - elevation) / (2.5 + 25.3) * BEAMS, 0, BEAMS - 1).astype(int)
    columns = np.minimum((turn * COLUMNS).astype(int), COLUMNS - 1)
    image = np.full((BEAMS, COLUMNS), np.inf, dtype=np.float32)
    np.minimum.at(image, (rows, columns), distance.astype(np.float32))  # the nearest return
    tensor = torch.from_numpy(image)[None, None]
    return Depth(tensor, tensor.isfinite())


def lidar(scans: list[Path]) -> Task:
    """Return the task on the scans in data/, tested on ``scans`` as well."""
    train, test = (
        [range_image(path) for path in sorted((DATA / split).glob("*.npz"))]
        for split in ("train", "test")
    )
    tests = {"data/test": test, **{path.name: [range_image(path)] for path in scans}}
    return Task("lidar", "m", train, tests, 0.2, (0.05, 0.1, 0.2, 0.35, 0.5))


def batches(task: Task, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield crops: image, where it is known, and the share of that which is shown."""
    size, count = 64, 8

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    while True:
        parts = []
        for _ in range(count):
            image, known = task.train[below(len(task.train))]
            top, left = (below(n - size + 1) for n in image.shape[2:])
            window = (..., slice(top, top + size), slice(left, left + size))
            parts.append((image[window], known[window]))
        images, known = (torch.cat(side) for side in zip(*parts, strict=True))
        kept = torch.rand(known.shape, generator=generator) < task.density
        yield images, known, known & kept


def trained(task: Task, variant: str, steps: int, seed: int = 0) -> tuple[Completion, float]:
    """Return a network and the scale on which it sees depths."""
    torch.manual_seed(seed)
    scale = float(torch.cat([image[known] for image, known in task.train]).std())
    network = Completion(variant)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, max(steps, 2), pct_start=0.1)
    source = batches(task, torch.Generator().manual_seed(1 + seed))
    for _ in tqdm(range(steps), desc=f"{task.name}, {variant}"):
        image, known, shown = next(source)
        error = torch.where(known, network(image / scale, shown) - image / scale, 0.0)
        loss = error.abs().sum() / known.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network, scale


def error_at(network: Completion, scale: float, tested: list[Depth], density: float) -> float:
    """Return the mean absolute error over the known pixels that the network was not shown."""
    generator = torch.Generator().manual_seed(2)
    total, count = 0.0, 0
    with torch.no_grad():
        for image, known in tested:
            shown = known & (torch.rand(known.shape, generator=generator) < density)
            asked = known & ~shown
            filled = network(torch.where(shown, image, 0.0) / scale, shown) * scale
            total += float((filled[asked] - image[asked]).abs().sum())
            count += int(asked.sum())
    return total / max(count, 1)


def compare(task: Task, steps: int, seeds: int) -> dict[str, Errors]:
    """Train every variant, and print and return its errors at every density, per test."""
    networks = {
        variant: [trained(task, variant, steps, seed) for seed in range(seeds)]
        for variant in VARIANTS
    }
    results: dict[str, Errors] = {}
    for name, tested in task.tests.items():
        head = f"{task.name}, {name}, trained at {task.density:.0%}, error in {task.unit}"
        print(f"{head:56}" + "".join(f"{density:>15.0%}" for density in task.densities))
        errors: Errors = {}
        for variant, trainings in networks.items():
            found = np.array(
                [[error_at(*pair, tested, share) for share in task.densities] for pair in trainings]
            )
            cells = zip(found.mean(0), found.std(0), strict=True)
            errors[variant] = found
            print(f"{variant:56}" + "".join(f"{mean:8.2f} +- {std:3.1f}" for mean, std in cells))
        results[name] = errors
    return results


def draw(results: list[tuple[Task, str, Errors]], path: Path) -> None:
    """Plot error over density, a panel per test."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    figure, axes = plt.subplots(1, len(results), figsize=(5 * len(results), 3.6), squeeze=False)
    for place, (task, name, errors) in zip(axes[0], results, strict=True):
        for variant, values in errors.items():
            means, spread = values.mean(0), values.std(0)
            place.errorbar(task.densities, means, spread, marker="o", capsize=3, label=variant)
        place.axvline(task.density, color="0.6", linestyle=":", label="trained here")
        place.set(xscale="log", xlabel="share of samples shown", title=f"{task.name}, {name}")
        place.set_xticks(task.densities, [f"{density:.0%}" for density in task.densities])
        place.set_xticks([], minor=True)
        place.set_ylabel(f"mean absolute error ({task.unit})")
        place.set_ylim(bottom=0)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Compare the variants on both tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, help="of training (default 800, --quick 20)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (--quick 1)")
    parser.add_argument(
        "--scan", type=Path, nargs="+", default=[], help="scans to test on, such as a KITTI .bin"
    )
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    options = parser.parse_args()
    options.output = options.output or Path("out/quick" if options.quick else "out")
    steps = options.steps or (20 if options.quick else 800)
    options.output.mkdir(parents=True, exist_ok=True)
    results = [
        (task, name, errors)
        for task in (disparity(), lidar(options.scan))
        for name, errors in compare(task, steps, 1 if options.quick else options.seeds).items()
    ]
    path = options.output / "complete_depth.png"
    draw(results, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
