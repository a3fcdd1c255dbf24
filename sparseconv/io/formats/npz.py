"""Several named NumPy arrays: ``.npz``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sparseconv.errors import SparseConvValueError
from sparseconv.io.fields import LABEL_WORDS, plain
from sparseconv.io.formats.npy import npy_header, table_of
from sparseconv.io.points import AXES, LABEL_NAMES, Points
from sparseconv.io.source import Source, check_expansion
from sparseconv.io.table import Array, Table, array_columns

Arrays: TypeAlias = dict[str, Array]
Shapes: TypeAlias = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]

POSITION_KEYS = ("xyz", "points", "coord", "coords", "pos", "positions", "pointcloud", "arr_0")
SAVEZ_ARGUMENTS = ("file", "allow_pickle")  # the latter since NumPy 2.1
HEADER_BYTES = 1 << 16


def open_npz(source: Source, key: str | None, columns: tuple[str, ...] | None) -> Table:
    """Find the arrays of a ``.npz`` file: positions, and what has a row for each of them.

    Args:
        source: The file. Positions are ``[N, 3]`` or ``[N, 3 + F]`` under `key`, ``xyz``,
            ``points``, ``coord``, ...; or x, y and z are arrays of their own. Every array ``[N]``
            or ``[N, k]`` is a column or k; those of other kinds (a pose, a name) are left out, as
            the header's ``"left_out"`` says.
        key: The array that holds the positions, where the caller says it.
        columns: Names of that array's columns.

    Raises:
        SparseConvValueError: The file is damaged or claims too much, positions are missing or
            given twice, or an array has another number of rows.
    """
    with source.open() as file, zipfile.ZipFile(_archive(file, source)) as archive:
        shapes, position = _shapes(archive, source), None
        position = _position_key(shapes, key, source.name)
        wanted, left_out = _wanted(shapes, position, source.name)
        packed = sum(_promised(archive, name) for name in wanted)
        check_expansion(packed, source.size, source.name)
        arrays = {name: _array(archive, name) for name in wanted}
    header = {"format": "npz"} | ({"left_out": left_out} if left_out else {})
    if position is None:
        return Table(len(arrays[wanted[0]]), array_columns(arrays), header, at_once=True)
    rest = {name: array for name, array in arrays.items() if name != position}
    table = table_of(arrays[position], f"{position!r} in {source.name!r}", columns)
    found = table.columns
    for name, part in array_columns(_flat(rest)).items():
        if name in found:
            raise SparseConvValueError(
                f"{source.name!r} holds {name!r} twice, each name may come once"
            )
        found[name] = part
    return Table(table.rows, found, header, at_once=True)


def _flat(arrays: Arrays) -> Arrays:
    """Return arrays ``[N, 1]`` as ``[N]``: they keep their names."""
    return {
        name: array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        for name, array in arrays.items()
    }


def _archive(file: Any, source: Source) -> Any:
    if file.read(6) == b"\x93NUMPY":
        raise SparseConvValueError(f"{source.name!r} is a single array, name it .npy")
    file.seek(0)
    return file


def _shapes(archive: zipfile.ZipFile, source: Source) -> Shapes:
    """Return shape and dtype of every array, from their headers alone."""
    shapes: Shapes = {}
    for entry in archive.infolist():
        if not entry.filename.endswith(".npy"):
            continue
        with archive.open(entry) as member:
            shape, _, dtype = npy_header(member)  # type: ignore[arg-type]
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which are never loaded")
        shapes[entry.filename.removesuffix(".npy")] = shape, dtype
    if not shapes and archive.namelist():
        raise SparseConvValueError(f"{source.name!r} holds no arrays")
    return shapes


def _position_key(shapes: Shapes, key: str | None, name: str) -> str | None:
    """Return which array holds the positions; None where x, y and z are arrays of their own."""
    if key is not None:
        if key not in shapes:
            raise SparseConvValueError(f"key: {name!r} holds {sorted(shapes)}, got {key!r}")
        return key
    found = [entry for entry in shapes if entry.lower() in POSITION_KEYS]
    first = [entry for entry in found if entry.lower() in POSITION_KEYS[:2]]
    found = first or sorted(found, key=lambda entry: POSITION_KEYS.index(entry.lower()))[:1]
    if not found and {"x", "y", "z"} <= {plain(entry) for entry in shapes}:
        return None
    if len(found) != 1:
        raise SparseConvValueError(
            f"{name!r} holds the keys {sorted(shapes)}, must hold one of {POSITION_KEYS[:2]} "
            f"(or {', '.join(POSITION_KEYS[2:])}; key= names another)"
        )
    shape, dtype = shapes[found[0]]
    if found[0] == "xyz" and not dtype.names and shape[1:] != (AXES,):
        raise SparseConvValueError(f"'xyz' in {name!r} has shape {shape}, must be (N, 3)")
    return found[0]


def _wanted(shapes: Shapes, position: str | None, name: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the arrays that have a row for each point, and those of other kinds."""
    if position is None:
        axes = [entry for entry in shapes if plain(entry) in ("x", "y", "z")]
        position, rows = axes[0], _rows(shapes[axes[0]][0])
    else:
        rows = _rows(shapes[position][0])
    wanted, left_out = [position], []
    for entry, (shape, dtype) in shapes.items():
        source = f"{entry!r} in {name!r}"
        if entry == position:
            continue
        if len(shape) > 2 and shape[0] == rows:
            raise SparseConvValueError(f"{source} has shape {shape}, must be (N,) or (N, k)")
        fits = len(shape) in {1, 2} and dtype.kind in "biufSU"
        label = plain(entry) in LABEL_WORDS
        if fits and shape[0] == rows and (len(shape) == 1 or dtype.kind in "biuf"):
            if label and dtype.kind in "iu" and int(np.prod(shape)) != rows:
                raise SparseConvValueError(f"{source} has shape {shape}, labels must be (N,)")
            wanted.append(entry)
        elif label or (len(shape) == 1 and fits and shape[0] > 1):
            raise SparseConvValueError(
                f"{source} has {shape[0] if shape else 0} rows, the positions have {rows}"
            )
        else:
            left_out.append(entry)
    return wanted, tuple(left_out)


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 0


def _promised(archive: zipfile.ZipFile, name: str) -> int:
    """Return the bytes of an array, which must be those that the archive promises.

    Raises:
        ValueError: The array needs more bytes than its entry has.
    """
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as member:
        shape, _, dtype = npy_header(member)  # type: ignore[arg-type]
    needed = dtype.itemsize
    for size in shape:
        needed *= max(size, 0)
    if needed > entry.file_size:
        raise ValueError(f"{name!r} promises {needed} bytes, {entry.file_size} bytes found")
    return max(needed, entry.file_size)


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(f"{name}.npy") as member:
        array: Array = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the end of the entry: its checksum is compared there
        return array


def write_npz(path: Path, points: Points) -> None:
    """Write ``xyz``, each column under its own name, and ``label`` if there are labels.

    Args:
        path: The file, replaced if it is there.
        points: What to write.

    Raises:
        SparseConvValueError: A feature's name is taken.
    """
    columns = dict(zip(points.feature_names, points.features.T, strict=True)) | dict(points.extra)
    for name in columns:
        if name in (*POSITION_KEYS[:2], *LABEL_NAMES, *SAVEZ_ARGUMENTS):
            raise SparseConvValueError(f"feature_names: {name!r} is taken, rename that feature")
    labels: dict[str, Any] = {} if points.labels is None else {"label": points.labels}
    with path.open("wb") as file:
        np.savez_compressed(file, xyz=points.xyz, **columns, **labels)
