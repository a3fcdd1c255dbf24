"""What a view shows: points or voxels, one or more panels of colours, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparseconv import io
from sparseconv.core.arguments import came
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io.points import COLORS
from sparseconv.tensor import SparseTensor
from sparseconv.view.colors import RIGHT, UNKNOWN, WRONG, Colors, of_classes, of_values

AXES = 3
GAP = 0.92  # of a voxel's edge is drawn, so that neighbours are told apart
Entry = tuple[str, Colors, int, int]  # name, colour, how many, number of the class


@dataclass(frozen=True)
class Panel:
    """Colours of everything that is shown, and classes that can be hidden.

    Attributes:
        name: What stands above it.
        colors: uint8 ``[N, 3]``.
        kinds: Number of the class ``[N]``, -1 for none; None where colours are no classes.
    """

    name: str
    colors: Colors
    kinds: npt.NDArray[np.int16] | None


@dataclass(frozen=True)
class Scene:
    """Points or boxes and how they are coloured.

    Attributes:
        xyz: float64 ``[N, 3]``, positions of points or centres of voxels.
        edges: of a voxel on each axis; None for points.
        panels: one or more, side by side.
        legend: name, colour, number and class of what the colours mean.
        scale: name and ends of a scale of values, or None.
    """

    xyz: npt.NDArray[np.float64]
    edges: tuple[float, ...] | None
    panels: tuple[Panel, ...]
    legend: tuple[Entry, ...]
    scale: tuple[str, float, float] | None

    def keep(self, rows: npt.NDArray[Any]) -> Scene:
        """Return the scene with some of its rows; the legend still counts all."""
        panels = tuple(
            Panel(p.name, p.colors[rows], None if p.kinds is None else p.kinds[rows])
            for p in self.panels
        )
        return Scene(self.xyz[rows], self.edges, panels, self.legend, self.scale)


def scene_of(
    cloud: Any,
    labels: Any = None,
    prediction: Any = None,
    color_by: str | None = None,
    classes: Sequence[str] | None = None,
) -> Scene:
    """Return what :func:`sparseconv.view.view` shows; its arguments are described there.

    Raises:
        SparseConvError: There is nothing to show, or arguments do not fit.
    """
    xyz, edges, columns, own = _places(cloud)
    labels = own if labels is None and color_by is None else labels
    truth, guess = (
        None if value is None else _labels(name, value, len(xyz))
        for name, value in (("labels", labels), ("prediction", prediction))
    )
    finite = np.asarray(np.isfinite(xyz).all(axis=1))
    if not finite.any():
        raise SparseConvValueError("cloud: holds no point with a finite position")
    if guess is not None or (truth is not None and color_by is None):
        scene = _class_scene(xyz, edges, truth, guess, classes)
    else:
        name, values = _values(columns, xyz, color_by)
        colors, ends = of_values(values) if values.ndim == 1 else (_bytes(values), (0.0, 0.0))
        scale = (name, *ends) if values.ndim == 1 else None
        scene = Scene(xyz, edges, (Panel("", colors, None),), (), scale)
    return scene if finite.all() else scene.keep(finite)


def _places(
    cloud: Any,
) -> tuple[npt.NDArray[np.float64], tuple[float, ...] | None, dict[str, Any], Any]:
    """Return positions, edges of voxels, columns by name, and the cloud's own labels."""
    if isinstance(cloud, SparseTensor):
        return _voxels(cloud)
    if isinstance(cloud, io.Points):
        columns = {name: cloud[name] for name in cloud.names if cloud[name].dtype.kind in "biuf"}
        return cloud.xyz.astype(np.float64), None, columns, cloud.labels
    array = cloud.detach().cpu().numpy() if isinstance(cloud, torch.Tensor) else np.asarray(cloud)
    if array.ndim != 2 or array.shape[1] != AXES or array.dtype.kind not in "iuf":
        raise SparseConvTypeError(
            f"cloud: must be Points, a SparseTensor of 3 axes or an array (N, 3), got "
            f"{came(cloud)} {array.shape}"
        )
    return array.astype(np.float64), None, {}, None


