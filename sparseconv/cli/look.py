"""``sparseconv view``: a file as a page, a picture or in a window."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparseconv.cli.terminal import add_reading, points_in, say
from sparseconv.errors import SparseConvValueError
from sparseconv.io.labels import read_labels
from sparseconv.points.voxels import voxelize
from sparseconv.view import View
from sparseconv.view.scene import scene_of


def add_view(commands: Any) -> None:
    """Add the command to the parser's commands."""
    parser = commands.add_parser(
        "view",
        help="draw a point cloud or its voxels",
        description="Draw a file: a page that any browser opens (.html), or with Open3D a picture "
        "(.png) or a window.",
        epilog="example: sparseconv view scan.bin --voxel-size 0.2 -o scan.html",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, help=".html or .png (FILE's name, .html)")
    parser.add_argument("--labels", action="store_true", help="colour by the file's labels")
    parser.add_argument("--prediction", type=Path, help="file of labels to compare with")
    parser.add_argument("--color-by", help="height, rgb or the name of a column")
    parser.add_argument("--classes", help="names of the classes, as ground,car,tree")
    parser.add_argument("--voxel-size", type=float, help="draw voxels of this size")
    parser.add_argument("--show", action="store_true", help="open a window (needs Open3D)")
    add_reading(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Draw the file."""
    points = points_in(options.file, options)
    labels, prediction = points.labels, None
    if options.labels and labels is None:
        raise SparseConvValueError(
            f"labels: {options.file.name} has none, --label names a column or a file of them"
        )
    if options.prediction is not None:
        prediction = read_labels(options.prediction)["label"]
    if options.color_by is not None and not options.labels:
        labels = None
    cloud: Any = points
    if options.voxel_size is not None:
        cloud, labels, prediction = _voxels(points, options.voxel_size, labels, prediction)
    classes = None if options.classes is None else options.classes.split(",")
    color_by = None if options.labels else options.color_by
    if cloud is not points and labels is None and color_by not in (None, "height"):
        color_by = f"feature_{_feature(points, color_by)}"
    shown = View(scene_of(cloud, labels, prediction, color_by, classes), options.file.name)
    if options.show:
        shown.show()
        return
    output = options.output or Path(options.file.stem + ".html")
    say(f"wrote {shown.save(output)}")


def _feature(points: Any, name: str) -> int:
    if name not in points.feature_names:
        raise SparseConvValueError(
            f"color_by: there is no {name!r}, must be height or one of {points.feature_names}"
        )
    found: int = points.feature_names.index(name)
    return found


def _voxels(points: Any, edge: float, labels: Any, prediction: Any) -> tuple[Any, Any, Any]:
    """Return the voxels of the finite points, and each voxel's most frequent labels."""
    finite = np.isfinite(points.xyz).all(axis=1) & np.isfinite(points.features).all(axis=1)
    x, to_points = voxelize(points[finite], edge)
    found: list[Any] = []
    for values in (labels, prediction):
        if values is None:
            found.append(None)
            continue
        if len(values) != len(points):
            raise SparseConvValueError(
                f"prediction: has {len(values)} labels, there are {len(points)} points"
            )
        chosen = torch.from_numpy(np.maximum(values[finite], -1))
        found.append(to_points.majority(chosen, int(chosen.max()) + 1))
    return x, found[0], found[1]
