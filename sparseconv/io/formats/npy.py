"""One NumPy array: ``.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseconv.errors import SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.points import Points, as_xyz, from_columns


def read_npy(path: Path) -> Points:
    """Read one array of x, y, z and further columns; pickled objects are refused.

    Args:
        path: The file; an array ``[N, 3 + F]``, integer or floating.

    Returns:
        Points; one further column is named ``intensity``, several ``feature_0``, ``feature_1`` and
        so on. NaN rows are kept.

    Raises:
        SparseConvValueError: The file is damaged, or its array has another shape or dtype.
    """
    with path.open("rb") as file, naming_damage(path):
        table = np.load(file, allow_pickle=False)
        if not isinstance(table, np.ndarray):
            raise SparseConvValueError(f"{path.name!r} is an archive, name it .npz")
    return from_columns(table, f"the array in {path.name!r}")


def write_npy(path: Path, points: Points) -> None:
    """Write one array ``[N, 3 + F]`` of positions and features; their names are not kept.

    Args:
        path: The file, replaced if it is there.
        points: What to write, without labels.

    Raises:
        SparseConvValueError: There are labels.
    """
    if points.labels is not None:
        raise SparseConvValueError("labels: a .npy does not hold them, write .npz")
    with path.open("wb") as file:
        np.save(file, np.concatenate([as_xyz(points.xyz), points.features], axis=1))
