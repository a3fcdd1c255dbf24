"""``sparseconv train``: a network for a folder of labelled scans."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.cli.info import NEIGHBOURS, rows_of
from sparseconv.cli.label import name_of
from sparseconv.cli.terminal import say, table, track
from sparseconv.datasets import Compose, Drop, Flip, Folder, Jitter, Rotate, Scale
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points
from sparseconv.io.labels import NO_LABEL
from sparseconv.models.likeness import spans
from sparseconv.models.point_labeller import (
    PointLabeller,
    load_labeller,
    save_labeller,
    settings_of,
)

RATE = 6e-3
REPORTS = 10  # lines of progress, each with a validation and a checkpoint
JITTER_SHARE = 0.1  # of a voxel


def add_train(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "train",
        help="train a network on a folder of labelled scans",
        description="Train a U-Net to label points. Folders train and val inside FOLDER are used "
        "where they are there; else a part of the scans is held out. OUT is written at every "
        "validation, and --resume goes on from it.",
        epilog="example: sparseconv train scans/ -o weights.pt --classes ground,car,tree",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--voxel-size", type=float, help="in the scans' unit (from the first scan)")
    parser.add_argument("--steps", type=int, default=400, help="one scan each (400)")
    parser.add_argument("--validate", type=float, default=0.2, help="share held out (0.2)")
    parser.add_argument("--classes", help="names of the labels in their order, as ground,car,tree")
    parser.add_argument(
        "--ignore", help="labels that are not learnt, as 0,255; those below 0 never"
    )
    parser.add_argument("--label", help="name of the column of labels")
    parser.add_argument("--seed", type=int, default=0, help="of weights and changes (0)")
    parser.add_argument("--resume", action="store_true", help="go on from OUT")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train, validate, keep checkpoints."""
    if options.steps < 1 or not 0 <= options.validate < 1:
        raise SparseConvValueError("steps: must be 1 or more, validate: from 0 to below 1")
    if not options.output.parent.is_dir():
        raise SparseConvValueError(f"output: there is no folder {options.output.parent}")
    known, held_out = _split(options)
    torch.manual_seed(options.seed)
    if options.resume:
        network, saved = load_labeller(options.output)
        first = int(saved.get("step", 0))
    else:
        names = options.classes.split(",") if options.classes else ()
        ignore = [int(word) for word in (options.ignore or "").split(",") if word]
        edge = options.voxel_size or _edge(known[0])
        network, saved, first = PointLabeller(settings_of(known, edge, names, ignore)), {}, 0
    settings = network.settings
    say(
        f"{len(known)} scans to learn from, {len(held_out)} held out, {len(settings.labels)} "
        f"classes, voxels of {settings.voxel_size:g}, features {', '.join(settings.features)}"
    )
    if first >= options.steps:
        raise SparseConvValueError(
            f"steps: {options.output.name} has {first} already, give more to go on"
        )
    for line in train(network, known, held_out, options, saved, first):
        say(line)
    rows = [
        (name_of(settings, number), f"{value:.3f}")
        for number, value in enumerate(scores(network, held_out).tolist())
    ]
    table("intersection over union, scans held out", ("class", "IoU"), rows) if held_out else None
    say(f"wrote {options.output}: sparseconv label FILE --weights {options.output} -o OUT")


def _split(options: argparse.Namespace) -> tuple[list[Points], list[Points]]:
    """Return scans to learn from and to validate with, without points of no place."""
    folder = options.folder
    if (folder / "train").is_dir():
        other = next((name for name in ("val", "test") if (folder / name).is_dir()), None)
        sets = [Folder(folder, "train", label=options.label)]
        sets += [Folder(folder, other, label=options.label)] if other else []
    else:
        sets = [Folder(folder, label=options.label)]
    scans = [[_usable(part, n) for n in track(range(len(part)), "read")] for part in sets]
    if len(scans) == 2:
        return scans[0], scans[1]
    whole = scans[0]
    count = min(math.ceil(options.validate * len(whole)), len(whole) - 1)
    order = np.random.default_rng(options.seed).permutation(len(whole)).tolist()
    return [whole[i] for i in order[count:]], [whole[i] for i in order[:count]]


