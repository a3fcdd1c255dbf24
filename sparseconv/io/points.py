"""The value that every reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError

Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

AXES = 3
AXIS_NAMES = ("x", "y", "z")
LABEL_NAMES = ("label", "labels")


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


Fields: TypeAlias = dict[str, npt.NDArray[Any]]


def from_fields(fields: Fields, source: str) -> Points:
    """Put named columns together: x, y, z, an integer label, and features.

    Args:
        fields: numeric arrays ``[N]`` or ``[N, k]`` by name; the latter gives the features
            ``name_0``, ``name_1`` and so on. The case of x, y and z does not matter.
        source: What to call them in an error, for example the file's name.

    Returns:
        The points; an integer field ``label`` or ``labels`` gives their labels.

    Raises:
        SparseConvValueError: x, y or z is missing, or a name comes twice.
    """
    rest = dict(fields)
    axes = []
    for axis in AXIS_NAMES:
        named = [name for name in rest if name.lower() == axis]
        if len(named) != 1:
            raise SparseConvValueError(
                f"{source} has the fields {', '.join(fields) or 'none'}, must have x, y and z once"
            )
        axes.append(rest.pop(named[0]))
    label_names = [name for name in rest if name in LABEL_NAMES and rest[name].dtype.kind in "iu"]
    if len(label_names) > 1:
        raise SparseConvValueError(f"{source} holds both label and labels, keep one")
    labels = rest.pop(label_names[0]).astype(np.int64) if label_names else None
    names, columns = [], [np.empty((len(axes[0]), 0), np.float32)]
    for name, values in rest.items():
        width = values.shape[1] if values.ndim > 1 else 1
        names += [name] if values.ndim == 1 else [f"{name}_{i}" for i in range(width)]
        columns.append(values.reshape(len(values), width).astype(np.float32))
    return Points(
        as_xyz(np.stack(axes, axis=1)), np.concatenate(columns, axis=1), tuple(names), labels
    )


def as_fields(points: Points, reserved: tuple[str, ...] = ()) -> Fields:
    """Return what a file of named columns holds: x, y, z, the features, then the label.

    Raises:
        SparseConvValueError: A feature's name is taken, empty, or has a blank, comma or quote.
    """
    axes = dict(zip(AXIS_NAMES, as_xyz(points.xyz).T, strict=True))
    for name in points.feature_names:
        if name.lower() in (*AXIS_NAMES, *LABEL_NAMES, *reserved):
            raise SparseConvValueError(f"feature_names: {name!r} is taken, rename that feature")
        if not name.isprintable() or not name or set(name) & set(" ,;\"'#/"):
            raise SparseConvValueError(
                f"feature_names: {name!r} must be one word without blank, comma or quote"
            )
    features = dict(zip(points.feature_names, points.features.astype(np.float32).T, strict=True))
    labels = {} if points.labels is None else {"label": points.labels.astype(np.int64)}
    return axes | features | labels


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
