"""Deformable convolution on thin tilted structures: the kernel learns where to look.

    python examples/deformable.py [--task lines|digits] [--quick]

Trains two small sparse networks of equally many weights: one of submanifold convolutions, and one
with deformable ones in the place of the last two. The tasks: poles, wires and bent pipes at any
tilt; and handwritten digits turned by up to 90 degrees. Prints both accuracies, mean and standard
deviation over the seeds, and draws where two layers of kernels look, on top of the input: before
training on the regular grid, and where they learned to. They spread out from the grid, and do not
follow the structures. Takes five to ten minutes, some seconds with --quick.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from digits import bundled, ink, jittered
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from tilted import CLASSES, lines, sites
from torch import Tensor, nn

import sparseconv as sc

Data = tuple[Tensor, Tensor]
BATCH = 50
LOOKING = {0.2: "#0077bb", 0.8: "#ee3377"}  # which sites are drawn, from the first to the last
WIDTH = {True: 32, False: 59}  # between the last two convolutions: offsets need weights, too


class Network(nn.Sequential):
    """A convolution, halved resolution, two more convolutions, the mean over the sites, scores.

    Args:
        classes: number of scores.
        deformable: whether the last two convolutions are deformable ones (v2); if not, they are
            wider instead, so that both networks have the same number of weights.
    """

    def __init__(self, classes: int, deformable: bool) -> None:
        def block(c_in: int, c_out: int, moves: bool) -> list[nn.Module]:
            layer: nn.Module
            if moves:
                layer = sc.nn.DeformConv2d(
                    c_in, c_out, 3, bias=False, modulated=True, submanifold=True
                )
            else:
                layer = sc.nn.SubmConv2d(c_in, c_out, 3, bias=False)
            return [layer, nn.BatchNorm2d(c_out), nn.ReLU()]

        super().__init__(
            *block(1, 16, False),
            nn.Conv2d(16, 32, 2, stride=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            *block(32, WIDTH[deformable], deformable),
            *block(WIDTH[deformable], 32, deformable),
            sc.nn.GlobalAvgPool(),
            nn.Linear(32, classes),
        )


def line_data(seed: int, quick: bool) -> tuple[Data, Data]:
    """Return lines to train on and others to judge."""
    return lines(200 if quick else 2000, 2 * seed), lines(200 if quick else 1000, 2 * seed + 1)


def digit_data(seed: int, quick: bool) -> tuple[Data, Data]:
    """Return the bundled digits; those to judge are turned once and for all."""
    train, test = bundled(seed)
    turned = jittered(test.images, torch.Generator().manual_seed(seed), turn=90)
    rows = slice(200 if quick else None)
    return tuple(train[rows]), (turned[rows], test.labels[rows])


def as_it_is(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images: there are as many lines as one likes."""
    return images


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image turned by up to 90 degrees."""
    return jittered(images, generator, turn=90)


# name: data, change at each step, sparse tensor of images, number of classes
TASKS: dict[str, tuple[Callable, Callable, Callable, int]] = {
    "lines": (line_data, as_it_is, sites, len(CLASSES)),
    "digits": (digit_data, turned, ink, 10),
}


def train(network: Network, task: str, data: Data, epochs: int, seed: int) -> None:
    """Train; the offsets learn ten times as slowly as the rest, as in the paper."""
    _, change, active, _ = TASKS[task]
    generator = torch.Generator().manual_seed(seed)
    named = list(network.named_parameters())
    guides = [p for name, p in named if "offset" in name or "modulation" in name]
    others = [p for name, p in named if "offset" not in name and "modulation" not in name]
    rates = [0.01, 0.001] if guides else [0.01]
    parameters = [{"params": part} for part in (others, guides) if part]
    optimiser = torch.optim.AdamW(parameters, weight_decay=0.01)
    steps = epochs * (len(data[1]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps + 1)
    for _ in range(epochs):
        order = torch.randperm(len(data[1]), generator=generator)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            x = active(change(data[0][rows], generator))
            loss = F.cross_entropy(network(x), data[1][rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()


def accuracy(network: Network, task: str, data: Data) -> float:
    """Return the share of right answers, in percent."""
    with torch.no_grad():
        scores = torch.cat([network(TASKS[task][2](part)) for part in data[0].split(200)])
    return 100 * (scores.argmax(1) == data[1]).float().mean().item()


def samples(network: Network, x: sc.SparseTensor, share: float) -> tuple[Tensor, ...]:
    """Return where the two deformable layers look from a site.

    The last layer looks at nine positions; from the site nearest to each the layer before looks at
    nine: up to 81 positions, as in the paper's figure 6.

    Args:
        network: a deformable one.
        x: its input, one image.
        share: which site, from 0 (the first) to 1.

    Returns:
        Positions ``[P, 2]`` in pixels, how much each counts ``[P]``, the site's own place ``[2]``.
    """
    inputs: dict[nn.Module, sc.SparseTensor] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, given, _: inputs.update({layer: given[0]}))
        for layer in network
        if isinstance(layer, sc.nn.DeformConv2d)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    coords = next(iter(inputs.values())).coords
    places, shares = coords[[int(share * len(coords))], 1:].float(), torch.ones(1)
    centre = _fine(places[0])
    for layer, given in reversed(inputs.items()):
        rows = torch.cdist(places, given.coords[:, 1:].float()).argmin(dim=1)
        places = given.coords[rows, 1:].float()
        with torch.no_grad():
            shift = layer.offset(given).features[rows].reshape(len(rows), 9, 2)
            own = torch.sigmoid(layer.modulation(given).features[rows])
        cells = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
        places = (places[:, None] + cells + shift).flatten(0, 1)
        shares = (shares[:, None] * own).flatten()
    return _fine(places), shares, centre


def _fine(places: Tensor) -> Tensor:
    """Return places of the halved resolution in pixels of the input."""
    return 2 * places + 0.5


def near(network: Network, task: str, images: Tensor) -> float:
    """Return how many of the positions lie within 1.5 pixels of an active one, in percent."""
    found = []
    for image in images[:100]:
        x = TASKS[task][2](image[None])
        places = samples(network, x, 0.5)[0]
        found.append(torch.cdist(places, x.coords[:, 1:].float()).amin(dim=1) < 1.5)
    return 100 * torch.cat(found).float().mean().item()


def draw(path: Path, rows: dict[str, Network], task: str, images: Tensor, count: int = 4) -> None:
    """Write inputs, and on top of them where the deformable layers look from two sites of each.

    Args:
        path: the PNG.
        rows: a network for each row of the picture, by title.
        task: which one.
        images: ``[N, 1, 32, 32]``, the first ``count`` are shown.
        count: number of columns.
    """
    size = (2.2 * count, 2.2 * len(rows) + 0.5)
    figure, panels = plt.subplots(len(rows), count, figsize=size, layout="constrained")
    for line, (title, network) in zip(panels, rows.items(), strict=True):
        line[0].set_ylabel(title)
        for axes, image in zip(line, images[:count], strict=True):
            x = TASKS[task][2](image[None])
            axes.imshow(image[0], cmap="gray_r", vmin=0, vmax=3)
            for share, colour in LOOKING.items():
                _mark(axes, *samples(network, x, share), colour)
            limits = (-0.5, len(image[0]) - 0.5)
            axes.set(xticks=[], yticks=[], xlim=limits, ylim=limits[::-1])
    dot = {"linestyle": "", "markersize": 6}
    figure.legend(
        handles=[
            Line2D([], [], marker="s", color="#aaaaaa", label="active pixels", **dot),
            Line2D([], [], marker="s", color="#ffcc00", mec="black", label="two sites", **dot),
            *(
                Line2D([], [], marker="o", color=colour, label=f"where the {name} looks", **dot)
                for name, colour in zip(("first", "second"), LOOKING.values(), strict=True)
            ),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _mark(axes: Axes, places: Tensor, shares: Tensor, centre: Tensor, colour: str) -> None:
    """Draw positions, the more solid the more they count, and the site that looks."""
    alpha = (shares / shares.max()).clamp(0.05, 1).numpy()
    axes.scatter(places[:, 1], places[:, 0], s=12, color=colour, alpha=alpha, linewidths=0)
    axes.plot(centre[1], centre[0], "s", color="#ffcc00", markeredgecolor="black", ms=6)


def compare(task: str, seeds: range, epochs: int, quick: bool, out: Path) -> dict[str, object]:
    """Train with and without deformation, print both accuracies, draw; return the figures."""
    make, _, _, classes = TASKS[task]
    accuracies: dict[str, list[float]] = {"submanifold": [], "deformable": []}
    seconds = dict.fromkeys(accuracies, 0.0)
    for seed in seeds:
        known, unseen = make(seed, quick)
        for name, scores in accuracies.items():
            torch.manual_seed(seed)
            network = Network(classes, deformable=name == "deformable")
            start = time.perf_counter()
            train(network, task, known, epochs, seed)
            seconds[name] += time.perf_counter() - start
            scores.append(accuracy(network, task, unseen))
        pictured = network
    print(f"\n{task}: {classes} classes, {len(seeds)} seed(s), {epochs} epochs")
    for name, values in accuracies.items():
        network = Network(classes, name == "deformable")
        weights = sum(parameter.numel() for parameter in network.parameters())
        mean, spread = statistics.fmean(values), statistics.pstdev(values)
        print(f"  {name:<12}{mean:>7.2f} % +- {spread:4.2f}{weights:>9,} weights"
              f"{seconds[name] / len(seeds):>8.1f} s a training")  # fmt: skip
    rows = {"before training": Network(classes, True).eval(), "after training": pictured}
    found = {title: near(network, task, unseen[0]) for title, network in rows.items()}
    print(f"  positions near active pixels: {found['after training']:.1f} %, "
          f"{found['before training']:.1f} % before training")  # fmt: skip
    draw(out / f"deformable_{task}.png", rows, task, unseen[0])
    return {"accuracy": accuracies, "seconds": seconds, "seeds": list(seeds), "epochs": epochs}


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", choices=[*TASKS, "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="see that it runs; learns little")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each network")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    arguments = parser.parse_args()
    arguments.output = arguments.output or Path("out/quick" if arguments.quick else "out")
    count, epochs = (1, 1) if arguments.quick else (arguments.seeds, arguments.epochs)
    seeds = range(arguments.first_seed, arguments.first_seed + count)
    arguments.output.mkdir(parents=True, exist_ok=True)
    tasks = list(TASKS) if arguments.task == "both" else [arguments.task]
    report = {
        task: compare(task, seeds, epochs, arguments.quick, arguments.output) for task in tasks
    }
    (arguments.output / "deformable.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote deformable.json and a picture of each task to {arguments.output}/")


if __name__ == "__main__":
    main()
