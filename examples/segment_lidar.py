"""Label every point of a street scan with a sparse U-Net, trained here and now, from scratch.

    python examples/segment_lidar.py                      # train on data/train, judge on data/test
    python examples/segment_lidar.py path/to/scan.bin     # label your own scan with these weights,
                                                          # or those in examples/weights/
    python examples/segment_lidar.py --kernel-size 1      # the same network without neighbours
    torchrun --nproc-per-node 2 examples/segment_lidar.py # two processes (--backend nccl: two GPUs)
    python examples/segment_lidar.py --batch-size 2       # the same losses in one process

A scan becomes voxels, the U-Net gives each voxel a score per class, and the scores go back to the
points. The first command takes one to two minutes on two CPU cores and prints what it measured;
pictures, weights and metrics.json go to out/ (out/kernel_size_1 for the third). --resume goes on
from the last epoch of a run that was killed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import CLASSES, draw
from scans import Scan, Settings, load, spans, unlike, voxels
from torch import Tensor
from training import Seconds, Trainer, clock, network_for, team

import sparseconv as sc
from sparseconv.core.geometry import Geometry
from sparseconv.models import UNet
from sparseconv.sites.sites import Sites

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
SHIPPED = HERE / "weights" / "segment_lidar.pt"
QUICK = {
    "voxel_size": 0.5,
    "widths": (8, 16),
    "steps": 12,
    "train_scans": 3,
    "test_scans": 1,
}
EXPLAINED = """\
pairs      (input site, output site, kernel cell) in all rulebooks: what a convolution multiplies
voxelize   points to voxels, sorted and merged, with their features
rulebooks  the coarser levels' sites and who neighbours whom, once for all layers that share it
forward    the network's first pass over them, as in training; backward: to every weight
"""


def first_call(settings: Settings, scan: Scan) -> float:
    """Return how many seconds compiling takes: a first step on few points, less a second one."""
    few = scan.keep(scan.xyz.norm(dim=1) < 8)
    network, seconds = network_for(settings), Seconds()
    for name in ("first", "second"):
        with clock(seconds, name):
            x, to_points = voxels(few, settings)
            network(x).features.square().mean().backward()
            to_points(x)
    return max(seconds["first"] - seconds["second"], 0.0)


def train(options: argparse.Namespace, settings: Settings, out: Path) -> Trainer | None:
    """Train with all processes; return what the first of them has learnt, None in the others."""
    with team(options.backend) as who:
        scans = read("train", settings.train_scans)
        if settings.batch_size * who.size > len(scans):
            raise sc.SparseConvValueError(
                f"--batch-size: {settings.batch_size} scans for each of {who.size} processes are "
                f"more than the {len(scans)} there are"
            )
        trainer = Trainer(settings, scans, who)
        saved = out / "checkpoint.pt"
        if options.resume and saved.exists():
            trainer.resume(saved)
        trainer.run(saved, options.recompute)
    return trainer if who.rank == 0 else None


def read(split: str, count: int) -> list[Scan]:
    """Return the first scans of a split."""
    return [load(path) for path in sorted((DATA / split).glob("*.npz"))[:count]]


def label(network: UNet, settings: Settings, scan: Scan) -> Tensor:
    """Return the class ``[N]`` of each point."""
    x, to_points = voxels(scan, settings)
    with torch.no_grad():
        return to_points(network(x)).argmax(dim=1)


def plan_of(network: UNet, x: sc.SparseTensor) -> list[list[Geometry]]:
    """Return the windows that the network looks through on each level, finest level first."""
    levels = {x.sites: None}  # a dict keeps the order in which they come
    hooks = [
        module.register_forward_hook(lambda _module, _input, y: levels.setdefault(y.sites))
        for module in network.modules()
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return [list(sites.rulebooks) for sites in levels]


def build_rulebooks(sites: Sites, plan: list[list[Geometry]]) -> int:
    """Build the sites of all levels and their rulebooks, ahead of the network; return the pairs."""
    pairs = 0
    for geometries in plan:
        built = [sites.convolve(geometry) for geometry in geometries]
        pairs += sum(rulebook.num_pairs for _, rulebook in built)
        sites = next((reached for reached, _ in built if reached is not sites), sites)
    return pairs


def measure(network: UNet, settings: Settings, scan: Scan) -> dict[str, Any]:
    """Return the sizes of a scan, and the seconds that each part of one training pass takes."""
    plan = plan_of(network, voxels(scan, settings)[0])
    seconds = Seconds()
    with clock(seconds, "voxelize"):
        x, _ = voxels(scan, settings)
    with clock(seconds, "rulebooks"):
        pairs = build_rulebooks(x.sites, plan)
    with clock(seconds, "forward"):
        loss = network(x).features.square().mean()
    with clock(seconds, "backward"):
        loss.backward()
    network.zero_grad()
    sizes = {"points": len(scan.xyz), "sites": x.num_sites, "rulebook_pairs": pairs}
    return {"scan": scan.name, **sizes, "seconds": seconds}


def judge(network: UNet, settings: Settings, scans: list[Scan]) -> dict[str, Any]:
    """Return IoU per class over all points of ``scans``, and sizes and times of each."""
    classes = len(CLASSES)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for scan in scans:
        cells = scan.labels * classes + label(network, settings, scan)
        confusion += torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    hits = confusion.diag()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits).clamp(min=1)
    measured = [measure(network, settings, scan) for scan in scans]
    sums = {key: sum(m[key] for m in measured) for key in ("points", "sites", "rulebook_pairs")}
    parts = measured[0]["seconds"]
    seconds = {part: sum(m["seconds"][part] for m in measured) for part in parts}
    return {
        "mean_iou": iou.mean().item(),
        "iou": dict(zip(CLASSES, iou.tolist(), strict=True)),
        "confusion": confusion.tolist(),
        **sums,
        "seconds": seconds,
        "scans": measured,
    }


def show(metrics: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"\n{'class':<12}{'IoU':>7}{'points':>10}")
    for name, iou, row in zip(CLASSES, metrics["iou"].values(), metrics["confusion"], strict=True):
        print(f"{name:<12}{iou:>7.3f}{sum(row):>10,}")
    print(f"{'mean':<12}{metrics['mean_iou']:>7.3f}{metrics['points']:>10,}\n")
    parts = list(metrics["seconds"])
    print(f"{'held out':<12}{'points':>9}{'sites':>9}{'pairs':>11}", end="")
    print("".join(f"{part:>11}" for part in parts))
    for row in [*metrics["scans"], {"scan": "all", **metrics}]:
        print(f"{row['scan']:<12}{row['points']:>9,}{row['sites']:>9,}", end="")
        print(f"{row['rulebook_pairs']:>11,}", end="")
        print("".join(f"{1000 * row['seconds'][part]:>8.0f} ms" for part in parts))
    training = metrics["training"]
    print(f"\n{EXPLAINED}")
    print(f"training {training['seconds']['total']:.1f} s, of it ", end="")
    print(", ".join(f"{k} {v:.1f} s" for k, v in training["seconds"].items() if k != "total"))
    print(f"compiling {metrics['first_call_seconds']:.1f} s, all {metrics['total_seconds']:.1f} s")


def train_and_judge(options: argparse.Namespace, settings: Settings, out: Path) -> bool:
    """Train, judge on scans that the network has never seen, and write all of it to ``out``.

    Returns whether this is the first of the processes, which alone judges and writes.
    """
    start = time.perf_counter()
    compiling = first_call(settings, read("train", 1)[0])
    trainer = train(options, settings, out)
    if trainer is None:
        return False
    engine = sc.engines.chosen(trainer.weight)
    print(f"engine {engine}, {torch.get_num_threads()} threads, processes: {trainer.who.size}")
    network, unseen = trainer.finished(), read("test", settings.test_scans)
    metrics = judge(network, settings, unseen)
    scan = unseen[0]
    found = label(network, settings, scan)
    pictures = {"truth": scan.labels, "prediction": found, "errors": found != scan.labels}
    title = f"{scan.name}, not seen in training (mean IoU on all such {metrics['mean_iou']:.2f})"
    draw(out / "segment_lidar.png", title, scan.xyz, pictures)
    saved = {
        "settings": asdict(settings),
        "weights": network.state_dict(),
        "seen": spans(trainer.scans),
    }
    torch.save(saved, out / "segment_lidar.pt")
    metrics |= {
        "training": trainer.report(),
        "processes": trainer.who.size,
        "first_call_seconds": compiling,
        "total_seconds": time.perf_counter() - start,
        "settings": asdict(settings),
        "engine": engine,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "sparseconv": sc.__version__,
        },
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    show(metrics)
    print(f"wrote segment_lidar.png, segment_lidar.pt and metrics.json to {out}/")
    return True


def label_own(network: UNet, settings: Settings, scan: Scan, out: Path) -> None:
    """Label a user's scan, print how many points each class got, write labels and a picture."""
    predicted = label(network, settings, scan)
    counts = torch.bincount(predicted, minlength=len(CLASSES)).tolist()
    for name, count in zip(CLASSES, counts, strict=True):
        print(f"{name:<12}{count:>9,} points {100 * count / len(predicted):>5.1f} %")
    np.save(out / f"{scan.name}_labels.npy", scan.to_file(predicted).astype(np.int8))
    pictures = {"intensity": scan.intensity, "prediction": predicted}
    draw(out / f"{scan.name}.png", f"{scan.name}, labelled", scan.xyz, pictures)
    print(f"wrote {scan.name}_labels.npy and {scan.name}.png to {out}/")


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return the command line, and what reads it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scan", nargs="?", type=Path, help="a scan of your own to label")
    parser.add_argument("--output", type=Path, help="folder (default: out, --quick: out/quick)")
    parser.add_argument("--kernel-size", type=int, choices=(1, 3, 5), help="1: see no neighbour")
    parser.add_argument("--voxel-size", type=float, help="metres")
    parser.add_argument("--steps", type=int, help="training steps, one batch each")
    parser.add_argument("--batch-size", type=int, help="scans of a process in a step (default: 1)")
    parser.add_argument("--seed", type=int, help="of weights and augmentation")
    parser.add_argument("--quick", action="store_true", help="see that it runs; learns little")
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo", help="nccl: on GPUs")
    parser.add_argument("--resume", action="store_true", help="go on from checkpoint.pt, if there")
    parser.add_argument("--recompute", action="store_true", help="less memory for more time")
    return parser, parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    parser, options = arguments()
    path, out, quick = options.scan, options.output, options.quick
    given = {item.name: getattr(options, item.name, None) for item in fields(Settings)}
    given = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**{**(QUICK if quick else {}), **given})
    if min(settings.steps, settings.batch_size) < 1 or not settings.voxel_size > 0:
        parser.error("--steps, --batch-size and --voxel-size must be positive")
    if out is None:
        out = Path("out/quick" if quick else "out")
        out = out / "kernel_size_1" if settings.kernel_size == 1 else out
    out.mkdir(parents=True, exist_ok=True)
    try:
        own = None if path is None else load(path)
        weights = out / "segment_lidar.pt"
        if own is not None and not weights.exists() and not given and not quick:
            weights = SHIPPED  # of an earlier `make demo`
        if own is None or not weights.exists():
            if own is not None:
                print(f"no weights in {out}/ yet, training first")
            first_process = train_and_judge(options, settings, out)
            if own is None or not first_process:
                return
    except (OSError, sc.SparseConvError) as error:
        parser.error(str(error))
    saved = torch.load(weights, weights_only=True)
    settings = Settings(**saved["settings"])
    network = network_for(settings)
    network.load_state_dict(saved["weights"])
    print(f"labelling with {weights}: {settings}")
    if settings.steps < Settings.steps:
        print(f"warning: weights of {settings.steps} steps only; train again without --steps")
    for word in unlike(own, saved.get("seen", {})):
        print(f"warning: {own.name} is unlike the training scans, labels may be wrong: {word}")
    label_own(network.eval(), settings, own, out)


if __name__ == "__main__":
    main()
