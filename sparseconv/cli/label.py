"""``sparseconv label``: label files with a network of ``sparseconv train``, or the shipped one.

The shipped one lies among the examples, so a checkout has it and an installed wheel does not.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.cli.convert import write
from sparseconv.cli.terminal import add_reading, points_in, say, table, track
from sparseconv.errors import SparseConvValueError
from sparseconv.models.likeness import unlike
from sparseconv.models.point_labeller import Settings, load_labeller

LABELS_ALONE = (".label", ".npy")
SHIPPED = Path(__file__).resolve().parents[2] / "examples" / "weights" / "street_labeller.pt"


def add_label(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "label",
        help="label points with a trained network",
        description="Label every point of files with weights of `sparseconv train`. Without them "
        "a network is used that learnt from synthetic streets (docs/model_card.md says what it "
        "cannot do). OUT is a file, or for several files a folder; .label and .npy hold the "
        "labels alone.",
        epilog="example: sparseconv label scans/*.bin --weights w.pt -o labelled --format ply",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--weights", type=Path, help="from sparseconv train (those shipped)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--format", default="ply", help="of the files in the folder OUT (ply)")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Label each file and count the classes."""
    network, saved = load_labeller(options.weights or _shipped())
    outputs = _outputs(options)
    counts = np.zeros(len(network.settings.labels), np.int64)
    for path in track(options.files, "label"):
        points = points_in(path, options)
        labels = network.label(points)
        finite = points[np.isfinite(points.xyz).all(axis=1)]
        for phrase in unlike(finite, saved.get("seen", {})) if len(finite) else ():
            say(f"{path.name} is unlike the scans of the training, labels may be wrong: {phrase}")
        _write(outputs[path], points, labels)
        found = [int((labels == label).sum()) for label in network.settings.labels]
        counts += np.array(found)
    total = max(int(counts.sum()), 1)
    rows = [
        (name_of(network.settings, number), f"{count:,}", f"{100 * count / total:.1f} %")
        for number, count in enumerate(counts.tolist())
    ]
    table(f"{len(options.files)} labelled, in {options.output}", ("class", "points", ""), rows)


def name_of(settings: Settings, number: int) -> str:
    """Return the name of a class, or its label in files."""
    return settings.names[number] if settings.names else f"class {settings.labels[number]}"


def _shipped() -> Path:
    """Return the file of the shipped network, and say what it is.

    Raises:
        SparseConvValueError: This installation has none.
    """
    if not SHIPPED.exists():
        raise SparseConvValueError(
            "weights: give those of `sparseconv train`; the shipped ones lie in a checkout, in "
            f"examples/weights/{SHIPPED.name}"
        )
    say("labelling with the shipped network of synthetic streets; --weights takes one of yours")
    return SHIPPED


def _outputs(options: argparse.Namespace) -> dict[Path, Path]:
    """Return where each file's labels go.

    Raises:
        SparseConvValueError: Two would go to one place, or there is no such folder.
    """
    if options.output.suffix and not options.output.is_dir():
        if len(options.files) > 1:
            raise SparseConvValueError(
                f"output: must be a folder for {len(options.files)} files, got {options.output}"
            )
        if not options.output.parent.is_dir():
            raise SparseConvValueError(f"output: there is no folder {options.output.parent}")
        return {options.files[0]: options.output}
    suffix = "." + options.format.lstrip(".")
    outputs = {path: options.output / (path.stem + suffix) for path in options.files}
    if len(set(outputs.values())) < len(set(outputs)):
        raise SparseConvValueError("files: two of them have the same name")
    options.output.mkdir(parents=True, exist_ok=True)
    return outputs


def _write(path: Path, points: Any, labels: Any) -> None:
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".label":
        np.maximum(labels, 0).astype("<u4").tofile(path)
    else:
        write(path, replace(points, labels=labels))
