"""The Point Cloud Library's format: ``.pcd``, text, binary and compressed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.formats.lzf import decompress
from sparseconv.io.formats.records import binary_records, text_records
from sparseconv.io.points import Fields, Points, as_fields, from_fields

KINDS = {"F": "f", "I": "i", "U": "u"}
COLORS = ("red", "green", "blue")  # packed into 4 bytes of a field rgb or rgba, alpha above them
PADDING = "_"
HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS {names}
SIZE {sizes}
TYPE {kinds}
COUNT {counts}
WIDTH {rows}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {rows}
DATA binary
"""


def read_pcd(path: Path) -> Points:
    """Read a ``.pcd`` file of any encoding (ascii, binary, binary_compressed).

    Args:
        path: The file. The fields x, y, z are positions, an integer ``label`` or ``labels`` the
            labels, all others features under their own names; a packed ``rgb`` or ``rgba`` becomes
            ``red``, ``green``, ``blue`` (and ``alpha``), 0 to 255. The grid of an organised cloud
            is not kept, its rows are.

    Returns:
        Points; coordinates are float64 where x, y, z are. NaN rows are kept.

    Raises:
        SparseConvValueError: The file is damaged or has no fields x, y and z.

    Source: Point Cloud Library, "The PCD (Point Cloud Data) file format".
    """
    with path.open("rb") as file, naming_damage(path):
        header = _header(file)
        dtype = _row(header)
        rows = int(header["POINTS"][0]) if "POINTS" in header else _grid(header)
        fields = _fields(file, dtype, rows, header["DATA"][0])
        return from_fields(_unpacked(fields), path.name)


def _header(file: BinaryIO) -> dict[str, list[str]]:
    """Return the words behind each key, up to the line that says how the data are kept."""
    header: dict[str, list[str]] = {}
    while "DATA" not in header:
        line = file.readline()
        if not line:
            raise ValueError("its header has no line DATA")
        words = line.decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
    return header


def _row(header: dict[str, list[str]]) -> np.dtype[Any]:
    """Return the dtype of one row; padding, which has no name of its own, is numbered."""
    counts = header.get("COUNT", ["1"] * len(header["FIELDS"]))
    columns: list[Any] = []
    for name, kind, size, count in zip(
        header["FIELDS"], header["TYPE"], header["SIZE"], counts, strict=True
    ):
        entry = f"{name}{len(columns)}" if name == PADDING else name
        shape = () if count == "1" else (int(count),)
        columns.append((entry, "<" + KINDS[kind] + size, shape))
    return np.dtype(columns)


def _grid(header: dict[str, list[str]]) -> int:
    return int(header["WIDTH"][0]) * int(header["HEIGHT"][0])


def _fields(file: BinaryIO, dtype: np.dtype[Any], rows: int, encoding: str) -> Fields:
    if encoding == "binary_compressed":
        return _compressed_fields(file, dtype, rows)
    if encoding == "binary":
        records = binary_records(file, dtype, rows)
    elif encoding == "ascii":
        records = text_records(file, dtype, rows)
    else:
        raise ValueError(f"DATA is {encoding!r}, must be ascii, binary or binary_compressed")
    return {name: records[name] for name in dtype.names or ()}


def _compressed_fields(file: BinaryIO, dtype: np.dtype[Any], rows: int) -> Fields:
    """Read fields that are kept one after the other, not row by row."""
    small, size = struct.unpack("<II", file.read(8))
    if size != rows * dtype.itemsize:
        raise ValueError(f"{rows} rows of {dtype.itemsize} bytes promised, {size} bytes found")
    data = decompress(file.read(small), size)
    columns: Fields = {}
    start = 0
    for name in dtype.names or ():
        kind = dtype[name]
        values = np.frombuffer(data, kind.base, rows * kind.itemsize // kind.base.itemsize, start)
        columns[name] = values.reshape(rows, *kind.shape)
        start += rows * kind.itemsize
    return columns


def _unpacked(fields: Fields) -> Fields:
    """Drop the padding and take packed colours apart."""
    columns: Fields = {}
    for name, values in fields.items():
        if name.startswith(PADDING) and name[1:].isdigit():
            continue
        if name not in ("rgb", "rgba") or values.ndim > 1 or values.dtype.itemsize != 4:
            columns[name] = values
            continue
        packed: npt.NDArray[np.uint32] = np.ascontiguousarray(values).view("<u4")
        for color, shift in zip((*COLORS, "alpha"), (16, 8, 0, 24), strict=True):
            if color in COLORS or name == "rgba":
                columns[color] = packed >> shift & 255
    return columns


def write_pcd(path: Path, points: Points) -> None:
    """Write a ``.pcd`` file, binary.

    Args:
        path: The file, replaced if it is there.
        points: Coordinates keep their dtype, labels become 8 byte integers.

    Raises:
        SparseConvValueError: A feature's name cannot stand in the header, or means packed colours.
    """
    fields = as_fields(points, reserved=("rgb", "rgba"))
    if any(name.startswith(PADDING) for name in fields):
        raise SparseConvValueError(
            f"feature_names: in a .pcd, {PADDING} begins the name of padding"
        )
    dtype = np.dtype([(name, values.dtype.newbyteorder("<")) for name, values in fields.items()])
    records = np.empty(len(points), dtype)
    for name, values in fields.items():
        records[name] = values
    header = HEADER.format(
        names=" ".join(fields),
        sizes=" ".join(str(values.dtype.itemsize) for values in fields.values()),
        kinds=" ".join(values.dtype.kind.upper() for values in fields.values()),
        counts=" ".join("1" for _ in fields),
        rows=len(points),
    )
    path.write_bytes(header.encode() + records.tobytes())
