"""The Stanford polygon format: ``.ply``, text and binary; its vertices alone are points."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.formats.records import binary_records, text_records
from sparseconv.io.points import Points, as_fields, from_fields

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
WRITTEN = {"f4": "float", "f8": "double", "i4": "int"}
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


class Element(NamedTuple):
    """One table of the file: its name, its number of rows, and the dtype of a row.

    The dtype is None where a property is a list, whose rows differ in length.
    """

    name: str
    rows: int
    properties: list[tuple[str, str]] | None


def read_ply(path: Path) -> Points:
    """Read the vertices of a ``.ply`` file; faces and other elements behind them are left alone.

    Args:
        path: The file. The properties x, y, z are positions, an integer ``label`` or ``labels`` the
            labels, all others features under their own names.

    Returns:
        Points; coordinates are float64 where x, y, z are double. NaN rows are kept.

    Raises:
        SparseConvValueError: The file is damaged or has no vertices with x, y and z.

    Source: Turk 1994, "The PLY Polygon File Format".
    """
    with path.open("rb") as file, naming_damage(path):
        encoding, elements = _header(file)
        for element in elements:
            if element.properties is None:
                raise SparseConvValueError(
                    f"{path.name!r} has lists in its element {element.name!r}, which must not be "
                    f"the vertices nor stand before them"
                )
            records = _records(file, encoding, element)
            if element.name == "vertex":
                return from_fields(
                    {name: records[name] for name, _ in element.properties}, path.name
                )
        raise SparseConvValueError(f"{path.name!r} has no element vertex")


def _records(file: BinaryIO, encoding: str, element: Element) -> npt.NDArray[Any]:
    properties = element.properties or []
    dtype = np.dtype([(name, ORDERS[encoding] + kind) for name, kind in properties])
    if encoding == "ascii":
        return text_records(file, dtype, element.rows)
    return binary_records(file, dtype, element.rows)


def _header(file: BinaryIO) -> tuple[str, list[Element]]:
    """Return the encoding and the elements, in the order of the file."""
    if file.readline().strip() != b"ply":
        raise ValueError("the first line must be ply")
    encoding, elements = "", []
    while (line := file.readline()) and line.strip() != b"end_header":
        word, *rest = line.decode("ascii", "replace").split() or [""]
        if word == "format":
            encoding = rest[0]
        elif word == "element":
            elements.append(Element(rest[0], int(rest[1]), []))
        elif word == "property" and rest[0] == "list":
            elements[-1] = elements[-1]._replace(properties=None)
        elif word == "property" and elements[-1].properties is not None:
            elements[-1].properties.append((rest[1], TYPES[rest[0]]))
        elif word not in ("comment", "obj_info", "property", ""):
            raise ValueError(f"unknown word {word!r} in the header")
    if not line or encoding not in ORDERS:
        raise ValueError(f"the header must name one of the formats {', '.join(ORDERS)} and end")
    return encoding, elements


def write_ply(path: Path, points: Points) -> None:
    """Write a ``.ply`` file, binary and little-endian.

    Args:
        path: The file, replaced if it is there.
        points: Coordinates keep their dtype, labels become ``int``.

    Raises:
        SparseConvValueError: A feature's name cannot stand in the header, or a label is no int32.
    """
    fields = as_fields(points)
    if points.labels is not None:
        fields["label"] = points.labels.astype("<i4")
        if not np.array_equal(fields["label"], points.labels):
            raise SparseConvValueError("labels: a .ply holds int32, write .npz for larger ones")
    dtype = np.dtype([(name, values.dtype.newbyteorder("<")) for name, values in fields.items()])
    records = np.empty(len(points), dtype)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    for name, values in fields.items():
        records[name] = values
        header.append(f"property {WRITTEN[values.dtype.str[1:]]} {name}")
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + records.tobytes())
