"""The Point Cloud Library's format: ``.pcd``, text, binary and compressed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.fields import as_fields, check_numbers
from sparseconv.io.formats.lzf import decompress
from sparseconv.io.points import COLORS, Points
from sparseconv.io.records import COUNT, Encoded, binary_records, text_records
from sparseconv.io.source import Source
from sparseconv.io.table import Array, Column, Table, record_columns

KINDS = {"F": "f", "I": "i", "U": "u"}
SHIFTS = dict(zip((*COLORS, "alpha"), (16, 8, 0, 24), strict=True))
PADDING = "_"
LONGEST_HEADER = 1 << 20  # bytes
HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS {names}
SIZE {sizes}
TYPE {kinds}
COUNT {counts}
WIDTH {width}
HEIGHT {height}
VIEWPOINT {viewpoint}
POINTS {rows}
DATA binary
"""
NO_VIEWPOINT = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def open_pcd(source: Source) -> Table:
    """Find the points of a ``.pcd`` file of any encoding (ascii, binary, binary_compressed).

    Args:
        source: The file. A packed ``rgb`` or ``rgba`` becomes ``red``, ``green``, ``blue`` (and
            ``alpha``), 0 to 255; padding is left out. Binary rows are mapped, not read. The header
            keeps ``"viewpoint"`` and, of an organised cloud, ``"width"`` and ``"height"``.

    Raises:
        SparseConvValueError: The file is damaged.

    Source: Point Cloud Library, "The PCD (Point Cloud Data) file format".
    """
    data = source.buffer()
    header, start = _header(data)
    dtype = _row(header)
    rows = int(header["POINTS"][0]) if "POINTS" in header else _grid(header)
    encoding = header["DATA"][0].lower()
    text = encoding == "ascii"
    columns = record_columns(dtype, _records(data, start, dtype, rows, encoding), text)
    notes: dict[str, Any] = {"format": "pcd", "encoding": encoding}
    if len(header.get("VIEWPOINT", ())) == len(NO_VIEWPOINT):
        notes["viewpoint"] = tuple(map(float, header["VIEWPOINT"]))
    if header.get("HEIGHT", ["1"]) != ["1"] and _grid(header) == rows:
        notes |= {"width": int(header["WIDTH"][0]), "height": int(header["HEIGHT"][0])}
    found = _unpacked(columns)
    if set(COLORS) <= set(found) and not set(COLORS) & set(columns):
        notes["units"] = dict.fromkeys(COLORS, "0..255")
    return Table(rows, found, notes, at_once=encoding != "binary")


def _header(data: npt.NDArray[np.uint8]) -> tuple[dict[str, list[str]], int]:
    """Return the words behind each key, and where the data begins."""
    header: dict[str, list[str]] = {}
    end = 0
    for line in data[:LONGEST_HEADER].tobytes().split(b"\n"):
        end += len(line) + 1
        words = line.decode("ascii", "replace").split()
        if not words or words[0].startswith("#"):
            continue
        key = "FIELDS" if words[0] == "COLUMNS" else words[0]  # as in version .5
        header[key] = words[1:]
        if key == "DATA":
            break
    for key in ("DATA", "FIELDS", "SIZE", "TYPE"):
        if not header.get(key):
            raise ValueError(f"its header has no line {key}")
    return header, min(end, len(data))


def _row(header: dict[str, list[str]]) -> np.dtype[Any]:
    """Return the dtype of one row; padding, which has no name of its own, is numbered."""
    counts = header.get("COUNT", ["1"] * len(header["FIELDS"]))
    columns: list[Any] = []
    lengths = {len(header["FIELDS"]), len(header["TYPE"]), len(header["SIZE"]), len(counts)}
    if len(lengths) > 1:
        raise ValueError("its FIELDS, SIZE, TYPE and COUNT have different lengths")
    for name, kind, size, count in zip(
        header["FIELDS"], header["TYPE"], header["SIZE"], counts, strict=True
    ):
        entry = f"{name}{len(columns)}" if name == PADDING else name
        shape = () if count == "1" else (int(count),)
        if kind.upper() not in KINDS:
            raise ValueError(f"TYPE of {name} is {kind!r}, must be F, I or U")
        columns.append((entry, "<" + KINDS[kind.upper()] + size, shape))
    return np.dtype(columns)


