"""Draw the voxels of a labelled scan, as at the top of the README.

    make demo
    .venv/bin/python examples/segment_lidar.py data/test/street_14.npz   # out/street_14_labels.npy
    .venv/bin/python examples/draw_street.py                             # out/street.png

Voxels are drawn from the far ones to the near ones in parallel projection; of each, the three faces
that the viewer sees.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from drawing import CLASSES, COLOURS
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import sparseconv as sc

SCAN = Path(__file__).resolve().parents[1] / "data" / "test" / "street_14.npz"
LABELS, PICTURE = Path("out/street_14_labels.npy"), Path("out/street.png")
VOXEL = 0.3  # metres
AHEAD, ASIDE = 25.0, 20.0  # metres that are shown along the street and across it
TURN, RISE = np.radians(-56), np.radians(36)  # of the viewer, about the vertical and above ground
PALETTE = 128  # colours of the PNG: a third of its bytes
Array = NDArray[np.float64]

# corners of the faces of a unit cube that the viewer sees, and how much light each gets
FACES = {
    "top": ([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], 1.0),
    "front": ([(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)], 0.62),
    "side": ([(0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)], 0.78),
}


def voxels(xyz: Tensor, labels: Tensor) -> tuple[Array, NDArray[np.int64]]:
    """Return the lower corners ``[N, 3]`` of the voxels in metres, and each one's class ``[N]``."""
    x, to_points = sc.voxelize(xyz, VOXEL)
    classes = to_points.majority(labels, len(CLASSES))
    return x.coords[:, 1:].double().numpy() * VOXEL, classes.numpy()


def project(xyz: Array) -> tuple[Array, Array]:
    """Return the place ``[..., 2]`` on paper of points ``[..., 3]``, and how far away each is."""
    ahead = xyz[..., 0] * np.cos(TURN) + xyz[..., 1] * np.sin(TURN)
    aside = xyz[..., 0] * np.sin(TURN) - xyz[..., 1] * np.cos(TURN)
    up = xyz[..., 2] * np.cos(RISE) + ahead * np.sin(RISE)
    return np.stack([aside, up], axis=-1), ahead * np.cos(RISE) - xyz[..., 2] * np.sin(RISE)


def draw(path: Path, xyz: Tensor, labels: Tensor) -> int:
    """Write a PNG of the voxels of a scan, and return how many they are.

    Args:
        path: the PNG.
        xyz: ``[N, 3]``, metres, sensor at the origin, x forward, y left.
        labels: int64 ``[N]``, indices into ``CLASSES``; points below 0 are left out.
    """
    shown = (labels >= 0) & (xyz[:, 0].abs() < AHEAD) & (xyz[:, 1].abs() < ASIDE)
    corners, classes = voxels(xyz[shown], labels[shown])
    far_first = np.argsort(-project(corners + VOXEL / 2)[1])
    table = np.array([mpl.colors.to_rgb(colour) for colour in COLOURS.values()])
    polygons, colours = [], []
    for face, light in FACES.values():
        polygons.append(project(corners[far_first, None] + VOXEL * np.array(face))[0])
        colours.append(light * table[classes[far_first]])
    figure, axes = plt.subplots(figsize=(12, 5), layout="constrained")
    axes.add_collection(
        PolyCollection(
            np.stack(polygons, axis=1).reshape(-1, 4, 2),
            facecolors=np.stack(colours, axis=1).reshape(-1, 3),
            edgecolors="#00000030",
            linewidths=0.2,
        )
    )
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()
    patches = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    axes.legend(handles=patches, loc="upper right", frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(PALETTE).save(path, optimize=True)
    return len(corners)


def main() -> None:
    """Draw the scan with the labels on file."""
    if not LABELS.exists():
        raise SystemExit(
            f"{LABELS} is not here: run examples/segment_lidar.py data/test/{SCAN.name} first"
        )
    labels = torch.from_numpy(np.load(LABELS)).long()
    xyz = torch.from_numpy(sc.io.read_points(SCAN).xyz).float()
    count = draw(PICTURE, xyz, labels)
    print(f"{count:,} voxels of {VOXEL} m: {PICTURE}")


if __name__ == "__main__":
    main()
