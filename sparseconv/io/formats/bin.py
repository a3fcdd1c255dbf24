"""Scans without a header, ``.bin``: rows of little-endian float32, as data sets publish them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.fields import named_columns
from sparseconv.io.points import AXIS_NAMES, COLORS, Points
from sparseconv.io.records import Encoded
from sparseconv.io.source import Source
from sparseconv.io.table import Column, Table

Layout: TypeAlias = Literal["kitti", "nuscenes", "scannet", "sunrgbd", "waymo"]
Rows: TypeAlias = npt.NDArray[np.float32]

COLUMNS: dict[Layout, tuple[str, ...]] = {
    "kitti": (*AXIS_NAMES, "intensity"),
    "nuscenes": (*AXIS_NAMES, "intensity", "ring"),
    "scannet": (*AXIS_NAMES, *COLORS),
    "sunrgbd": (*AXIS_NAMES, *COLORS),
    "waymo": (*AXIS_NAMES, "intensity", "elongation", "time"),
}
JUDGED: tuple[Layout, ...] = ("kitti", "nuscenes", "scannet", "waymo")  # sunrgbd is as scannet
FARTHEST = 10_000.0  # metres; no lidar sees farther
LAST_RING = 127  # the largest sensors have 128 rings
LOOKED_AT = 200_000  # rows, spread over the file, by which the layout is judged
TINY = 1e-20  # metres: integers that are read as floats are smaller, measured distances are not
BYTE = 255


class Evidence(NamedTuple):
    """How well a layout's reading of a file agrees with what its columns mean."""

    layout: Layout
    strong: bool
    weak: bool


def open_bin(source: Source, layout: Layout | None, columns: tuple[str, ...] | None) -> Table:
    """Find the rows of a ``.bin`` file.

    Args:
        source: The file.
        layout: Which data set's columns it has. None decides by the name (``.pcd.bin`` is
            nuScenes'), then by size and content.
        columns: Names of the columns, instead of a layout's.

    Raises:
        SparseConvValueError: The size fits no layout; the content fits none, or two.

    Source: Geiger et al. 2013, "Vision meets robotics: The KITTI dataset"; Caesar et al. 2020,
        "nuScenes" (arXiv 1903.11027); Dai et al. 2017, "ScanNet"; Sun et al. 2020, "Waymo".
    """
    if layout is not None and layout not in COLUMNS:
        raise SparseConvValueError(f"layout is {layout!r}, must be one of {get_args(Layout)}")
    data = source.buffer()
    if columns is None:
        if layout is None and source.name.lower().endswith(".pcd.bin"):
            layout = "nuscenes"
        columns = COLUMNS[_chosen(data, layout, source.name)]
    names = named_columns(columns, (), len(columns), source.name)
    if len(data) % (4 * len(names)):
        raise SparseConvValueError(
            f"{source.name!r} has {len(data)} bytes, must be a multiple of {4 * len(names)} "
            f"({', '.join(names)})"
        )
    rows = _rows(data, len(names))

    def column(number: int) -> Column:
        return Column(np.dtype("<f4"), lambda part: rows[part, number])

    found = {name: column(number) for number, name in enumerate(names) if name != "_"}
    return Table(len(rows), found, {"format": "bin"})


def _rows(data: npt.NDArray[np.uint8], columns: int) -> Rows:
    return np.frombuffer(data.data, "<f4").reshape(-1, columns)


def _chosen(data: npt.NDArray[np.uint8], layout: Layout | None, name: str) -> Layout:
    fitting: list[Layout] = [
        entry
        for entry in (JUDGED if layout is None else (layout,))
        if len(data) % (4 * len(COLUMNS[entry])) == 0
    ]
    if not fitting:
        sizes: dict[int, list[str]] = {}
        for entry in JUDGED if layout is None else (layout,):
            sizes.setdefault(4 * len(COLUMNS[entry]), []).append(entry)
        raise SparseConvValueError(
            f"{name!r} has {len(data)} bytes, must be a multiple of "
            + " or ".join(f"{size} ({', '.join(names)})" for size, names in sizes.items())
        )
    # An empty file has no content to judge by, and no rows that could be misread.
    if layout is not None or not len(data):
        return fitting[0]
    found = [_evidence(data, entry) for entry in fitting]
    best = [entry for entry in found if entry.strong] or [entry for entry in found if entry.weak]
    if not best:
        raise SparseConvValueError(
            f"{name!r} has {len(data)} bytes whose content is no scan of "
            f"{' or '.join(fitting)}: pass layout= or columns= if it is one"
        )
    if len(best) > 1:
        raise SparseConvValueError(
            f"{name!r} reads well as {' and as '.join(e.layout for e in best)} "
            f"({len(data)} bytes), pass layout= or columns="
        )
    return best[0].layout


def _evidence(data: npt.NDArray[np.uint8], layout: Layout) -> Evidence:
    """Judge a layout by what its columns mean; a wrong row length mixes them.

    Distances are below 10 km and above the tiny numbers that integers make when they are read as
    floats. Reflectance is 0 to 1 (or to 255), rings and colours are small whole numbers.
    """
    rows = _rows(data, len(COLUMNS[layout]))
    rows = rows[:: max(1, len(rows) // LOOKED_AT)]
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not _is_near(rows[:, :3]) or _is_tiny(rows):
        return Evidence(layout, False, False)
    rest = rows[:, 3:]
    positive = bool((rest >= 0).all())
    if layout == "kitti":
        return Evidence(layout, _below(rest, 1), positive)
    if layout == "nuscenes":
        strong = _is_whole(rest[:, 1], LAST_RING) and positive
        return Evidence(layout, strong, strong)
    if layout == "waymo":
        # tanh of the intensity, an elongation up to 1.5; time or range in the last column
        strong = _below(rest[:, 0], 1) and _below(rest[:, 1], 2) and not _below(rest[:, 2], 1)
        return Evidence(layout, strong and positive, strong and positive)
    strong = _is_whole(rest, BYTE) or _below(rest, 1)
    return Evidence(layout, strong, _below(rest, BYTE))


def _is_near(xyz: Rows) -> bool:
    return bool((np.abs(xyz) < FARTHEST).all())


def _is_tiny(rows: Rows) -> bool:
    """Return whether there are numbers as integers make them when they are read as floats."""
    sizes = np.abs(rows)
    tiny = (sizes > 0) & (sizes < TINY)
    return bool(tiny.sum() > len(rows) // 100)


def _below(values: Rows, most: float) -> bool:
    return bool(((values >= 0) & (values <= most)).all())


def _is_whole(values: Rows, most: int) -> bool:
    return _below(values, most) and bool((values == np.floor(values)).all())


def encode_bin(points: Points) -> Encoded:
    """Return rows of float32: x, y, z and the features, as a data set's layout has them.

    Args:
        points: What to write.

    Raises:
        SparseConvValueError: The features are those of no layout, or there are labels.
    """
    names = (*AXIS_NAMES, *points.feature_names)
    if names not in COLUMNS.values():
        raise SparseConvValueError(
            f"feature_names: a .bin has the columns of {', '.join(COLUMNS)}, got {', '.join(names)}"
        )
    if points.labels is not None or points.extra:
        raise SparseConvValueError("labels: a .bin holds features only; write .npz")
    if points.xyz.dtype != np.float32 and not np.array_equal(
        points.xyz.astype(np.float32), points.xyz, equal_nan=True
    ):
        raise SparseConvValueError("xyz: a .bin holds float32, which loses digits; write .npz")
    table: npt.NDArray[Any] = np.concatenate([points.xyz, points.features], axis=1)
    return Encoded("", table.astype("<f4").tobytes())
