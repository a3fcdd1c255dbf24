"""One NumPy array: ``.npy``, of numbers or of named fields."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np

from sparseconv.errors import SparseConvValueError
from sparseconv.io.fields import as_xyz, column_names, named_columns
from sparseconv.io.points import AXES, Points
from sparseconv.io.records import Encoded
from sparseconv.io.source import Source
from sparseconv.io.table import Array, Table, array_columns

HEADER_ROOM = 1 << 16  # bytes in which a header of any version ends
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_npy(source: Source, columns: tuple[str, ...] | None) -> Table:
    """Find the array of a ``.npy`` file; pickled objects are refused.

    Args:
        source: The file; an array ``[N, 3 + F]``, integer or floating, or ``[N]`` with named
            fields. It is mapped, not read.
        columns: Names of the columns; None calls one further column ``intensity``, several
            ``feature_0``, ``feature_1`` and so on.

    Raises:
        SparseConvValueError: The file is damaged, or its array has another shape or dtype.
    """
    data = source.buffer()
    if data[:2].tobytes() == b"PK":
        raise SparseConvValueError(f"{source.name!r} is an archive, name it .npz")
    head = io.BytesIO(data[:HEADER_ROOM].tobytes())
    shape, fortran, dtype = npy_header(head)
    start, count = head.tell(), _count(shape)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if count * dtype.itemsize > len(data) - start:
        raise ValueError(
            f"{count * dtype.itemsize} bytes promised, {len(data) - start} bytes found"
        )
    flat: Array = np.frombuffer(data[start : start + count * dtype.itemsize].data, dtype, count)
    array = flat.reshape(shape, order="F" if fortran else "C")
    return table_of(array, f"the array in {source.name!r}", columns)


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and dtype of the array that ``file`` begins with."""
    version = np.lib.format.read_magic(file)
    reader = READERS.get(version)
    if reader is None:
        raise ValueError(f"its version {version} is not known")
    shape, fortran, dtype = reader(file)
    return shape, fortran, dtype


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        if size < 0:
            raise ValueError(f"its shape {shape} is impossible")
        count *= size
    return count


def table_of(array: Array, source: str, columns: tuple[str, ...] | None) -> Table:
    """Return the table of an array with named fields, or of rows x, y, z and more.

    Raises:
        SparseConvValueError: The array has another shape or dtype.
    """
    fields = array.dtype.names
    if fields:
        if columns is not None:
            raise SparseConvValueError(f"columns: {source} has names already")
        array = array.reshape(-1)
        found = array_columns({name: array[name] for name in fields})
        return Table(len(array), found, {"format": "npy"})
    if array.dtype.kind not in "iuf":
        raise SparseConvValueError(f"{source} has dtype {array.dtype}, must be integer or floating")
    if array.ndim != 2 or array.shape[1] < AXES:
        raise SparseConvValueError(f"{source} has shape {array.shape}, must be (N, 3 + F)")
    width = array.shape[1]
    names = named_columns(columns, column_names(width), width, source)
    parts = {name: array[:, number] for number, name in enumerate(names) if name != "_"}
    return Table(len(array), array_columns(parts), {"format": "npy"})


def encode_npy(points: Points) -> Encoded:
    """Return one array ``[N, 3 + F]`` of positions and features; their names are not kept.

    Args:
        points: What to write, without labels.

    Raises:
        SparseConvValueError: There are labels, or columns that are no features.
    """
    if points.labels is not None:
        raise SparseConvValueError("labels: a .npy does not hold them, write .npz")
    if points.extra:
        raise SparseConvValueError(f"extra: a .npy does not hold {', '.join(points.extra)}")
    table: Array = np.concatenate([as_xyz(points.xyz), points.features], axis=1)
    start = {"descr": table.dtype.str, "fortran_order": False}

    def header(count: str) -> bytes:
        file = io.BytesIO()  # NumPy leaves room in it for a larger number
        shape = (int(count), table.shape[1])
        np.lib.format.write_array_header_1_0(file, {**start, "shape": shape})
        return file.getvalue()

    return Encoded(header, table.tobytes())