def _grid(header: dict[str, list[str]]) -> int:
    if "WIDTH" not in header:
        raise ValueError("its header has neither POINTS nor WIDTH")
    return int(header["WIDTH"][0]) * int(header.get("HEIGHT", ["1"])[0])


def _records(
    data: npt.NDArray[np.uint8], start: int, dtype: np.dtype[Any], rows: int, encoding: str
) -> Callable[[], Any]:
    """Return what reads the rows; promises are checked now."""
    if rows < 0:
        raise ValueError(f"{rows} rows promised")
    if encoding == "binary":
        mapped = binary_records(data, start, dtype, rows)
        return lambda: mapped
    if encoding == "ascii":
        return lambda: text_records(data, start, dtype, rows)
    if encoding != "binary_compressed":
        raise ValueError(f"DATA is {encoding!r}, must be ascii, binary or binary_compressed")
    if len(data) - start < 8:
        raise ValueError("its compressed part is missing")
    small, size = struct.unpack("<II", data[start : start + 8].tobytes())
    if size != rows * dtype.itemsize:
        raise ValueError(f"{rows} rows of {dtype.itemsize} bytes promised, {size} bytes found")
    if small > len(data) - start - 8:
        raise ValueError(f"its compressed part has {len(data) - start - 8} bytes of {small}")
    packed = data[start + 8 : start + 8 + small]
    return lambda: _compressed(packed.tobytes(), dtype, rows, size)


def _compressed(packed: bytes, dtype: np.dtype[Any], rows: int, size: int) -> dict[str, Array]:
    """Return fields that are kept one after the other, not row by row."""
    data = decompress(packed, size)
    columns: dict[str, Array] = {}
    start = 0
    for name in dtype.names or ():
        kind = dtype[name]
        values = np.frombuffer(data, kind.base, rows * kind.itemsize // kind.base.itemsize, start)
        columns[name] = values.reshape(rows, *kind.shape)
        start += rows * kind.itemsize
    return columns


def _unpacked(columns: dict[str, Column]) -> dict[str, Column]:
    """Leave the padding out and take packed colours apart."""
    found: dict[str, Column] = {}
    for name, column in columns.items():
        if name.startswith(PADDING) and name[1:].partition("_")[0].isdigit():
            continue
        if name not in ("rgb", "rgba") or column.dtype.itemsize != 4:
            found[name] = column
            continue
        for color, shift in SHIFTS.items():
            if color in COLORS or name == "rgba":
                found[color] = Column(np.dtype(np.uint8), _color(column, shift))
    return found


def _color(column: Column, shift: int) -> Callable[[slice], Array]:
    kind = column.dtype.newbyteorder("=")

    def read(rows: slice) -> Array:
        packed = np.ascontiguousarray(column.read(rows)).astype(kind).view(np.uint32)
        return (packed >> shift & 255).astype(np.uint8)

    return read


def encode_pcd(points: Points) -> Encoded:
    """Return a ``.pcd`` file, binary; the viewpoint and the grid of an organised cloud are kept.

    Args:
        points: Coordinates and further columns keep their dtype, labels become 8 byte integers.

    Raises:
        SparseConvValueError: A feature's name cannot stand in the header, or means packed colours.
    """
    fields = as_fields(points, reserved=("rgb", "rgba"))
    check_numbers(fields, ".pcd")
    if any(name.startswith(PADDING) for name in fields):
        raise SparseConvValueError(
            f"feature_names: in a .pcd, {PADDING} begins the name of padding"
        )
    fields = {n: v.astype("u1") if v.dtype == bool else v for n, v in fields.items()}
    dtype = np.dtype([(name, values.dtype.newbyteorder("<")) for name, values in fields.items()])
    records = np.empty(len(points), dtype)
    for name, values in fields.items():
        records[name] = values
    viewpoint = points.header.get("viewpoint", NO_VIEWPOINT)
    header = HEADER.format(
        names=" ".join(fields),
        sizes=" ".join(str(values.dtype.itemsize) for values in fields.values()),
        kinds=" ".join(values.dtype.kind.upper() for values in fields.values()),
        counts=" ".join("1" for _ in fields),
        width=points.header.get("width", COUNT),
        height=points.header.get("height", 1),
        viewpoint=" ".join(f"{value:.17g}" for value in viewpoint),
        rows=COUNT,
    )
    return Encoded(header, records.tobytes())
