"""`read_points`, `iter_points`, `scan`: the table from suffix to format, and what is read of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.fields import Roles, points_of, roles_of, xyz_dtype
from sparseconv.io.formats.bin import Layout, open_bin
from sparseconv.io.formats.foreign import open_e57, open_vtk
from sparseconv.io.formats.las import open_las
from sparseconv.io.formats.laz import Box, check_copc, checked_laz, copc_rows
from sparseconv.io.formats.mesh import open_obj, open_off
from sparseconv.io.formats.npy import open_npy
from sparseconv.io.formats.npz import open_npz
from sparseconv.io.formats.pcd import open_pcd
from sparseconv.io.formats.ply import open_ply
from sparseconv.io.formats.text import open_text
from sparseconv.io.labels import is_label_file, labels_beside, with_labels
from sparseconv.io.points import Points, join_points
from sparseconv.io.source import Readable, Source, source_of
from sparseconv.io.table import BLOCK, Table


class Naming(NamedTuple):
    """What the caller says that a file does not: see :func:`read_points`."""

    layout: Layout | None = None
    columns: tuple[str, ...] | None = None
    key: str | None = None
    label: str | os.PathLike[str] | bool | None = None


Opener = Callable[[Source, Naming], Table]

TEXT = (".xyz", ".txt", ".csv", ".asc", ".pts", ".xyzn", ".xyzrgb")
OPENERS: dict[str, Opener] = {
    ".bin": lambda source, naming: open_bin(source, naming.layout, naming.columns),
    ".npy": lambda source, naming: open_npy(source, naming.columns),
    ".npz": lambda source, naming: open_npz(source, naming.key, naming.columns),
    ".ply": lambda source, _: open_ply(source),
    ".pcd": lambda source, _: open_pcd(source),
    ".las": lambda source, _: open_las(source),
    ".laz": lambda source, _: open_las(source),
    **dict.fromkeys(TEXT, lambda source, naming: open_text(source, naming.columns)),
    ".off": lambda source, _: open_off(source),
    ".obj": lambda source, _: open_obj(source),
    ".e57": lambda source, _: open_e57(source),
    ".vtk": lambda source, _: open_vtk(source),
}
# which formats an argument is for
TAKEN = {
    "layout": (".bin",),
    "columns": (".bin", ".npy", ".npz", *TEXT),
    "key": (".npz",),
}


@dataclass(frozen=True)
class Scan:
    """What a file says before its points are read.

    Attributes:
        name: The file's.
        rows: Number of points.
        columns: The dtype of each column, by name, in the order of the file.
        bounds: Low and high corner where the header has them, else None.
        header: As of :class:`Points`.
    """

    name: str
    rows: int
    columns: dict[str, str]
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None
    header: dict[str, Any]


def scan(
    path: Readable,
    *,
    layout: Layout | None = None,
    columns: Sequence[str] | None = None,
    key: str | None = None,
) -> Scan:
    """Return what the header of a file says; rows are not read, but of formats without a header.

    Args:
        path, layout, columns, key: As of :func:`read_points`.

    Raises:
        SparseConvError: As of :func:`read_points`.
        OSError: The file cannot be opened.

    >>> import sparseconv as sc
    >>> sc.io.scan(b"1 2 3 0.5").columns
    {'x': 'float64', 'y': 'float64', 'z': 'float64', 'intensity': 'float64'}
    """
    source, table = _open(path, Naming(layout, _names(columns), key, label=False))
    kinds = {name: str(column.dtype.newbyteorder("=")) for name, column in table.columns.items()}
    return Scan(source.name, table.rows, kinds, table.header.get("bounds"), table.header)


def read_points(
    path: Readable,
    *,
    layout: Layout | None = None,
    columns: Sequence[str] | None = None,
    label: str | os.PathLike[str] | bool | None = None,
    key: str | None = None,
    fields: Sequence[str] | None = None,
    limit: int | None = None,
    every: int = 1,
    bounds: Sequence[Any] | npt.NDArray[Any] | None = None,
) -> Points:
    """Read a point cloud, the format chosen by the file's suffix (case does not matter).

    The reader returns what the file holds: rows with NaN are kept, and nothing is scaled.

    Args:
        path: A ``.bin`` (KITTI, nuScenes, ScanNet, Waymo), ``.npy``, ``.npz``, ``.ply``, ``.pcd``,
            ``.off``, ``.obj`` or text file (``.xyz .txt .csv .asc .pts``); with extras also
            ``.las``, ``.laz``, ``.e57``, ``.vtk``. Each may be packed as ``.gz``. Bytes and open
            files are told by their content.
        layout: Of a ``.bin`` file: ``"kitti"``, ``"nuscenes"``, ``"scannet"``, ``"sunrgbd"`` or
            ``"waymo"``; None decides by name, size and content.
        columns: Names of the columns of a table without (or with other) names, x, y and z among
            them; ``"_"`` leaves one out.
        label: Name of the column of labels, or a file of them (``.label``, ``_lidarseg.bin``,
            ``.npy``, ``.labels``); None finds a column by its name and a file beside a ``.bin``;
            False reads no labels from other files.
        key: Of a ``.npz``: the array that holds the positions.
        fields: Names of the columns to read besides x, y and z; None for all.
        limit: How many points to return at most, the first ones.
        every: Read each so many-th row of the file.
        bounds: ``(low, high)`` or ``(*low, *high)``: keep the points with low <= xyz < high.

    Returns:
        Coordinates ``[N, 3]``, features ``[N, F]``, their names, labels ``[N]`` or None, further
        columns and the header.

    Raises:
        SparseConvValueError: The suffix is unknown, an argument does not apply, or the file is
            damaged, not of its format, or has no such column.
        SparseConvError: A library that the format needs is not installed.
        OSError: The file cannot be opened (FileNotFoundError where it is missing).

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/scan.npy", np.zeros((5, 4)))
    ...     read_points(folder + "/scan.npy", limit=3)
    Points(3 points; xyz float64; features intensity)
    """
    _check_count("limit", limit, 0)
    _check_count("every", every, 1)
    box = _box(bounds)
    source, table = _open(path, Naming(layout, _names(columns), key, label))
    with naming_damage(source):
        roles = _roles(table, source, label).chosen(fields, source.name)
        if limit is None and box is None:
            kind = xyz_dtype(table, roles)
            return points_of(table, roles, slice(0, table.rows, every), kind)
        return join_points(list(_parts(source, table, roles, BLOCK, box, every, limit)))


def iter_points(
    path: Readable,
    *,
    rows: int = BLOCK,
    layout: Layout | None = None,
    columns: Sequence[str] | None = None,
    label: str | os.PathLike[str] | bool | None = None,
    key: str | None = None,
    fields: Sequence[str] | None = None,
    limit: int | None = None,
    every: int = 1,
    bounds: Sequence[Any] | npt.NDArray[Any] | None = None,
    levels: int | None = None,
) -> Iterator[Points]:
    r"""Read a point cloud by parts: what lies in memory is one part, where the format allows it.

    The parts one after the other are what :func:`read_points` returns. ``.las``, ``.laz``,
    ``.npy``, ``.bin`` and binary ``.ply`` and ``.pcd`` are read row by row; of a cloud-optimised
    ``.laz`` (COPC) only the nodes that `bounds` and `levels` need.

    Args:
        path, layout, columns, label, key, fields, limit, every, bounds: As of :func:`read_points`.
        rows: Rows of the file that are read at a time.
        levels: Of a COPC file: how many levels of detail, the coarsest first; None for all.

    Yields:
        Points; a part may be empty where `bounds` are given.

    Raises:
        SparseConvError, OSError: As of :func:`read_points`, before the first part.

    >>> [len(part) for part in iter_points(b"1 2 3\n4 5 6\n7 8 9", rows=2)]
    [2, 1]
    """
    _check_count("rows", rows, 1)
    _check_count("limit", limit, 0)
    _check_count("every", every, 1)
    box = _box(bounds)
    source, table = _open(path, Naming(layout, _names(columns), key, label))
    with naming_damage(source):
        check_copc(source, levels)
        roles = _roles(table, source, label).chosen(fields, source.name)
    return _parts(source, table, roles, rows, box, every, limit, levels)


def _parts(
    source: Source,
    table: Table,
    roles: Roles,
    rows: int,
    box: Box | None,
    every: int,
    limit: int | None,
    levels: int | None = None,
) -> Iterator[Points]:
    """Yield parts of at most ``rows`` rows, one at least; of an indexed file what it needs."""
    rows, left = rows // every * every or every, math.inf if limit is None else limit
    with naming_damage(source):
        kind = xyz_dtype(table, roles)
        runs: list[slice] | None = None
        if source.suffix == ".laz" and every == 1 and (box or levels):
            runs = copc_rows(checked_laz(source), box, levels)
        runs = [slice(0, table.rows)] if runs is None else runs or [slice(0, 0)]
    for run in runs:
        for start in range(run.start, max(run.stop, run.start + 1), rows):
            with naming_damage(source):
                part = slice(start, min(start + rows, run.stop), every)
                points = points_of(table, roles, part, kind)
            if box is not None:
                points = points[_inside(points, box)]
            yield points[: int(min(left, len(points)))] if limit is not None else points
            left -= len(points)
            if left <= 0:
                return


def _inside(points: Points, box: Box) -> npt.NDArray[np.bool_]:
    inside = (points.xyz >= box[0]) & (points.xyz < box[1])
    return np.asarray(inside.all(axis=1))


def _open(path: Readable, naming: Naming) -> tuple[Source, Table]:
    source = source_of(path, tuple(OPENERS))
    for name, suffixes in TAKEN.items():
        value = getattr(naming, name)
        if value is not None and source.suffix not in suffixes:
            raise SparseConvValueError(
                f"{name}={value!r} is for {', '.join(suffixes)} files, path is {source.name!r}"
            )
    with naming_damage(source):
        table = OPENERS[source.suffix](source, naming)
    beside: Any = None
    if naming.label is None and source.path is not None:
        beside = labels_beside(source.path)
    elif naming.label and naming.label is not True and is_label_file(naming.label):
        beside = naming.label
    return source, table if beside is None else with_labels(table, beside, source)


def _roles(table: Table, source: Source, label: str | os.PathLike[str] | bool | None) -> Roles:
    named = isinstance(label, str) and not is_label_file(label)
    return roles_of(table, source.name, str(label) if named else None)


def _names(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    if columns is None:
        return None
    if isinstance(columns, str):
        raise SparseConvTypeError(f"columns: must be a sequence of names, got {columns!r}")
    return tuple(columns)


def _check_count(name: str, value: Any, least: int) -> None:
    if value is None and name == "limit":
        return
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise SparseConvTypeError(f"{name}: must be a whole number, got {value!r}")
    if value < least:
        raise SparseConvValueError(f"{name}: must be {least} or more, got {value}")


def _box(bounds: Any) -> Box | None:
    """Return low and high corner."""
    if bounds is None:
        return None
    try:
        flat = np.asarray(bounds, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise SparseConvTypeError("bounds: must be (low, high) with 3 numbers each") from error
    if flat.size != 6 or np.isnan(flat).any() or (flat[:3] >= flat[3:]).any():
        raise SparseConvValueError(
            "bounds: must be (low, high) with 3 numbers each and low below high, got "
            f"{flat.tolist()}"
        )
    low, high = flat[:3].tolist(), flat[3:].tolist()
    return tuple(low), tuple(high)
