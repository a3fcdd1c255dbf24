"""The value that every reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvTypeError, SparseConvValueError

Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

AXES = 3
AXIS_NAMES = ("x", "y", "z")
LABEL_NAMES = ("label", "labels")
COLORS = ("red", "green", "blue")
GRID_KEYS = ("width", "height")  # of a header: no longer true of a part


@dataclass(frozen=True, eq=False, repr=False)
class Points:
    """A point cloud as its file holds it; no row is dropped, NaN rows included.

    ``points[mask]`` keeps rows (a mask, a slice or row numbers), ``points["intensity"]`` is a
    column by name.

    Args:
        xyz: ``[N, 3]`` float32, or float64 where the file is that precise; metres as in the file.
        features: ``[N, F]`` float32, in the file's own units; F may be 0.
        feature_names: F different names, one per column of `features`.
        labels: ``[N]`` int64, or None where the file has none.
        extra: further columns ``[N]`` by name, each in its own dtype: what float32 does not hold
            (times, identifiers), text, and the instances of label files.
        header: what the file says about all points, as far as it does: ``"format"``, ``"units"``,
            ``"scales"``, ``"offsets"``, ``"crs"``, ``"viewpoint"``, ``"width"``, ``"height"``, ...

    Raises:
        SparseConvValueError: The shapes do not fit together, or a name comes twice.

    >>> xyz, features = np.zeros((5, 3), np.float32), np.ones((5, 1), np.float32)
    >>> points = Points(xyz, features, ("intensity",))
    >>> len(points), len(points[:2]), points["intensity"].sum()
    (5, 2, np.float32(5.0))
    """

    xyz: Floats
    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...] = ()
    labels: npt.NDArray[np.int64] | None = None
    extra: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)

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
        names = (*self.feature_names, *self.extra)
        if len(set(names)) != len(names):
            raise SparseConvValueError(f"feature_names is {names}, each name may come once")
        if self.labels is not None and self.labels.shape != (len(self.xyz),):
            raise SparseConvValueError(
                f"labels has shape {self.labels.shape}, must be ({len(self.xyz)},)"
            )
        for name, values in self.extra.items():
            if values.shape != (len(self.xyz),):
                raise SparseConvValueError(
                    f"extra: {name!r} has shape {values.shape}, must be ({len(self.xyz)},)"
                )

    def __len__(self) -> int:
        """Return the number of points N."""
        return len(self.xyz)

    def __getitem__(self, key: Any) -> Any:
        """Return the column of a name, or the points of a mask, a slice or row numbers."""
        if isinstance(key, str):
            return self._column(key)
        rows = self._rows(key)
        header = {name: value for name, value in self.header.items() if name not in GRID_KEYS}
        labels = None if self.labels is None else self.labels[rows]
        extra = {name: values[rows] for name, values in self.extra.items()}
        return replace(
            self,
            xyz=self.xyz[rows],
            features=self.features[rows],
            labels=labels,
            extra=extra,
            header=header,
        )

    def __contains__(self, name: object) -> bool:
        """Return whether there is a column of this name."""
        return name in self.names

    @property
    def names(self) -> tuple[str, ...]:
        """The names that ``points[name]`` takes."""
        labels = () if self.labels is None else LABEL_NAMES[:1]
        return (*AXIS_NAMES, *self.feature_names, *self.extra, *labels)

    @property
    def units(self) -> Mapping[str, str]:
        """What the numbers of a column mean, by its name, as far as the file says.

        ``"xyz"`` has a unit of length; a column of small integers has their range, ``"0..255"``.
        """
        units: Mapping[str, str] = self.header.get("units", {})
        return units

    def finite(self) -> Points:
        """Return the points whose positions and features are finite, in their order."""
        rows = np.isfinite(self.xyz).all(axis=1) & np.isfinite(self.features).all(axis=1)
        kept: Points = self[rows]
        return kept

    def __repr__(self) -> str:
        """Return the size, the names and the extent, never the rows."""
        parts = [f"{len(self):,} points", f"xyz {self.xyz.dtype}"]
        parts += [f"features {', '.join(self.feature_names)}"] * bool(self.feature_names)
        parts += [f"extra {', '.join(self.extra)}"] * bool(self.extra)
        parts += ["labels"] * (self.labels is not None)
        return f"Points({'; '.join(parts)})"

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name in self.feature_names:
            return self.features[:, self.feature_names.index(name)]
        if name in self.extra:
            return self.extra[name]
        if name in AXIS_NAMES:
            return self.xyz[:, AXIS_NAMES.index(name)]
        if name in LABEL_NAMES and self.labels is not None:
            return self.labels
        raise SparseConvValueError(
            f"there is no column {name!r}, the names are {', '.join(self.names)}"
        )

    def _rows(self, key: Any) -> Any:
        if isinstance(key, slice):
            return key
        rows = np.asarray(key)
        if rows.ndim == 0 and rows.dtype.kind in "iu":
            if not -len(self) <= int(rows) < len(self):
                raise IndexError(f"row {int(rows)} of {len(self)} points")
            return rows[None]
        if rows.ndim != 1 or rows.dtype.kind not in "biu":
            raise SparseConvTypeError(
                "points[...] takes a name, a slice, a bool mask or row numbers, got "
                f"{rows.dtype} {rows.shape}"
            )
        if rows.dtype.kind == "b" and len(rows) != len(self):
            raise SparseConvValueError(
                f"the mask has {len(rows)} entries, there are {len(self)} points"
            )
        return rows


def join_points(parts: list[Points]) -> Points:
    """Return the rows of several clouds one after the other.

    Args:
        parts: One or more clouds with the same columns; the header is that of the first.

    Raises:
        SparseConvValueError: There is none, or their columns differ.

    >>> one = Points(np.zeros((2, 3)), np.zeros((2, 0), np.float32))
    >>> len(join_points([one, one]))
    4
    """
    if not parts:
        raise SparseConvValueError("parts: must be one cloud or more, got none")
    first = parts[0]
    if len(parts) == 1:
        return first
    kinds = {(part.feature_names, tuple(part.extra), part.labels is None) for part in parts}
    if len(kinds) > 1:
        raise SparseConvValueError(
            f"parts: must have the same columns, got {first.names} and "
            f"{next(part.names for part in parts if part.names != first.names)}"
        )
    labels = [part.labels for part in parts if part.labels is not None]
    return Points(
        np.concatenate([part.xyz for part in parts]),
        np.concatenate([part.features for part in parts]),
        first.feature_names,
        np.concatenate(labels) if labels else None,
        {name: np.concatenate([part.extra[name] for part in parts]) for name in first.extra},
        {name: value for name, value in first.header.items() if name not in GRID_KEYS},
    )
