"""Rows of named numbers, as text or bytes, behind a header that says what they are."""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def binary_records(file: BinaryIO, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    """Read ``rows`` packed rows; what follows them stays in the file.

    Raises:
        ValueError: The file ends before.
    """
    # the header may lie: memory is asked for the bytes that are there, not for those promised
    start = file.tell()
    present = file.seek(0, 2) - start
    file.seek(start)
    if rows < 0 or rows * dtype.itemsize > present:
        raise ValueError(f"{rows} rows of {dtype.itemsize} bytes promised, {present} bytes found")
    return np.frombuffer(file.read(rows * dtype.itemsize), dtype, rows)


def text_records(file: BinaryIO, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    """Read ``rows`` lines of blank-separated numbers.

    Raises:
        ValueError: A line does not fit, or the file ends before.
    """
    if rows == 0:
        return np.zeros(0, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "input contained no data": an error below
        records = np.loadtxt(file, dtype, comments=None, max_rows=rows, ndmin=1, encoding="latin1")
    if len(records) != rows:
        raise ValueError(f"{rows} rows promised, {len(records)} found")
    return records
