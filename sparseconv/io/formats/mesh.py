"""Vertices of meshes: ``.off`` and ``.obj``; their faces are left alone."""

from __future__ import annotations

import re

import numpy as np

from sparseconv.io.numbers import read_numbers
from sparseconv.io.points import AXIS_NAMES, COLORS
from sparseconv.io.source import Source
from sparseconv.io.table import Table, array_columns

OBJ_NAMES = {
    3: AXIS_NAMES,
    4: (*AXIS_NAMES, "w"),
    6: (*AXIS_NAMES, *COLORS),
    7: (*AXIS_NAMES, "w", *COLORS),
}
OFF_NAMES = {
    3: AXIS_NAMES,
    6: (*AXIS_NAMES, *COLORS),
    7: (*AXIS_NAMES, *COLORS, "alpha"),
}
LONGEST_LINE = 1 << 12  # bytes


def open_off(source: Source) -> Table:
    """Read the vertices of an ``.off`` file (of ModelNet, too, which glues the counts to OFF).

    Raises:
        ValueError: The file is damaged.

    Source: The Geometry Center, "Object File Format".
    """
    data = source.buffer()
    head = data[: 16 * LONGEST_LINE].tobytes()
    match = re.match(rb"\s*(?:#[^\n]*\n\s*)*(?:C|N|ST)*OFF\s*(?:#[^\n]*\n\s*)*(\d+)[ \t]+\d+", head)
    if match is None:
        raise ValueError("it must begin with OFF and the number of its vertices")
    rows, end = int(match[1]), head.find(b"\n", match.end()) + 1
    if rows * 6 > len(data) - end + 1:
        raise ValueError(f"{rows} vertices promised, {len(data) - end} bytes found")
    line = next((part for part in head[end:].split(b"\n") if part.strip()), b"")
    columns = len(line.partition(b"#")[0].split()) if rows else 3
    if columns not in OFF_NAMES:
        raise ValueError(f"a vertex has {columns} numbers, must have 3, 6 or 7")
    table = read_numbers(data[end:], columns, rows=rows)
    if len(table) != rows:
        raise ValueError(f"{rows} vertices promised, {len(table)} found")
    arrays = {name: table[:, number] for number, name in enumerate(OFF_NAMES[columns])}
    return Table(rows, array_columns(arrays, typed=True), {"format": "off"}, at_once=True)


def open_obj(source: Source) -> Table:
    """Read the vertices of an ``.obj`` file, with their colours where it has some.

    Raises:
        ValueError: The file is damaged.

    Source: Wavefront, "Object Files (.obj)".
    """
    lines = source.buffer().tobytes().split(b"\n")
    kept = [line[1:] for line in lines if line[:2] in (b"v ", b"v\t")]
    if not kept:
        raise ValueError("it has no vertices (lines that begin with v)")
    columns = len(kept[0].partition(b"#")[0].split())
    if columns not in OBJ_NAMES:
        raise ValueError(f"a vertex has {columns} numbers, must have 3, 4, 6 or 7")
    table = read_numbers(np.frombuffer(b"\n".join(kept), np.uint8), columns)
    arrays = {name: table[:, number] for number, name in enumerate(OBJ_NAMES[columns])}
    return Table(len(table), array_columns(arrays, typed=True), {"format": "obj"}, at_once=True)
