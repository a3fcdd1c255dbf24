"""Numbers as text: ``.xyz .txt .csv .asc .pts .xyzn .xyzrgb``, of programs and of people."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparseconv.io.fields import AXIS_WORDS, as_fields, column_names, named_columns, plain
from sparseconv.io.numbers import number_of, read_integers, read_numbers, words_of
from sparseconv.io.points import AXES, AXIS_NAMES, COLORS, Points
from sparseconv.io.records import COUNT, Encoded
from sparseconv.io.source import Source
from sparseconv.io.table import Array, Table, array_columns

COMMENTS = ("#", "//")
NORMALS = ("nx", "ny", "nz")
# columns of files without names, by suffix and number of columns
UNNAMED = {
    (".pts", 4): (*AXIS_NAMES, "intensity"),
    (".pts", 6): (*AXIS_NAMES, *COLORS),
    (".pts", 7): (*AXIS_NAMES, "intensity", *COLORS),
    (".xyzn", 6): (*AXIS_NAMES, *NORMALS),
    (".xyzrgb", 6): (*AXIS_NAMES, *COLORS),
}
KNOWN = {word for axes in AXIS_WORDS for words in axes for word in words} | {
    *("id", "time", "t", "lon", "lat", "longitude", "latitude", "intensity", "red", "green"),
    *("blue", "r", "g", "b", "class", "classification", "label", "gpstime", "returnnumber"),
}
HEAD = 1 << 16  # bytes in which the first lines end
EXACT = 2.0**53  # whole numbers up to here are float64 too
GRID_WORDS = ("ncols", "nrows", "cellsize")


class Form(NamedTuple):
    """How a file is written.

    Attributes:
        separator: What stands between cells, None for blanks.
        comma: Whether a comma stands before the decimals.
        names: Of the columns; none where the file has none.
        columns: Their number; 0 where there is no row.
        skipped: Lines above the first row.
        promised: The number of rows that a line of its own says, or None.
    """

    separator: str | None
    comma: bool
    names: tuple[str, ...]
    columns: int
    skipped: int
    promised: int | None


def open_text(source: Source, columns: tuple[str, ...] | None) -> Table:
    """Read lines of numbers, separated by commas, semicolons, tabs or blanks.

    Args:
        source: The file, in UTF-8, UTF-16 or Latin-1. Lines that begin with ``#`` or ``//`` are
            comments. A first line of names (a comment may hold it) says which column is which;
            without, the columns are x, y, z and features. Cells may stand in quotes or be empty
            (NaN); a comma may stand before the decimals where it does not separate; a line with the
            number of rows may come first. A column of words keeps them.
        columns: Names of the columns, instead of those of the file.

    Raises:
        SparseConvValueError: A line is no row of as many cells as the first, a column without a
            name is no number, or there are fewer than 3 columns.
    """
    data = _utf8(source.buffer())
    form = _form(data[:HEAD].tobytes())
    body = data[_place(data, form.skipped) :]
    names = _column_names(form, columns, source)
    arrays = _arrays(body, form, names)
    rows = len(next(iter(arrays.values()))) if arrays else 0
    if form.promised is not None and form.promised != rows:
        raise ValueError(f"its first line promises {form.promised} rows, {rows} found")
    kept = {name: values for name, values in arrays.items() if name != "_"}
    if "" in kept:  # the index of a data frame
        kept["index"] = kept.pop("")
    return Table(rows, array_columns(kept, typed=True), {"format": "text"}, at_once=True)


def _utf8(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    head = data[:4].tobytes()
    if head.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            text = data[2:].tobytes().decode(encoding, "replace")
            return np.frombuffer(text.encode(), np.uint8)
    return data


def _place(data: npt.NDArray[np.uint8], lines: int) -> int:
    """Return where the line with this number begins."""
    head = data[:HEAD].tobytes()
    return len(b"".join(head.splitlines(keepends=True)[:lines]))


def _cells(line: str, separator: str | None) -> list[str]:
    for comment in COMMENTS:
        line = line.strip().removeprefix(comment)
    return _split(line.strip(), separator)


def _split(line: str, separator: str | None) -> list[str]:
    if '"' in line:
        cells = next(csv.reader([line], delimiter=separator or " ", skipinitialspace=True), [])
        return [cell.strip(" \t\"'") for cell in cells if cell or separator]
    words = line.split() if separator is None else line.split(separator)
    return [word.strip(" \t\"'") for word in words]


def _is_number(word: str, comma: bool = False) -> bool:
    try:
        number_of(word, comma)
    except ValueError:
        return False
    return True


def _ways(line: str) -> Iterator[tuple[str | None, bool]]:
    """Yield the ways to read a line: what separates cells, and whether commas are decimal."""
    for mark in (";", "\t", ","):
        if mark in line:
            yield mark, False
            if mark != ",":
                yield mark, True
    yield None, False
    yield None, True


def _way(line: str) -> tuple[str | None, bool, list[str]]:
    """Return the way in which a row has the most numbers, 3 or more if any has."""
    best: tuple[int, str | None, bool, list[str]] = (-1, None, False, [])
    for separator, comma in _ways(line):
        cells = _split(line, separator)
        numbers = sum(bool(cell) and _is_number(cell, comma) for cell in cells)
        whole = numbers + sum(not cell for cell in cells) == len(cells)
        if whole and numbers >= AXES:
            return separator, comma, cells
        if numbers > best[0]:
            best = (numbers, separator, comma, cells)
    return best[1:]


def _form(head: bytes) -> Form:
    """Find out how a file is written from its first lines."""
    lines = head.decode("utf-8", "replace").splitlines()
    above: list[str] = []
    promised: int | None = None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        if line.lstrip().startswith(COMMENTS):
            above.append(line)
            continue
        if promised is None and re.fullmatch(r"\s*\d+\s*", line) and _is_row(lines, number + 1):
            promised = int(line)
            continue
        separator, comma, cells = _way(line)
        if all(not cell or _is_number(cell, comma) for cell in cells):
            found = _names_above(above, separator, len(cells))
            return Form(separator, comma, found, len(cells), number, promised)
        if plain(cells[0]) in GRID_WORDS:
            raise ValueError("it is a grid of heights (ESRI), not points")
        return _named_form(lines, number, promised)
    named = [_cells(line, _comma(line)) for line in above if _has_axes(line)]
    names = named[0] if named else []
    return Form(None, False, tuple(names), len(names), len(lines), promised)


def _named_form(lines: list[str], number: int, promised: int | None) -> Form:
    """Return the form of a file whose line ``number`` holds names."""
    row = next((line for line in lines[number + 1 :] if _is_row([line], 0)), None)
    if row is None:
        separator = next((mark for mark in ";\t," if mark in lines[number]), None)
        names = _cells(lines[number], separator)
        return Form(separator, False, tuple(names), len(names), number + 1, promised)
    separator, comma, cells = _way(row)
    names = _cells(lines[number], separator)
    if len(names) != len(cells) and len(_cells(lines[number], _comma(lines[number]))) == len(cells):
        names = _cells(lines[number], _comma(lines[number]))
    return Form(separator, comma, tuple(names), len(cells), number + 1, promised)


def _comma(line: str) -> str | None:
    return next((mark for mark in ";\t," if mark in line), None)


def _is_row(lines: list[str], number: int) -> bool:
    """Return whether a line may be a row: no comment, and more than one cell."""
    line = lines[number].strip() if number < len(lines) else ""
    return bool(line) and not line.startswith(COMMENTS) and len(re.split(r"[;,\s]+", line)) > 1


def _has_axes(line: str) -> bool:
    words = {plain(word) for word in _cells(line, _comma(line))}
    return any(all(words & allowed for allowed in axes) for axes in AXIS_WORDS)


def _names_above(above: list[str], separator: str | None, columns: int) -> tuple[str, ...]:
    """Return the names that a comment above the rows holds, if one does.

    A comment with x, y and z does, and one of as many words as there are columns, if half of them
    are such as columns are called by.
    """
    for line in reversed(above):
        if _has_axes(line):
            return tuple(_cells(line, _comma(line)))
    for line in reversed(above):
        for mark in (_comma(line), separator):
            words = _cells(line, mark)
            known = sum(plain(word) in KNOWN for word in words)
            if len(words) == columns and 2 * known >= columns:
                return tuple(words)
    return ()


def _column_names(form: Form, columns: tuple[str, ...] | None, source: Source) -> tuple[str, ...]:
    names = form.names
    if not names and not form.columns:
        return columns if columns is not None else AXIS_NAMES
    if columns is None and names:
        if len(names) != form.columns:
            raise ValueError(f"{len(names)} names for {form.columns} columns")
        if len(set(names)) != len(names):
            raise ValueError(f"the names {', '.join(names)} must differ")
        return names
    if columns is None and form.columns < AXES:
        raise ValueError(f"its rows have shape (1, {form.columns}), must be (N, 3 + F)")
    default = UNNAMED.get((source.suffix, form.columns)) or column_names(form.columns)
    return named_columns(columns, default, form.columns, source.name)


def _arrays(body: npt.NDArray[np.uint8], form: Form, names: tuple[str, ...]) -> dict[str, Array]:
    """Return the columns, float64 where they are numbers."""
    columns = form.columns or len(names)
    quoted = b'"' in body[:HEAD].tobytes()
    if not quoted:
        try:
            table = read_numbers(body, columns, form.separator, form.comma)
        except ValueError as error:
            if "could not convert" not in str(error):
                raise
        else:
            found = {name: table[:, number] for number, name in enumerate(names)}
            if not _is_large(table):
                return found
            return {
                name: _exact(body, values, number, form)
                for number, (name, values) in enumerate(found.items())
            }
    return _words(body, form, names)


def _is_large(table: npt.NDArray[np.float64]) -> bool:
    """Return whether a finite number may lie where float64 does not hold every whole one."""
    if not table.size:
        return False
    low, high = np.fmin.reduce(table, axis=None), np.fmax.reduce(table, axis=None)
    return bool(low < -EXACT or high > EXACT)


def _exact(
    body: npt.NDArray[np.uint8], values: npt.NDArray[np.float64], number: int, form: Form
) -> Array:
    """Return a column; whole numbers that float64 does not hold are read once more."""
    numbers = values[np.isfinite(values)]
    large = (np.abs(numbers) > EXACT) & (np.abs(numbers) < 2.0**64)
    if not large.any() or len(numbers) < len(values):
        return values
    try:
        return read_integers(body, number, form.separator)
    except ValueError:  # it has decimals or an exponent
        return values


def _words(body: npt.NDArray[np.uint8], form: Form, names: tuple[str, ...]) -> dict[str, Array]:
    """Read cells in quotes and columns of words, one cell after the other."""
    rows: list[list[str]] = []
    for line in body.tobytes().decode("utf-8", "replace").splitlines():
        cells = words_of(line, form.separator) if '"' not in line else _split(line, form.separator)
        if not cells or line.lstrip().startswith(COMMENTS):
            continue
        if len(cells) != form.columns:
            raise ValueError(f"a line has {len(cells)} columns, the first has {form.columns}")
        rows.append(cells)
    found: dict[str, Array] = {}
    for number, name in enumerate(names):
        column = [cells[number] for cells in rows]
        try:
            found[name] = np.array([number_of(cell, form.comma) for cell in column], np.float64)
        except ValueError:
            if not form.names or any(plain(name) in words for words in AXIS_WORDS[0]):
                raise
            found[name] = np.array(column)
    return found


def encode_text(points: Points, suffix: str) -> Encoded:
    """Return a line of names and a line of numbers per point, with all their digits.

    A ``.csv`` is separated by commas, others by blanks, with the names in a comment; a ``.pts``
    begins with the number of points and has no names.

    Args:
        points: What to write.
        suffix: Of the file.

    Raises:
        SparseConvValueError: A feature's name cannot stand among the names.
    """
    fields = as_fields(points)
    separator = "," if suffix == ".csv" else " "
    digits = {"f4": "%.9g", "f8": "%.17g"}
    forms = [digits.get(values.dtype.str[1:], "%s") for values in fields.values()]
    names = ("" if suffix == ".csv" else "# ") + separator.join(fields)
    line = separator.join(forms) + "\n"
    rows = "".join(line % row for row in zip(*fields.values(), strict=True))
    return Encoded((COUNT if suffix == ".pts" else names) + "\n", rows.encode())