def _voxels(x: SparseTensor) -> tuple[Any, tuple[float, ...], dict[str, Any], None]:
    coords = x.coords.detach().cpu().numpy()
    if coords.shape[1] != 1 + AXES:
        raise SparseConvValueError(f"cloud: must have 3 spatial axes, got {coords.shape[1] - 1}")
    if len(coords) and (coords[:, 0] != coords[0, 0]).any():
        raise SparseConvValueError("cloud: holds several samples, show one: x[0]")
    grid = x.grid[0] if isinstance(x.grid, tuple) else x.grid
    size = np.ones(AXES) if grid is None else np.array(grid.voxel_size)
    origin = np.zeros(AXES) if grid is None else np.array(grid.origin)
    features = x.features.detach().float().cpu().numpy()
    columns = {f"feature_{i}": features[:, i] for i in range(features.shape[1])}
    return origin + (coords[:, 1:] + 0.5) * size, tuple(size.tolist()), columns, None


def _labels(name: str, value: Any, rows: int) -> npt.NDArray[np.int64]:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if array.dtype.kind not in "biu" or array.shape != (rows,):
        raise SparseConvValueError(
            f"{name}: must be whole numbers ({rows},), one for each row, got {array.dtype} "
            f"{array.shape}"
        )
    return array.astype(np.int64)


def _class_scene(
    xyz: Any, edges: Any, truth: Any, guess: Any, classes: Sequence[str] | None
) -> Scene:
    shown = [value for value in (truth, guess) if value is not None]
    kinds, places = np.unique(np.concatenate(shown), return_inverse=True)
    if classes is not None and len(kinds) and kinds.max() >= len(classes):
        raise SparseConvValueError(
            f"classes: has {len(classes)} names, there is a label {kinds.max()}"
        )
    # classes of small numbers keep their colour in every picture; others are counted through
    small = not len(kinds) or kinds.max() < 256
    numbers = kinds if small else np.where(kinds < 0, -1, np.arange(len(kinds)))
    parts = np.split(numbers[places.reshape(-1)], [len(shown[0])])
    names = ("truth", "prediction") if guess is not None and truth is not None else ("",)
    panels = [
        Panel(name, of_classes(part), np.clip(part, -1, 2**15 - 1).astype(np.int16))
        for name, part in zip(names, parts, strict=False)
    ]
    counts = [int((shown[0] == kind).sum()) for kind in kinds]
    entries = zip(kinds.tolist(), numbers.tolist(), counts, strict=True)
    legend = [
        (_class_name(kind, classes), of_classes(np.array([number]))[0], count, number)
        for kind, number, count in entries
        if number < 256
    ]
    if len(panels) > 1:
        wrong = (truth != guess) & (truth >= 0)
        colors = np.where(wrong[:, None], WRONG, np.where((truth < 0)[:, None], UNKNOWN, RIGHT))
        share = wrong.sum() / max(int((truth >= 0).sum()), 1)
        name = f"error, {100 * share:.1f} % wrong"
        panels.append(Panel(name, colors, panels[0].kinds))
    return Scene(xyz, edges, tuple(panels), tuple(legend), None)


def _class_name(kind: int, classes: Sequence[str] | None) -> str:
    if kind < 0:
        return "no label"
    return f"class {kind}" if classes is None else str(classes[kind])


def _values(columns: dict[str, Any], xyz: Any, color_by: str | None) -> tuple[str, Any]:
    """Return a name and values ``[N]``, or colours ``[N, 3]``, to colour by."""
    coloured = all(name in columns for name in COLORS)
    if color_by == "rgb" or (color_by is None and coloured):
        if not coloured:
            raise SparseConvValueError("color_by: there are no red, green and blue")
        return "rgb", np.stack([columns[name] for name in COLORS], axis=1)
    if color_by in (None, "height", "z"):
        return "height", xyz[:, 2]
    if color_by not in columns:
        raise SparseConvValueError(
            f"color_by: there is no {color_by!r}, must be height"
            + "".join(f", {name}" for name in columns)
        )
    return str(color_by), np.asarray(columns[color_by], np.float64)


def _bytes(colors: Any) -> Colors:
    """Return colours of 0..1, 0..255 or 0..65535 as bytes."""
    colors = np.nan_to_num(colors.astype(np.float64))
    top = colors.max(initial=0.0)
    most = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    return np.asarray(np.round(np.clip(colors / most, 0, 1) * 255), np.uint8)
