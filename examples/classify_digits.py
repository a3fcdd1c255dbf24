"""Read handwritten digits: LeNet-5 on all pixels and on ink alone, and a small sparse network.

    python examples/classify_digits.py [MNIST folder] [--quick]

LeNet-5 trains on batches of images and of their ink pixels in turns, so that one set of weights
reads both. InkNet never sees paper: its submanifold layers stay on the ink. Its dense twin runs the
same weights on all pixels and gives the same scores. Each figure is the mean over five splits of
scikit-learn's 1797 digits (80 % to train on, 20 % to judge), or of one training on MNIST, whose
four IDX files you bring yourself. Takes about a minute a split, and two seconds with --quick.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from digits import Digits, bundled, ink, jittered, mnist
from matplotlib import pyplot as plt
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import LeNet5

Prepare = Callable[[Tensor], Tensor]


@dataclass
class Settings:
    """What a run can be told."""

    epochs: int = 30
    seeds: int = 5
    batch: int = 64
    rate: float = 0.004
    images: int | None = None  # of the training part; all where None


QUICK = Settings(epochs=1, seeds=1, images=256)


class InkNet(nn.Sequential):
    """Submanifold convolutions on the ink, with strided ones between, down to one site.

    Takes a SparseTensor ``[B, 1, 32, 32]``; returns scores ``[B, 10]``. No layer has a bias where
    batch normalisation follows.
    """

    def __init__(self) -> None:
        def block(convolution: nn.Module) -> list[nn.Module]:
            return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]

        super().__init__(
            *block(sc.nn.SubmConv2d(1, 16, 5, bias=False)),
            *block(nn.Conv2d(16, 32, 2, stride=2, bias=False)),
            *block(sc.nn.SubmConv2d(32, 32, 3, bias=False)),
            *block(nn.Conv2d(32, 64, 2, stride=2, bias=False)),
            *block(sc.nn.SubmConv2d(64, 64, 3, bias=False)),
            *block(nn.Conv2d(64, 64, 2, stride=2, bias=False)),
            *block(nn.Conv2d(64, 128, 4, bias=False)),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(128, 10),
        )


def dense_twin(network: InkNet, x: sc.SparseTensor) -> Tensor:
    """Return what the network's weights give on the dense image, with the mask of the sites.

    After each convolution the mask puts back to 0 what is not active.
    """
    t, mask = x.dense(), x.mask().to(x.dtype)
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            mask = F.conv2d(
                mask, torch.ones(1, 1, *layer.kernel_size).to(x.dtype), stride=layer.stride
            )
            mask = (mask > 0).to(x.dtype)
        t = layer(t)
        if t.ndim == mask.ndim:
            t = t * mask
    return t


def flops(network: nn.Module, x: Tensor) -> float:
    """Return the multiplications and additions of all products, millions an image."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += 2 * layer.weight.numel() * len(output)
        if not hasattr(layer, "kernel_size") or not hasattr(layer, "weight"):
            return
        # every pair of an active input and an active output site that the kernel joins
        sparse = isinstance(output, sc.SparseTensor)
        source = inputs[0].mask().float() if sparse else torch.ones_like(inputs[0][:, :1])
        kernel = torch.ones(1, 1, *layer.kernel_size)
        padding = [n // 2 if output.shape[-1] == inputs[0].shape[-1] else 0
                   for n in layer.kernel_size]  # fmt: skip
        pairs = F.conv2d(source, kernel, stride=layer.stride, padding=padding)
        pairs = pairs * output.mask() if sparse else pairs
        total += 2 * pairs.sum().item() * layer.weight[..., 0, 0].numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules()]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return total / len(x) / 1e6


