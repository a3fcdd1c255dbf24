"""`write_points`: the table from suffix to writer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io.formats.bin import write_bin
from sparseconv.io.formats.las import write_las
from sparseconv.io.formats.npy import write_npy
from sparseconv.io.formats.npz import write_npz
from sparseconv.io.formats.pcd import write_pcd
from sparseconv.io.formats.ply import write_ply
from sparseconv.io.formats.text import write_text
from sparseconv.io.points import Points

WRITERS: dict[str, Callable[[Path, Points], None]] = {
    ".npy": write_npy,
    ".npz": write_npz,
    ".ply": write_ply,
    ".pcd": write_pcd,
    ".las": write_las,
    ".laz": write_las,
    ".xyz": write_text,
    ".txt": write_text,
    ".csv": write_text,
    ".asc": write_text,
    ".pts": write_text,
    ".bin": write_bin,
}


def write_points(path: str | os.PathLike[str], points: Points) -> None:
    """Write a point cloud, the format chosen by the file's suffix (case does not matter).

    Args:
        path: The file, replaced if it is there. ``.npz`` and ``.pcd`` keep everything; ``.npy`` has
            no names and no labels; ``.las`` and ``.laz`` round positions, and need the extra
            ``las``; a ``.bin`` holds the columns of one of its layouts.
        points: What to write.

    Raises:
        SparseConvTypeError: `points` are no :class:`Points`.
        SparseConvValueError: The suffix is unknown, or the format does not hold these points.
        OSError: The file cannot be written.

    >>> import tempfile, numpy as np, sparseconv as sc
    >>> points = sc.io.Points(np.zeros((5, 3)), np.ones((5, 1), np.float32), ("intensity",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sc.io.write_points(folder + "/scan.ply", points)
    ...     sc.io.read_points(folder + "/scan.ply").feature_names
    ('intensity',)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        names = ", ".join(WRITERS)
        raise SparseConvValueError(f"path {path.name!r} has suffix {suffix!r}, written are {names}")
    if not isinstance(points, Points):
        raise SparseConvTypeError(f"points: must be Points, got {type(points).__name__}")
    WRITERS[suffix](path, points)
