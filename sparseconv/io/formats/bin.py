"""KITTI and nuScenes scans: little-endian float32 rows without a header."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.points import AXES, Points

Layout: TypeAlias = Literal["kitti", "nuscenes"]

FEATURES: dict[Layout, tuple[str, ...]] = {
    "kitti": ("intensity",),
    "nuscenes": ("intensity", "ring"),
}
ROW_BYTES: dict[Layout, int] = {
    layout: 4 * (AXES + len(names)) for layout, names in FEATURES.items()
}
FARTHEST = 10_000.0  # metres; no lidar sees farther
LAST_RING = 127  # the largest sensors have 128 rings


def read_bin(path: Path, layout: Layout | None = None) -> Points:
    """Read a KITTI scan (x, y, z, reflectance) or a nuScenes scan (x, y, z, intensity, ring).

    Args:
        path: The file; rows of 4 (KITTI) or 5 (nuScenes) float32.
        layout: Which of the two it is. None decides by the name (``.pcd.bin`` is nuScenes'), then
            by the size, then by the content where the size is a multiple of both rows.

    Returns:
        Points with the features ``("intensity",)`` or ``("intensity", "ring")``; NaN rows are kept.

    Raises:
        SparseConvValueError: `layout` is unknown, the size fits no layout, or the content two.

    Source: Geiger et al. 2013, "Vision meets robotics: The KITTI dataset"; Caesar et al. 2020,
        "nuScenes" (arXiv 1903.11027).
    """
    if layout is not None and layout not in FEATURES:
        raise SparseConvValueError(f"layout is {layout!r}, must be one of {get_args(Layout)}")
    data = path.read_bytes()
    if layout is None and path.name.lower().endswith(".pcd.bin"):
        layout = "nuscenes"
    fitting: list[Layout] = [
        name for name, size in ROW_BYTES.items() if layout in {None, name} and len(data) % size == 0
    ]
    if not fitting:
        raise SparseConvValueError(
            f"{path.name!r} has {len(data)} bytes, must be a multiple of "
            + " or ".join(f"{size} ({n})" for n, size in ROW_BYTES.items() if layout in {None, n})
        )
    # An empty file has no content to judge by, and no rows that could be misread.
    chosen = fitting[0] if len(fitting) == 1 or not data else _by_content(data, path.name)
    rows = _rows(data, chosen)
    xyz = np.array(rows[:, :AXES], dtype=np.float32, order="C")
    features = np.array(rows[:, AXES:], dtype=np.float32, order="C")
    return Points(xyz, features, FEATURES[chosen])


def _rows(data: bytes, layout: Layout) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype="<f4").reshape(-1, AXES + len(FEATURES[layout]))


def _by_content(data: bytes, name: str) -> Layout:
    """Tell the layouts apart by their last column: rings are small integers, reflectance is 0..1.

    A reading with the wrong row length mixes the columns, so that its last one is neither.
    """
    if not _is_nuscenes(_rows(data, "nuscenes")):
        return "kitti"
    if _is_kitti(_rows(data, "kitti")):
        raise SparseConvValueError(
            f"{name!r} reads well as kitti and as nuscenes ({len(data)} bytes), pass layout="
        )
    return "nuscenes"


def _is_nuscenes(rows: npt.NDArray[Any]) -> bool:
    ring = rows[:, -1][np.isfinite(rows[:, -1])]
    whole = (ring == np.floor(ring)) & (ring >= 0) & (ring <= LAST_RING)
    return bool(whole.all()) and _is_near(rows)


def _is_kitti(rows: npt.NDArray[Any]) -> bool:
    reflectance = rows[:, -1][np.isfinite(rows[:, -1])]
    return bool(((reflectance >= 0) & (reflectance <= 1)).all()) and _is_near(rows)


def _is_near(rows: npt.NDArray[Any]) -> bool:
    xyz = rows[:, :AXES]
    return bool((np.abs(xyz[np.isfinite(xyz)]) < FARTHEST).all())