def train(network: nn.Module, ways: list[Prepare], data: Digits, settings: Settings) -> float:
    """Train on jittered images, prepared in each of the ``ways`` in turns; return the seconds."""
    start, size = time.perf_counter(), settings.batch
    generator = torch.Generator().manual_seed(torch.initial_seed())
    steps = settings.epochs * (len(data.labels) // size)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, steps + 1)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < size:
            order = torch.randperm(len(data.labels), generator=generator)
        rows, order = order[:size], order[size:]
        images = jittered(data.images[rows], generator)
        loss = F.cross_entropy(network(ways[step % len(ways)](images)), data.labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return time.perf_counter() - start


def judge(network: nn.Module, prepare: Prepare, data: Digits) -> dict[str, float]:
    """Return accuracy in percent, milliseconds and millions of FLOPs an image."""
    right, seconds = 0, 0.0
    for images, labels in zip(data.images.split(360), data.labels.split(360), strict=True):
        start = time.perf_counter()
        with torch.no_grad():
            scores = network(prepare(images))
        seconds += time.perf_counter() - start
        right += int((scores.argmax(1) == labels).sum())
    count = len(data.labels)
    work = flops(network, prepare(data.images[:360]))
    return {"accuracy": 100 * right / count, "ms": 1e3 * seconds / count, "MFLOPs": work}


def whole(images: Tensor) -> Tensor:
    """Return the images as they are."""
    return images


def one_run(
    seed: int, data: tuple[Digits, Digits], settings: Settings
) -> tuple[dict[str, dict], LeNet5, InkNet]:
    """Train both networks and return what each is worth, by name, and the networks."""
    known, unseen = data
    known = known[: settings.images]
    torch.manual_seed(seed)
    lenet, small = LeNet5(), InkNet()
    lenet_seconds = train(lenet, [whole, ink], known, settings)
    small_seconds = train(small, [ink], known, settings)
    rows = {
        "LeNet-5, all pixels": judge(lenet, whole, unseen),
        "LeNet-5, ink alone": judge(lenet, ink, unseen),
        "InkNet, ink alone": judge(small, ink, unseen),
    }
    for name, row in rows.items():
        row["training s"] = small_seconds if name.startswith("InkNet") else lenet_seconds
    x = ink(unseen.images[:360])
    with torch.no_grad():
        rows["InkNet, ink alone"]["from dense twin"] = float(
            (small(x) - dense_twin(small, x)).abs().max()
        )
    return rows, lenet, small


def show(runs: list[dict[str, dict]], density: float) -> dict[str, dict]:
    """Print the table of means and return it."""
    means = {
        name: {key: statistics.fmean(run[name][key] for run in runs) for key in runs[0][name]}
        for name in runs[0]
    }
    print(f"\n{len(runs)} split(s); {100 * density:.0f} % of the pixels are ink\n")
    print(f"{'':<22}{'accuracy':>10}{'ms/image':>10}{'MFLOPs':>9}{'training':>11}")
    for name, row in means.items():
        print(f"{name:<22}{row['accuracy']:>8.2f} %{row['ms']:>10.3f}{row['MFLOPs']:>9.2f}", end="")
        print(f"{row['training s']:>9.1f} s")
    gap = means["InkNet, ink alone"]["from dense twin"]
    print(f"\nInkNet's scores differ from its dense twin's by at most {gap:.1e}")
    return means


def draw(path: Path, data: Digits, lenet: LeNet5, small: InkNet, count: int = 8) -> None:
    """Write digits as both networks see them and what each reads; those misread come first.

    Args:
        path: the PNG.
        data: digits that neither network has seen.
        lenet: reads all pixels.
        small: reads ink alone.
        count: number of columns; a half of them at most is misread.
    """
    with torch.no_grad():
        read = torch.stack([net(way(data.images)).argmax(1)
                            for net, way in ((lenet, whole), (small, ink))])  # fmt: skip
    wrong = (read != data.labels).any(dim=0)
    shown = torch.cat([torch.nonzero(wrong)[: count // 2, 0], torch.nonzero(~wrong)[:, 0]])[:count]
    kept = ink(data.images[shown])
    pictures = data.images[shown], kept.dense(fill=float("nan"))
    figure, panels = plt.subplots(2, count, figsize=(8.6, 3.2), layout="constrained")
    for column, digit in enumerate(shown.tolist()):
        sites = int((kept.coords[:, 0] == column).sum())
        for row, axes in enumerate(panels[:, column]):
            axes.imshow(pictures[row][column, 0], cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[], facecolor="#cfe3f5")
            found, truth = int(read[row, digit]), int(data.labels[digit])
            words = f"reads {found}" if found == truth else f"reads {found}, is {truth}"
            axes.set_title(words, fontsize=8, color="black" if found == truth else "#cc0000")
        panels[0, column].set_xlabel(f"{pictures[0][column].numel():,} pixels", fontsize=7)
        panels[1, column].set_xlabel(f"{sites} sites", fontsize=7)
    panels[0, 0].set_ylabel("LeNet-5, all pixels", fontsize=8)
    panels[1, 0].set_ylabel("InkNet, ink alone", fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Read the command line, train, judge, write and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mnist", nargs="?", type=Path, help="folder with MNIST's four IDX files")
    parser.add_argument("--quick", action="store_true", help="see that it runs; learns little")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, help="number of splits")
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    arguments = parser.parse_args()
    arguments.output = arguments.output or Path("out/quick" if arguments.quick else "out")
    settings = QUICK if arguments.quick else Settings()
    settings.epochs = arguments.epochs or settings.epochs
    settings.seeds = 1 if arguments.mnist else arguments.seeds or settings.seeds
    runs = []
    for seed in range(settings.seeds):
        data = mnist(arguments.mnist) if arguments.mnist else bundled(seed)
        rows, *networks = one_run(seed, data, settings)
        runs.append(rows)
        scores = (f"{name} {row['accuracy']:.2f} %" for name, row in runs[-1].items())
        print(f"split {seed}: {', '.join(scores)}", flush=True)
    means = show(runs, ink(data[1].images).density)
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(arguments.output / "classify_digits.png", data[1], *networks)
    report = {"settings": asdict(settings), "means": means, "runs": runs}
    (arguments.output / "classify_digits.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote classify_digits.png and classify_digits.json to {arguments.output}/")


if __name__ == "__main__":
    main()
