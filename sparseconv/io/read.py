"""`read_points`: the table from suffix to reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sparseconv.errors import SparseConvValueError
from sparseconv.io.formats.bin import Layout, read_bin
from sparseconv.io.formats.las import read_las
from sparseconv.io.formats.npy import read_npy
from sparseconv.io.formats.npz import read_npz
from sparseconv.io.formats.pcd import read_pcd
from sparseconv.io.formats.ply import read_ply
from sparseconv.io.formats.text import read_text
from sparseconv.io.points import Points

READERS: dict[str, Callable[[Path], Points]] = {
    ".bin": read_bin,
    ".npy": read_npy,
    ".npz": read_npz,
    ".ply": read_ply,
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
    ".xyz": read_text,
    ".txt": read_text,
    ".csv": read_text,
}


def read_points(path: str | os.PathLike[str], *, layout: Layout | None = None) -> Points:
    """Read a point cloud, the format chosen by the file's suffix (case does not matter).

    The reader returns what the file holds: rows with NaN are kept, and nothing is scaled.

    Args:
        path: A ``.bin`` (KITTI, nuScenes), ``.npy``, ``.npz``, ``.ply``, ``.pcd``, ``.xyz``,
            ``.txt`` or ``.csv`` file; with the extra ``las`` also a ``.las`` or ``.laz`` file.
        layout: ``"kitti"`` or ``"nuscenes"`` settles what a ``.bin`` file is; None decides by its
            name, size and content.

    Returns:
        Coordinates ``[N, 3]``, features ``[N, F]``, their names, and labels ``[N]`` or None.

    Raises:
        SparseConvValueError: The suffix is unknown, `layout` does not apply, or the file is damaged
            or not of its format.
        SparseConvError: A library that the format needs is not installed.
        OSError: The file cannot be opened (FileNotFoundError where it is missing).

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/scan.npy", np.zeros((5, 4)))
    ...     read_points(folder + "/scan.npy").feature_names
    ('intensity',)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        suffixes = ", ".join(READERS)
        raise SparseConvValueError(
            f"path {path.name!r} has suffix {suffix!r}, known are {suffixes}"
        )
    if layout is None:
        return READERS[suffix](path)
    if suffix != ".bin":
        raise SparseConvValueError(f"layout={layout!r} is for .bin files, path is {path.name!r}")
    return read_bin(path, layout)
