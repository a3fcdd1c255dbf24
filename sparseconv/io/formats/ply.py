"""The Stanford polygon format: ``.ply``, text and binary; its vertices alone are points."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.fields import as_fields, check_numbers
from sparseconv.io.points import Points
from sparseconv.io.records import COUNT, Encoded, binary_records, text_records
from sparseconv.io.source import Source
from sparseconv.io.table import Array, Table, record_columns

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
WRITTEN = {kind: name for name, kind in TYPES.items() if not name[-1].isdigit()}
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
LONGEST_HEADER = 1 << 20  # bytes


class Property(NamedTuple):
    """A number of each row, or a list of them: then `length` is the type of their number."""

    name: str
    kind: str
    length: str | None = None


class Element(NamedTuple):
    """One table of the file: its name, its number of rows, and what a row holds."""

    name: str
    rows: int
    properties: list[Property]

    @property
    def has_lists(self) -> bool:
        """Whether rows may differ in length."""
        return any(entry.length for entry in self.properties)


class Header(NamedTuple):
    """What stands above the rows."""

    encoding: str
    elements: list[Element]
    comments: tuple[str, ...]
    end: int


def open_ply(source: Source) -> Table:
    """Find the vertices of a ``.ply`` file; faces and other elements are left alone.

    Args:
        source: The file. Binary vertices without lists are mapped, not read. A list of a vertex
            gives columns ``name_0``, ``name_1``, ... where all have the same length; one of varying
            length is left out, as the header's ``"left_out"`` says.

    Raises:
        SparseConvValueError: The file is damaged or has no vertices.

    Source: Turk 1994, "The PLY Polygon File Format".
    """
    data = source.buffer()
    header = _header(data)
    place = header.end
    notes: dict[str, Any] = {"format": "ply", "encoding": header.encoding}
    if header.comments:
        notes["comments"] = header.comments
    for element in header.elements:
        if element.name == "vertex":
            return _vertices(data, place, header.encoding, element, notes)
        place = _behind(data, place, header.encoding, element)
    raise SparseConvValueError(f"{source.name!r} has no element vertex")


def _vertices(
    data: npt.NDArray[np.uint8], place: int, encoding: str, element: Element, notes: dict[str, Any]
) -> Table:
    text = encoding == "ascii"
    if element.has_lists:
        dtype, records, left_out = _listed(data, place, encoding, element)
        notes |= {"left_out": left_out} if left_out else {}
        return Table(element.rows, record_columns(dtype, lambda: records, text), notes)
    dtype = _dtype(encoding, element.properties)
    if text:
        columns = record_columns(
            dtype, lambda: text_records(data, place, dtype, element.rows), True
        )
        return Table(element.rows, columns, notes, at_once=True)
    mapped = binary_records(data, place, dtype, element.rows)
    return Table(element.rows, record_columns(dtype, lambda: mapped), notes)


def _dtype(encoding: str, properties: list[Property]) -> np.dtype[Any]:
    return np.dtype([(entry.name, ORDERS[encoding] + entry.kind) for entry in properties])


def _behind(data: npt.NDArray[np.uint8], place: int, encoding: str, element: Element) -> int:
    """Return where the element after this one begins."""
    if encoding == "ascii":
        for _ in range(element.rows):
            place = _line_end(data, place)
        return place
    if element.has_lists:
        return _starts(data, place, encoding, element)[-1]
    size = _dtype(encoding, element.properties).itemsize * element.rows
    if size > len(data) - place:
        raise ValueError(f"{size} bytes of {element.name} promised, {len(data) - place} found")
    return place + size


def _line_end(data: npt.NDArray[np.uint8], place: int) -> int:
    piece = data[place : place + 4096].tobytes()
    while piece:
        found = piece.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(piece)
        piece = data[place : place + 4096].tobytes()
    raise ValueError("it ends before its vertices")


def _least(element: Element) -> int:
    """Return the fewest bytes of a binary row."""
    return sum(np.dtype(entry.length or entry.kind).itemsize for entry in element.properties)


def _starts(data: npt.NDArray[np.uint8], place: int, encoding: str, element: Element) -> list[int]:
    """Return where each binary row with lists begins, and where the last one ends."""
    if element.rows * _least(element) > len(data) - place:
        raise ValueError(f"{element.rows} rows promised, {len(data) - place} bytes found")
    order, raw, starts = ORDERS[encoding], memoryview(data.data), [place]
    counts = [
        np.dtype(order + entry.length) if entry.length else None for entry in element.properties
    ]
    sizes = [np.dtype(entry.kind).itemsize for entry in element.properties]
    endian: Any = "big" if order == ">" else "little"
    for _ in range(element.rows):
        for count, size in zip(counts, sizes, strict=True):
            if count is None:
                place += size
                continue
            items = int.from_bytes(raw[place : place + count.itemsize], endian)
            place += count.itemsize + items * size
        if place > len(data):
            raise ValueError(f"it ends within a list of {element.name}")
        starts.append(place)
    return starts


def _listed(
    data: npt.NDArray[np.uint8], place: int, encoding: str, element: Element
) -> tuple[np.dtype[Any], Array, tuple[str, ...]]:
    """Read rows with lists: plain properties, lists of equal length, names of the other lists."""
    if encoding == "ascii":
        rows = _text_rows(data, place, element)
    else:
        rows = _binary_rows(data, place, encoding, element)
    columns: dict[str, Array] = {}
    left_out: list[str] = []
    for entry, values in zip(element.properties, zip(*rows, strict=True), strict=True):
        if entry.length is None or (len({len(value) for value in values}) == 1 and len(values[0])):
            columns[entry.name] = np.array(values, dtype=_typed(entry.kind, encoding))
        else:
            left_out.append(entry.name)
    dtype = np.dtype([(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
    records = np.empty(element.rows, dtype)
    for name, column in columns.items():
        records[name] = column
    return dtype, records, tuple(left_out)


def _typed(kind: str, encoding: str) -> str:
    return "f8" if encoding == "ascii" and kind == "f4" else kind


def _text_rows(data: npt.NDArray[np.uint8], place: int, element: Element) -> list[list[Any]]:
    if element.rows > len(data) - place:
        raise ValueError(f"{element.rows} rows promised, {len(data) - place} bytes found")
    rows: list[list[Any]] = []
    for _ in range(element.rows):
        end = _line_end(data, place) if place < len(data) else place
        words = data[place:end].tobytes().split()
        row, word = [], 0
        for entry in element.properties:
            width = int(words[word]) if entry.length else 1
            word += entry.length is not None
            numbers = [float(text) for text in words[word : word + width]]
            if len(numbers) != width:
                raise ValueError(f"line {len(rows) + 1} of {element.name} is too short")
            row.append(numbers if entry.length else numbers[0])
            word += width
        rows.append(row)
        place = end
    return rows


def _binary_rows(
    data: npt.NDArray[np.uint8], place: int, encoding: str, element: Element
) -> list[list[Any]]:
    order = ORDERS[encoding]
    rows: list[list[Any]] = []
    for begin in _starts(data, place, encoding, element)[:-1]:
        row: list[Any] = []
        start = begin
        for entry in element.properties:
            width = 1
            if entry.length:
                width = int(np.frombuffer(data.data, order + entry.length, 1, start)[0])
                start += np.dtype(entry.length).itemsize
            values = np.frombuffer(data.data, order + entry.kind, width, start)
            start += values.nbytes
            row.append(values if entry.length else values[0])
        rows.append(row)
    return rows


def _header(data: npt.NDArray[np.uint8]) -> Header:
    """Return encoding and elements, in the order of the file."""
    head = data[:LONGEST_HEADER].tobytes()
    lines = head.split(b"\n")
    if lines[0].strip() != b"ply":
        raise ValueError("the first line must be ply")
    elements, comments, end = list[Element](), list[str](), len(lines[0]) + 1
    encoding, ended = "", False
    for line in lines[1:]:
        end += len(line) + 1
        ended = line.strip() == b"end_header"
        if ended:
            break
        word, *rest = line.decode("latin1").split() or [""]
        if word == "format":
            encoding = rest[0]
        elif word == "element":
            elements.append(Element(rest[0], _rows(rest[1]), []))
        elif word == "property":
            elements[-1].properties.append(_property(rest))
        elif word in ("comment", "obj_info"):
            comments.append(" ".join(rest))
        elif word:
            raise ValueError(f"unknown word {word!r} in the header")
    encoding = encoding if ended else ""
    if encoding not in ORDERS:
        raise ValueError(f"the header must name one of the formats {', '.join(ORDERS)} and end")
    return Header(encoding, elements, tuple(comments), min(end, len(data)))


def _property(words: list[str]) -> Property:
    if words[0] == "list":
        return Property(words[3], TYPES[words[2]], TYPES[words[1]])
    return Property(words[1], TYPES[words[0]])


def _rows(word: str) -> int:
    rows = int(word)
    if rows < 0:
        raise ValueError(f"{rows} rows promised")
    return rows


def encode_ply(points: Points) -> Encoded:
    """Return a ``.ply`` file, binary and little-endian.

    Args:
        points: Coordinates and further columns keep their dtype, labels become ``int``.

    Raises:
        SparseConvValueError: A feature's name cannot stand in the header, or an integer is no
            int32 (uint32).
    """
    fields = as_fields(points)
    check_numbers(fields, ".ply")
    if points.labels is not None:
        fields["label"] = points.labels.astype("<i4")
        if not np.array_equal(fields["label"], points.labels):
            raise SparseConvValueError("labels: a .ply holds int32, write .npz for larger ones")
    for name, values in fields.items():
        if values.dtype == bool:
            fields[name] = values.astype("u1")
        elif values.dtype.str[1:] not in WRITTEN:
            raise SparseConvValueError(
                f"extra: a .ply holds no {values.dtype} ({name}), write .npz"
            )
    dtype = np.dtype([(name, values.dtype.newbyteorder("<")) for name, values in fields.items()])
    records = np.empty(len(points), dtype)
    comments = [f"comment {line}" for line in points.header.get("comments", ()) if line.isascii()]
    header = ["ply", "format binary_little_endian 1.0", *comments]
    header.append(f"element vertex {COUNT}")
    for name, values in fields.items():
        records[name] = values
        header.append(f"property {WRITTEN[values.dtype.str[1:]]} {name}")
    return Encoded("\n".join([*header, "end_header", ""]), records.tobytes())