def _usable(scans: Folder, number: int) -> Points:
    points = scans[number]
    if points.labels is None:
        raise SparseConvValueError(
            f"folder: {scans.scans[number].name} has no labels, --label names their column"
        )
    usable: Points = points[np.isfinite(points.xyz).all(axis=1)]
    if not len(usable):
        raise SparseConvValueError(f"folder: {scans.scans[number].name} holds no point")
    return usable


def _edge(points: Points) -> float:
    """Return the voxel size that `sparseconv info` would advise."""
    rows = rows_of(points)
    fitting = [row for row in rows if row.neighbours >= NEIGHBOURS] or rows
    return min(row.edge for row in fitting)


def train(
    network: PointLabeller,
    known: list[Points],
    held_out: list[Points],
    options: argparse.Namespace,
    saved: dict[str, Any],
    first: int,
) -> Iterator[str]:
    """Train in place; yields a line at each validation, after the checkpoint."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    if "optimizer" in saved:
        optimizer.load_state_dict(saved["optimizer"])
    vary = Compose(
        [
            Rotate(),
            Flip(),
            Scale(0.9, 1.1),
            Jitter(JITTER_SHARE * network.settings.voxel_size),
            Drop(0.2),
        ]
    )
    weight, start, losses = class_weights(network, known), time.perf_counter(), list[float]()
    seen = {name: list(ends) for name, ends in spans(known).items()}
    every = max((options.steps - first) // REPORTS, 1)
    for step in track(range(first, options.steps), "train"):
        random = np.random.default_rng((options.seed, step))
        scan = vary(known[int(random.integers(len(known)))], random)
        for group in optimizer.param_groups:  # up for a tenth, then down along a cosine
            share = (step + 1) / options.steps
            group["lr"] = RATE * min(10 * share, 0.5 + 0.5 * math.cos(math.pi * share))
        losses.append(train_step(network, optimizer, scan, weight))
        if (step + 1) % every == 0 or step + 1 == options.steps:
            score = f", mean IoU {float(scores(network, held_out).nanmean()):.3f}" * bool(held_out)
            state = {"step": step + 1, "optimizer": optimizer.state_dict(), "seen": seen}
            save_labeller(options.output, network, **state)
            rate = (step + 1 - first) / (time.perf_counter() - start)
            loss = float(np.nanmean(losses[-every:]))
            yield f"step {step + 1}/{options.steps}: loss {loss:.3f}{score}, {rate:.1f} steps/s"


def train_step(
    network: PointLabeller, optimizer: torch.optim.Optimizer, scan: Points, weight: Tensor
) -> float:
    """Take one step; returns the loss, NaN where the scan has no labelled voxel."""
    network.train()
    if not len(scan):
        return float("nan")
    x, to_points = network.voxels(scan)
    target = to_points.majority(network.targets(scan), len(network.settings.labels))
    if not bool((target >= 0).any()):
        return float("nan")
    scores_ = network.network(x).features
    loss = F.cross_entropy(scores_, target, weight, ignore_index=NO_LABEL)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def class_weights(network: PointLabeller, scans: list[Points]) -> Tensor:
    """Return a weight per class, so that rare ones count: one over the root of their share."""
    classes = len(network.settings.labels)
    targets = torch.cat([network.targets(scan) for scan in scans])
    counts = torch.bincount(targets[targets >= 0], minlength=classes).clamp(min=1)
    share = counts / counts.sum()
    return share.rsqrt() / share.sqrt().sum()


def scores(network: PointLabeller, scans: list[Points]) -> Tensor:
    """Return the intersection over union ``[classes]`` over all points; NaN for absent classes."""
    network.eval()
    classes = len(network.settings.labels)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for scan in scans:
        target = network.targets(scan)
        with torch.no_grad():
            guess = network(scan).argmax(dim=1)
        cells = target[target >= 0] * classes + guess[target >= 0]
        confusion += torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    hits = confusion.diag().double()
    return hits / (confusion.sum(0) + confusion.sum(1) - confusion.diag())
