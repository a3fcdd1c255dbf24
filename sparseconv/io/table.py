"""What a file holds, before anything is read: rows and columns by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
BLOCK = 1 << 20  # rows that are looked at in one go


class Column(NamedTuple):
    """One column of a file.

    Attributes:
        dtype: What it is declared as.
        read: From a slice of rows to their values ``[n]``.
        typed: Whether the numbers stand there as text, with digits that `dtype` may not hold.
        beside: Whether it comes from another file and is never a feature.
    """

    dtype: np.dtype[Any]
    read: Callable[[slice], Array]
    typed: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Table:
    """Rows and named columns; reading a column reads those rows alone where the format can.

    Attributes:
        rows: Number of points.
        columns: By name, in the order of the file.
        header: What the file says about all points.
        label: The column that holds the labels whatever others are called, or None.
        at_once: Whether any reading reads the whole file.
        fetch: Called with rows before their columns are read, a few rows at a time.
    """

    rows: int
    columns: dict[str, Column]
    header: dict[str, Any] = field(default_factory=dict)
    label: str | None = None
    at_once: bool = False
    fetch: Callable[[slice], object] = lambda rows: None

    def blocks(self, column: Column) -> Iterator[Array]:
        """Yield a whole column, in pieces."""
        for start in range(0, self.rows, BLOCK):
            yield column.read(slice(start, min(start + BLOCK, self.rows)))


def split(name: str, values: Array) -> dict[str, Array]:
    """Return the columns of an array ``[N]`` or ``[N, k]``: the latter are ``name_0``, ``name_1``.

    >>> list(split("rgb", np.zeros((5, 2))))
    ['rgb_0', 'rgb_1']
    """
    if values.ndim == 1:
        return {name: values}
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    return {f"{name}_{number}": flat[:, number] for number in range(flat.shape[1])}


def array_columns(arrays: Mapping[str, Array], typed: bool = False) -> dict[str, Column]:
    """Return columns of arrays ``[N]`` or ``[N, k]`` that are there already (or mapped)."""
    columns: dict[str, Column] = {}
    for name, values in arrays.items():
        for entry, part in split(name, values).items():
            columns[entry] = Column(part.dtype, part.__getitem__, typed)
    return columns


def record_columns(
    dtype: np.dtype[Any], records: Callable[[], Array], typed: bool = False
) -> dict[str, Column]:
    """Return the columns of rows with named fields, which are read when first asked for.

    Args:
        dtype: Of a row; a field of shape (k,) gives k columns.
        records: Returns all rows ``[N]``; called once, then kept.
        typed: Whether the rows were text. Then they hold float64 where `dtype` says float.
    """
    loaded = cache(records)
    columns: dict[str, Column] = {}
    for name in dtype.names or ():
        base, shape = dtype[name].base, dtype[name].shape
        width = int(np.prod(shape)) if shape else 0
        for number in range(width) if shape else (None,):
            entry = name if number is None else f"{name}_{number}"

            def read(rows: slice, name: str = name, number: int | None = number) -> Array:
                values = loaded()[name]
                part = values if number is None else values.reshape(len(values), -1)[:, number]
                return part[rows]

            columns[entry] = Column(base, read, typed)
    return columns
