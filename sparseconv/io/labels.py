"""Labels in files of their own: SemanticKITTI's and RELLIS' ``.label``, nuScenes' lidarseg."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.errors import SparseConvValueError
from sparseconv.io.source import Source, check_pointer
from sparseconv.io.table import Array, Column, Table

SUFFIXES = (".label", ".labels", ".npy", ".bin", ".txt")
FOLDERS = {
    "velodyne": "labels",
    "os1_cloud_node_kitti_bin": "os1_cloud_node_semantickitti_label_id",
}
LIDARSEG = "_lidarseg.bin"
NO_LABEL = -1
CLASS_BITS = 16  # of a .label's 32: the class; above it the number of the instance


def is_label_file(label: str | os.PathLike[str]) -> bool:
    """Return whether a caller's ``label=`` names a file, not a column."""
    return not isinstance(label, str) or label.lower().endswith(SUFFIXES)


def labels_beside(path: Path) -> Path | None:
    """Return where a data set keeps the labels of a scan, if they are there.

    Args:
        path: The scan: ``velodyne/000000.bin`` has ``labels/000000.label``, as in SemanticKITTI;
            RELLIS names the folders otherwise; a ``.label`` or ``_lidarseg.bin`` of the same name
            may also lie in the same folder.
    """
    if path.suffix.lower() != ".bin":
        return None
    stem = path.name[: -len(".pcd.bin")] if path.name.endswith(".pcd.bin") else path.stem
    beside = [path.with_name(stem + ".label"), path.with_name(stem + LIDARSEG)]
    if path.parent.name in FOLDERS:
        folder = path.parent.with_name(FOLDERS[path.parent.name])
        beside.insert(0, folder / (stem + ".label"))
    return next((found for found in beside if found.is_file()), None)


def read_labels(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read a file of one label a point.

    Args:
        path: A ``.label`` (uint32: the class below 16 bits of instance), an ``_lidarseg.bin``
            (uint8), a ``.npy`` of integers, or lines of whole numbers (``.labels``, ``.txt``).

    Returns:
        ``label`` int64 ``[N]``, and ``instance`` int64 ``[N]`` where the file has them.

    Raises:
        SparseConvValueError: The file is no such one.
        OSError: It cannot be opened.
    """
    path = Path(path)
    data = path.read_bytes()
    check_pointer(data[:1024], path.name)
    suffix = path.suffix.lower()
    if suffix == ".label":
        if len(data) % 4:
            raise SparseConvValueError(f"{path.name!r} has {len(data)} bytes, must be 4 a point")
        both = np.frombuffer(data, "<u4").astype(np.int64)
        return {"label": both & (1 << CLASS_BITS) - 1, "instance": both >> CLASS_BITS}
    if suffix == ".bin":
        return {"label": np.frombuffer(data, np.uint8).astype(np.int64)}
    try:
        values = _array(path, data)
    except (ValueError, OverflowError) as error:
        raise SparseConvValueError(f"{path.name!r} holds no labels: {error}") from error
    return {"label": values}


def _array(path: Path, data: bytes) -> Array:
    if path.suffix.lower() == ".npy":
        values: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if values.dtype.kind not in "iu" or values.size != len(values):
            raise ValueError(f"{values.dtype} {values.shape} is not one integer a point")
        return np.array(values).reshape(-1).astype(np.int64)
    return np.array([int(word) for word in data.split()], np.int64)


def with_labels(table: Table, path: str | os.PathLike[str], source: Source) -> Table:
    """Return a table with the labels of another file.

    Raises:
        SparseConvValueError: They are not one a point.
    """
    arrays = read_labels(path)
    rows = len(arrays["label"])
    if rows != table.rows:
        raise SparseConvValueError(
            f"label: {Path(path).name!r} has {rows} labels, {source.name!r} {table.rows} points; "
            f"label=False reads the points alone"
        )
    columns = {name: column for name, column in table.columns.items() if name not in arrays}
    for name, values in arrays.items():
        columns[name] = Column(values.dtype, values.__getitem__, beside=True)
    return Table(table.rows, columns, table.header, "label", table.at_once)
