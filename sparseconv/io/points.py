"""The value that every reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError

Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

AXES = 3


@dataclass(frozen=True, eq=False)
class Points:
    """A point cloud as its file holds it; no row is dropped, NaN rows included.

    Args:
        xyz: ``[N, 3]`` float32, or float64 where the file is that precise; metres as in the file.
        features: ``[N, F]`` float32, in the file's own units; F may be 0.
        feature_names: F different names, one per column of `features`.
        labels: ``[N]`` int64, or None where the file has none.

    Raises:
        SparseConvValueError: The shapes do not fit together, or a feature name comes twice.

    >>> xyz, features = np.zeros((5, 3), np.float32), np.ones((5, 1), np.float32)
    >>> len(Points(xyz, features, ("intensity",)))
    5
    """

    xyz: Floats
    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...] = ()
    labels: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Check that rows, columns and names belong together."""
        if self.xyz.shape[1:] != (AXES,):
            raise SparseConvValueError(f"xyz has shape {self.xyz.shape}, must be (N, 3)")
        columns = (len(self.xyz), len(self.feature_names))
        if self.features.shape != columns:
            raise SparseConvValueError(
                f"features has shape {self.features.shape}, must be {columns}: "
                f"one row per point, one column per name in feature_names {self.feature_names}"
            )
        if len(set(self.feature_names)) != len(self.feature_names):
            raise SparseConvValueError(
                f"feature_names is {self.feature_names}, each name may come once"
            )
        if self.labels is not None and self.labels.shape != (len(self.xyz),):
            raise SparseConvValueError(
                f"labels has shape {self.labels.shape}, must be ({len(self.xyz)},)"
            )

    def __len__(self) -> int:
        """Return the number of points N."""
        return len(self.xyz)


def as_xyz(columns: npt.NDArray[Any]) -> Floats:
    """Copy numeric coordinates to the smallest of float32 and float64 that keeps their digits.

    Args:
        columns: ``[N, 3]``, any integer or floating dtype; int32 and wider become float64.

    Returns:
        ``[N, 3]`` contiguous float32 or float64.
    """
    if np.result_type(columns.dtype, np.float32) == np.float32:
        return columns.astype(np.float32, order="C")
    return columns.astype(np.float64, order="C")


def from_columns(table: npt.NDArray[Any], source: str) -> Points:
    """Split a table of x, y, z and further columns.

    Args:
        table: ``[N, 3 + F]``, any integer or floating dtype.
        source: What to call the table in an error, for example the file's name.

    Returns:
        The points; one further column is named ``intensity``, several ``feature_0``, ``feature_1``
        and so on.

    Raises:
        SparseConvValueError: The table is not numeric or not ``[N, 3 + F]``.
    """
    if table.dtype.kind not in "iuf":
        raise SparseConvValueError(f"{source} has dtype {table.dtype}, must be integer or floating")
    if len(table.shape[1:]) != 1 or table.shape[1] < AXES:
        raise SparseConvValueError(f"{source} has shape {table.shape}, must be (N, 3 + F)")
    extra = table.shape[1] - AXES
    names = ("intensity",) if extra == 1 else tuple(f"feature_{i}" for i in range(extra))
    features = np.array(table[:, AXES:], dtype=np.float32, order="C")
    return Points(as_xyz(table[:, :AXES]), features, names)
