"""`write_points`: the table from suffix to writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io.formats.bin import encode_bin
from sparseconv.io.formats.las import write_las, write_las_parts
from sparseconv.io.formats.npy import encode_npy
from sparseconv.io.formats.npz import write_npz
from sparseconv.io.formats.pcd import encode_pcd
from sparseconv.io.formats.ply import encode_ply
from sparseconv.io.formats.text import encode_text
from sparseconv.io.points import GRID_KEYS, Points, join_points
from sparseconv.io.records import Encoded

Encoder = Callable[[Points], Encoded]

WIDTH = 15  # of a number that is written before it is known
ENCODERS: dict[str, Encoder] = {
    ".npy": encode_npy,
    ".ply": encode_ply,
    ".pcd": encode_pcd,
    ".bin": encode_bin,
    **{
        suffix: partial(encode_text, suffix=suffix)
        for suffix in (".xyz", ".txt", ".csv", ".asc", ".pts")
    },
}
LAS = (".las", ".laz")
WRITTEN = (".npy", ".npz", ".ply", ".pcd", *LAS, ".xyz", ".txt", ".csv", ".asc", ".pts", ".bin")


def write_points(
    path: str | os.PathLike[str],
    points: Points | Iterable[Points],
    *,
    bounds: Sequence[Any] | None = None,
) -> None:
    """Write a point cloud, the format chosen by the file's suffix (case does not matter).

    Args:
        path: The file, replaced if it is there. ``.npz`` and ``.pcd`` keep everything; ``.npy`` has
            no names and no labels; ``.las`` and ``.laz`` round positions, and need the extra
            ``las``; a ``.bin`` holds the columns of one of its layouts.
        points: What to write; or parts with the same columns, as :func:`iter_points` gives them,
            of which one at a time lies in memory (``.npz`` alone takes all at once).
        bounds: ``(low, high)`` of all parts, by which a ``.las`` or ``.laz`` rounds positions; as
            their file has them, or as the first part has them, where left out.

    Raises:
        SparseConvTypeError: `points` are no :class:`Points`.
        SparseConvValueError: The suffix is unknown, the format does not hold these points, or parts
            have different columns.
        OSError: The file cannot be written.

    >>> import tempfile, numpy as np, sparseconv as sc
    >>> points = sc.io.Points(np.zeros((5, 3)), np.ones((5, 1), np.float32), ("intensity",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sc.io.write_points(folder + "/scan.ply", points)
    ...     parts = sc.io.iter_points(folder + "/scan.ply", rows=2)
    ...     sc.io.write_points(folder + "/again.pcd", parts)
    ...     sc.io.read_points(folder + "/again.pcd").feature_names
    ('intensity',)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        names = ", ".join(WRITTEN)
        raise SparseConvValueError(f"path {path.name!r} has suffix {suffix!r}, written are {names}")
    if not isinstance(points, Points):
        _write_parts(path, _checked(points), bounds)
    elif suffix in ENCODERS:
        encoded = ENCODERS[suffix](points)
        path.write_bytes(encoded.head(str(len(points))) + encoded.rows)
    else:
        (write_las if suffix in LAS else write_npz)(path, points)


def _write_parts(path: Path, parts: Iterator[Points], bounds: Any) -> None:
    few = list(islice(parts, 2))
    if not few:
        raise SparseConvValueError("parts: must be one cloud or more, got none")
    if len(few) == 1:
        write_points(path, few[0])
        return
    suffix = path.suffix.lower()
    bounds = few[0].header.get("bounds") if bounds is None else bounds
    parts = _then(few, parts)
    if suffix in ENCODERS:
        _encode_parts(path, parts, ENCODERS[suffix])
    elif suffix in LAS:
        write_las_parts(path, parts, bounds)
    else:
        write_npz(path, join_points(list(parts)))


def _encode_parts(path: Path, parts: Iterable[Points], encode: Encoder) -> None:
    """Write parts one after the other; the header gets the number of rows when all are there.

    Args:
        path: The file; it is there, or replaced, once all parts are written.
        parts: Two or more.
        encode: Of the format.

    Raises:
        SparseConvValueError: Their columns differ.
    """
    count, head = 0, None
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                encoded = encode(replace(part, header=_of_parts(part)))
                if head is None:
                    head = encoded.head
                    file.write(head(f"{0:>{WIDTH}}"))
                elif encoded.head("0") != head("0"):
                    raise SparseConvValueError("parts: must have the same columns")
                file.write(encoded.rows)
                count += len(part)
            file.seek(0)
            file.write(b"" if head is None else head(f"{count:>{WIDTH}}"))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _of_parts(part: Points) -> dict[str, object]:
    return {name: value for name, value in part.header.items() if name not in GRID_KEYS}


def _then(few: list[Points], rest: Iterator[Points]) -> Iterator[Points]:
    """Yield a few parts and then the rest, without keeping them."""
    while few:
        yield few.pop(0)
    yield from rest


def _checked(parts: Any) -> Iterator[Points]:
    """Yield parts.

    Raises:
        SparseConvTypeError: They are none.
    """
    if not isinstance(parts, Iterator | list | tuple):
        raise SparseConvTypeError(f"points: must be Points, got {type(parts).__name__}")
    for part in parts:
        if not isinstance(part, Points):
            raise SparseConvTypeError(f"points: must be Points, got parts {type(part).__name__}")
        yield part
