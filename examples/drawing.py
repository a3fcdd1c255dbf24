"""Pictures of labelled lidar scans: from above, and as the sensor saw them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

mpl.use("Agg")  # files only, no window

COLOURS = {
    "ground": "#c8c8c8",
    "building": "#0077bb",
    "vehicle": "#ee7733",
    "pole": "#6a1b9a",
    "vegetation": "#1a9641",
    "person": "#e6007e",
}
CLASSES = tuple(COLOURS)
RIGHT, WRONG = "#d5d5d5", "#d7191c"
POINT_SIZES = np.array([0.4, 1.0, 1.0, 4.0, 1.0, 4.0])  # thin things would not be found otherwise
REACH = 50.0  # metres from the sensor shown from above; farther out points are few
ROWS = 40  # of a range image at most
FEW = 0.1  # of the mean: a row of fewer points than that would be white in the picture

Array = NDArray[Any]


def draw(path: Path, title: str, xyz: ArrayLike, pictures: Mapping[str, ArrayLike]) -> None:
    """Write a PNG: each picture from above, then the range and each picture as range images.

    Args:
        path: the PNG.
        title: over everything.
        xyz: ``[N, 3]``, metres, sensor at the origin, x forward, y left.
        pictures: by title; integers ``[N]`` are labels (indices into CLASSES), bools ``[N]`` are
            errors, floats ``[N]`` are intensities from 0 to 1, drawn in grey.
    """
    xyz = np.asarray(xyz)
    pictures = {name: np.asarray(values) for name, values in pictures.items()}
    colours = {name: _colours(values) for name, values in pictures.items()}
    near = np.abs(xyz[:, :2]).max(axis=1) < REACH
    strips = 1 + len(pictures)
    figure = plt.figure(figsize=(14, 7.2 + 1.3 * strips), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[7.2, 1.3 * strips])
    panels = upper.subplots(1, len(pictures), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (name, values) in zip(panels, pictures.items(), strict=True):
        _from_above(axes, xyz[near], values[near], colours[name][near])
        axes.set_title(f"{name}, from above")
        axes.label_outer()
    seen = {"range, nearer is brighter": _range_colours(xyz), **colours}
    for axes, (name, rgb) in zip(lower.subplots(strips, 1), seen.items(), strict=True):
        axes.imshow(range_image(xyz, rgb), aspect="auto", interpolation="nearest")
        axes.set_title(f"{name}, as the sensor sees it", fontsize=10)
        axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=14)
    _legend(figure, errors=any(values.dtype == bool for values in pictures.values()))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def range_image(xyz: Array, rgb: Array) -> Array:
    """Return the colours ``[rows, columns, 3]`` that the sensor at the origin sees.

    Args:
        xyz: ``[N, 3]``, metres.
        rgb: ``[N, 3]``, 0 to 1, the colour of each point.
    """
    reach = np.linalg.norm(xyz, axis=1)
    azimuth, angles = np.arctan2(xyz[:, 1], xyz[:, 0]), elevation(xyz)
    rows = rows_without_gaps(angles, ROWS)
    columns = int(np.clip(len(xyz) // 64, 90, 900))
    row, column = _bins(-angles, rows), _bins(-azimuth, columns)
    image = np.ones((rows, columns, 3))
    far_first = np.argsort(-reach)  # of several points in one pixel the nearest shows
    image[row[far_first], column[far_first]] = rgb[far_first]
    return image


def elevation(xyz: Array) -> Array:
    """Return the angle ``[N]`` of points over the horizon of the sensor at the origin."""
    return np.arcsin(xyz[:, 2] / np.maximum(np.linalg.norm(xyz, axis=1), 1e-6))


def rows_without_gaps(angles: Array, most: int) -> int:
    """Return the number of equal steps of elevation, up to ``most``, that all hold points.

    A sensor's beams lie at fixed elevations: more steps than beams leave some without a point.
    """
    for rows in range(most, 1, -1):
        counts = np.bincount(_bins(-angles, rows), minlength=rows)
        if counts.min() > FEW * counts.mean():
            return rows
    return 1


def _bins(values: Array, count: int) -> Array:
    """Return the one of ``count`` equal steps between the outermost values that each is in."""
    low, high = np.quantile(values, [0.001, 0.999]) if values.size else (0.0, 1.0)
    steps = (values - low) / max(high - low, 1e-6) * count
    return np.clip(steps.astype(np.int64), 0, count - 1)


def _from_above(axes: Axes, xyz: Array, values: Array, rgb: Array) -> None:
    """Scatter the points, forward up; higher ones cover lower ones, thin classes cover all."""
    sizes = np.ones(len(values))
    if values.dtype == bool:
        sizes = np.where(values, 3.0, 0.4)
    elif np.issubdtype(values.dtype, np.integer):
        sizes = POINT_SIZES[values]
    sizes = sizes * np.clip(6e4 / max(len(values), 1), 1, 4)
    order = np.lexsort((xyz[:, 2], sizes))
    axes.scatter(-xyz[order, 1], xyz[order, 0], s=sizes[order], c=rgb[order], linewidths=0)
    axes.plot(0, 0, marker="^", color="black", markersize=7)
    axes.set(aspect="equal", xlabel="metres to the right", ylabel="metres ahead")


def _colours(values: Array) -> Array:
    if values.dtype == bool:
        return np.array([mpl.colors.to_rgb(colour) for colour in (RIGHT, WRONG)])[
            values.astype(int)
        ]
    if np.issubdtype(values.dtype, np.integer):
        table = np.array([mpl.colors.to_rgb(colour) for colour in COLOURS.values()])
        return table[values]
    return mpl.colormaps["Greys"](0.15 + 0.85 * np.sqrt(values))[:, :3]


def _range_colours(xyz: Array) -> Array:
    near = np.exp(-np.linalg.norm(xyz, axis=1) / 25)
    return mpl.colormaps["viridis"](near)[:, :3]


def _legend(figure: Any, errors: bool) -> None:
    shown = {**COLOURS, "error": WRONG} if errors else COLOURS
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=9, color=colour, label=name)
        for name, colour in shown.items()
    ]
    handles.append(
        Line2D([], [], marker="^", linestyle="", markersize=8, color="black", label="sensor")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=12)
