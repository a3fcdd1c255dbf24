"""Numbers as text: ``.xyz``, ``.txt`` and ``.csv``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparseconv.io.damage import naming_damage
from sparseconv.io.points import (
    AXES,
    AXIS_NAMES,
    LABEL_NAMES,
    Fields,
    Points,
    as_fields,
    from_columns,
    from_fields,
)

COMMENTS = ("#", "//")


def read_text(path: Path) -> Points:
    """Read lines of numbers, separated by commas, semicolons or blanks.

    Args:
        path: The file. Lines that begin with ``#`` or ``//`` are comments. A first line of names
            (a comment may hold it) says which column is which; a column ``label`` or ``labels`` of
            whole numbers holds the labels. Without names the columns are x, y, z and features.

    Returns:
        Points; coordinates are float64, since text may hold that many digits. Unnamed features are
        called as in a ``.npy`` file. NaN rows are kept.

    Raises:
        SparseConvValueError: A line is no row of as many numbers as the first, or there are fewer
            than 3 columns.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file, naming_damage(path):
        lines = [line for line in file.read().splitlines() if line.strip()]
        names, first = _names(lines)
        body = [line for line in lines[first:] if not line.lstrip().startswith(COMMENTS)]
        if not body:
            table = np.zeros((0, len(names) or AXES))
        else:
            separator = _separator(body[0])
            table = np.loadtxt(body, delimiter=separator, comments=COMMENTS, ndmin=2)
        if not names:
            return from_columns(table, path.name)
        if len(names) != table.shape[1]:
            raise ValueError(f"{len(names)} names for {table.shape[1]} columns")
        if len(set(names)) != len(names):
            raise ValueError(f"the names {', '.join(names)} must differ")
        return from_fields(_fields(names, table), path.name)


def _separator(line: str) -> str | None:
    """Return what separates the columns; None for blanks."""
    return next((mark for mark in ";," if mark in line), None)


def _words(line: str) -> list[str]:
    for comment in COMMENTS:
        line = line.strip().removeprefix(comment)
    return [word.strip(" \t\"'") for word in line.strip().split(_separator(line))]


def _names(lines: list[str]) -> tuple[list[str], int]:
    """Return the columns' names, none if there are none, and the number of lines above the data."""
    above: list[str] = []
    for number, line in enumerate(lines):
        if line.lstrip().startswith(COMMENTS):
            words = _words(line)
            above = words if set(AXIS_NAMES) <= {word.lower() for word in words} else above
        elif all(_is_number(word) for word in _words(line)):
            return above, number
        else:
            return _words(line), number + 1
    return above, len(lines)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return not word  # a missing number is damage, not a name
    return True


def _fields(names: list[str], table: npt.NDArray[np.float64]) -> Fields:
    fields: Fields = dict(zip(names, table.T, strict=True))
    for name in LABEL_NAMES:
        if name in fields and np.array_equal(fields[name], np.floor(fields[name])):
            fields[name] = fields[name].astype(np.int64)
    return fields


def write_text(path: Path, points: Points) -> None:
    """Write a line of names and a line of numbers per point, with all their digits.

    A ``.csv`` is separated by commas, ``.xyz`` and ``.txt`` by blanks, with the names in a comment.

    Args:
        path: The file, replaced if it is there.
        points: What to write.

    Raises:
        SparseConvValueError: A feature's name cannot stand among the names.
    """
    fields = as_fields(points)
    comma = path.suffix.lower() == ".csv"
    digits = {"f4": "%.9g", "f8": "%.17g", "i8": "%d"}
    separator = "," if comma else " "
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(("" if comma else "# ") + separator.join(fields) + "\n")
        line = separator.join(digits[values.dtype.str[1:]] for values in fields.values()) + "\n"
        file.writelines(line % row for row in zip(*fields.values(), strict=True))
