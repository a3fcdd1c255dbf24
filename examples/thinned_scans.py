"""Label thinned scans: a sparse U-Net of partial convolutions against one of plain ones.

    python examples/thinned_scans.py              # some minutes on two cores
    python examples/thinned_scans.py --quick      # some seconds, and far from trained

Both networks have the same weights at the start and learn from the same (synthetic) street scans
in data/, with all of their points. They are then tested on streets that they have not seen, thinned
to a share of their points: the mean intersection over union of six classes, over the points kept.
Mean and standard deviation over the seeds are printed, and plotted to out/thinned_scans.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import sparseconv as sc
from sparseconv.models import UNet

mpl.use("Agg")

DATA = Path(__file__).resolve().parents[1] / "data"
CLASSES, VOXEL, WIDTHS = 6, 0.3, (16, 32, 48, 64)
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05)


class Scan(NamedTuple):
    """Points [N, 3], features [N, 2] (intensity, height) and labels [N]."""

    xyz: Tensor
    features: Tensor
    labels: Tensor


def read(split: str) -> list[Scan]:
    """Return the scans of a split."""
    scans = []
    for path in sorted((DATA / split).glob("*.npz")):
        points = sc.io.read_points(path)
        xyz = torch.from_numpy(points.xyz)
        features = torch.cat([torch.from_numpy(points.features), xyz[:, 2:] / 2], dim=1)
        scans.append(Scan(xyz, features, torch.from_numpy(points.labels)))
    return scans


def thinned(scan: Scan, share: float, generator: torch.Generator) -> Scan:
    """Return a random share of the points."""
    kept = torch.rand(len(scan.xyz), generator=generator) < share
    return Scan(*(part[kept] for part in scan))


def scores(network: UNet, scan: Scan) -> Tensor:
    """Return one score per class and point, [N, CLASSES]."""
    x, to_points = sc.voxelize(scan.xyz, VOXEL, features=scan.features)
    return to_points(network(x))


def trained(partial: bool, scans: list[Scan], steps: int, seed: int) -> UNet:
    """Train on one whole scan a step, mirrored and turned at random."""
    torch.manual_seed(seed)
    network = UNet(2, CLASSES, WIDTHS, partial=partial)
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=max(steps, 2))
    generator = torch.Generator().manual_seed(100 + seed)
    counts = torch.cat([scan.labels for scan in scans]).bincount(minlength=CLASSES)
    weight = (counts / counts.sum()).rsqrt()
    for _ in tqdm(range(steps), desc="partial" if partial else "plain"):
        number = int(torch.randint(len(scans), (), generator=generator))
        turn = float(torch.rand((), generator=generator)) * 2 * np.pi
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        mirror = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
        motion = torch.tensor([[cos, sin, 0], [-mirror * sin, mirror * cos, 0], [0, 0, 1]])
        scan = scans[number]._replace(xyz=scans[number].xyz @ motion.float())
        loss = torch.nn.functional.cross_entropy(scores(network, scan), scan.labels, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def mean_iou(network: UNet, scans: list[Scan], share: float) -> float:
    """Return the mean intersection over union in percent, over the points that are kept."""
    generator = torch.Generator().manual_seed(2)
    table = torch.zeros(CLASSES, CLASSES)
    with torch.no_grad():
        for scan in scans:
            kept = thinned(scan, share, generator)
            found = scores(network, kept).argmax(dim=1)
            pairs = (kept.labels * CLASSES + found).bincount(minlength=CLASSES**2)
            table += pairs.reshape(CLASSES, CLASSES)
    union = table.sum(0) + table.sum(1) - table.diag()
    return 100 * float((table.diag() / union.clamp(min=1)).mean())


def draw(results: dict[str, np.ndarray], path: Path) -> None:
    """Plot the scores ``[seeds, shares]`` over the share of points."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    figure, place = plt.subplots(figsize=(5, 3.6))
    for name, values in results.items():
        place.errorbar(SHARES, values.mean(0), values.std(0), marker="o", capsize=3, label=name)
    place.set(xscale="log", xlabel="share of points kept", ylabel="mean IoU (%)", ylim=(0, 100))
    place.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES])
    place.set_xticks([], minor=True)
    place.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train both networks and test them at every density."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, help="of training (default 150, --quick 4)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (--quick 1)")
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    options = parser.parse_args()
    options.output = options.output or Path("out/quick" if options.quick else "out")
    steps = options.steps or (4 if options.quick else 150)
    options.output.mkdir(parents=True, exist_ok=True)
    train, test = read("train"), read("test")
    results = {}
    for name, partial in (("partial convolution", True), ("plain convolution", False)):
        networks = [
            trained(partial, train, steps, seed)
            for seed in range(1 if options.quick else options.seeds)
        ]
        found = [[mean_iou(network, test, share) for share in SHARES] for network in networks]
        results[name] = np.array(found)
    print(f"{'mean IoU (%), points kept':28}" + "".join(f"{share:>14.0%}" for share in SHARES))
    for name, values in results.items():
        cells = zip(values.mean(0), values.std(0), strict=True)
        print(f"{name:28}" + "".join(f"{mean:7.1f} +- {spread:3.1f}" for mean, spread in cells))
    path = options.output / "thinned_scans.png"
    draw(results, path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
