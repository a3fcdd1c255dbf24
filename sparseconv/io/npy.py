"""One NumPy array: ``.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseconv.errors import SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.points import Points, from_columns


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
