"""Rows of named numbers, as text or bytes, behind a header that says what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseconv.io.numbers import read_numbers
from sparseconv.io.table import Array

SHORTEST = 2  # bytes of a number as text, with what follows it
COUNT = "\0"  # stands in a header for the number of rows


@dataclass(frozen=True)
class Encoded:
    """Some rows of a file.

    Attributes:
        header: Text with ``COUNT`` where the number of rows stands, or what makes it of the number.
        rows: The rows' bytes.
    """

    header: str | Callable[[str], bytes]
    rows: bytes

    def head(self, count: str) -> bytes:
        """Return the header of a file with so many rows."""
        if isinstance(self.header, str):
            return self.header.replace(COUNT, count).encode()
        return self.header(count)


def binary_records(
    data: npt.NDArray[np.uint8], start: int, dtype: np.dtype[Any], rows: int
) -> Array:
    """Return ``rows`` packed rows from byte ``start`` on, mapped, not read.

    Raises:
        ValueError: The file ends before: nothing is asked for that is not there.
    """
    present = len(data) - start
    if rows < 0 or rows * dtype.itemsize > present:
        raise ValueError(f"{rows} rows of {dtype.itemsize} bytes promised, {present} bytes found")
    return np.frombuffer(data[start : start + rows * dtype.itemsize].data, dtype, rows)


def text_records(data: npt.NDArray[np.uint8], start: int, dtype: np.dtype[Any], rows: int) -> Array:
    """Read ``rows`` lines of blank-separated numbers from byte ``start`` on.

    Returns:
        The rows; what `dtype` calls a float is float64 here, with all digits of the text.

    Raises:
        ValueError: A line does not fit, or the file ends before.
    """
    width = sum(_width(dtype[name]) for name in dtype.names or ())
    present = len(data) - start
    if rows < 0 or rows * width * SHORTEST > present + 1:
        raise ValueError(f"{rows} rows promised, {present} bytes found")
    wide = np.dtype([(name, _wide(dtype[name])) for name in dtype.names or ()])
    records = np.empty(rows, wide)
    if not rows:
        return records
    table = read_numbers(data[start:], width, rows=rows)
    if len(table) != rows:
        raise ValueError(f"{rows} rows promised, {len(table)} found")
    first = 0
    for name in wide.names or ():
        last = first + _width(dtype[name])
        values = table[:, first:last].reshape(rows, *dtype[name].shape)
        records[name] = _as_declared(values, dtype[name].base)
        first = last
    return records


def _as_declared(values: npt.NDArray[np.float64], kind: np.dtype[Any]) -> Array:
    if kind.kind not in "iu":
        return values
    info = np.iinfo(kind)
    whole = values == np.floor(values)
    if not (whole & (values >= info.min) & (values <= info.max)).all():
        raise ValueError(f"a number is no {kind}")
    if kind.itemsize == 8 and (np.abs(values) > 2.0**53).any():
        raise ValueError(f"a number of more than 15 digits stands where {kind} is promised")
    return values.astype(kind)


def _wide(kind: np.dtype[Any]) -> tuple[Any, tuple[int, ...]]:
    base = np.dtype(np.float64) if kind.base.kind == "f" else kind.base.newbyteorder("=")
    return base, kind.shape


def _width(kind: np.dtype[Any]) -> int:
    return int(np.prod(kind.shape)) if kind.shape else 1
