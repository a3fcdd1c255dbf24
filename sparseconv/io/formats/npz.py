"""Several named NumPy arrays: ``.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.points import AXES, LABEL_NAMES, Points, from_columns

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

POSITION_KEYS = ("xyz", "points")
SAVEZ_ARGUMENTS = ("file", "allow_pickle")  # the latter since NumPy 2.1


def read_npz(path: Path) -> Points:
    """Read named arrays: positions under ``xyz`` or ``points``, features under their own names.

    Args:
        path: The file. ``xyz`` is ``[N, 3]``, or ``points`` is ``[N, 3 + F]``; an integer ``label``
            or ``labels`` is ``[N]``; every other array is numeric, ``[N]`` or ``[N, k]``.

    Returns:
        Points; a feature has its key as name, ``key_0``, ``key_1``, ... where k > 1. NaN rows are
        kept.

    Raises:
        SparseConvValueError: The file is damaged, positions are missing or given twice, an array
            has another shape or dtype, or its number of rows differs.
    """
    arrays = _load(path)
    points = _positions(arrays, path.name)
    columns, names = [points.features], list(points.feature_names)
    labels = None
    for key, array in arrays.items():
        source = f"{key!r} in {path.name!r}"
        _check_rows(array, len(points), source)
        if key in LABEL_NAMES and array.dtype.kind in "iu":
            if labels is not None:
                raise SparseConvValueError(f"{path.name!r} holds both label and labels, keep one")
            labels = _as_labels(array, source)
            continue
        width = array.shape[1] if array.ndim > 1 else 1
        columns.append(array.reshape(len(points), width).astype(np.float32))
        names += [key] if width == 1 else [f"{key}_{i}" for i in range(width)]
    return Points(points.xyz, np.concatenate(columns, axis=1), tuple(names), labels)


def _load(path: Path) -> Arrays:
    with path.open("rb") as file, naming_damage(path):
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise SparseConvValueError(f"{path.name!r} is a single array, name it .npy")
        return {key: archive[key] for key in archive.files}


def _positions(arrays: Arrays, name: str) -> Points:
    """Take the positions out of `arrays`."""
    keys = [key for key in POSITION_KEYS if key in arrays]
    if len(keys) != 1:
        raise SparseConvValueError(
            f"{name!r} holds the keys {sorted(arrays)}, must hold one of {POSITION_KEYS}"
        )
    key = keys[0]
    table = arrays.pop(key)
    if key == "xyz" and table.shape[1:] != (AXES,):
        raise SparseConvValueError(f"'xyz' in {name!r} has shape {table.shape}, must be (N, 3)")
    return from_columns(table, f"{key!r} in {name!r}")


def _check_rows(array: npt.NDArray[Any], rows: int, source: str) -> None:
    if array.dtype.kind not in "biuf":
        raise SparseConvValueError(f"{source} has dtype {array.dtype}, must be numeric")
    if array.ndim not in {1, 2}:
        raise SparseConvValueError(f"{source} has shape {array.shape}, must be (N,) or (N, k)")
    if len(array) != rows:
        raise SparseConvValueError(f"{source} has {len(array)} rows, the positions have {rows}")


def _as_labels(array: npt.NDArray[Any], source: str) -> npt.NDArray[np.int64]:
    if array.size != len(array):
        raise SparseConvValueError(f"{source} has shape {array.shape}, labels must be (N,)")
    return array.reshape(-1).astype(np.int64)


def write_npz(path: Path, points: Points) -> None:
    """Write ``xyz``, each feature under its own name, and ``label`` if there are labels.

    Args:
        path: The file, replaced if it is there.
        points: What to write.

    Raises:
        SparseConvValueError: A feature's name is taken.
    """
    columns = dict(zip(points.feature_names, points.features.T, strict=True))
    taken = [name for name in columns if name in (*POSITION_KEYS, *LABEL_NAMES, *SAVEZ_ARGUMENTS)]
    if taken:
        raise SparseConvValueError(f"feature_names: {taken[0]!r} is taken, rename that feature")
    labels: dict[str, Any] = {} if points.labels is None else {"label": points.labels}
    with path.open("wb") as file:
        np.savez_compressed(file, xyz=points.xyz, **columns, **labels)
