"""Results in the source's own order: gathered part by part from those of the tiles, and written."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io.write import LAS
from sparseconv.tiles.partition import runs, tiles_in_order
from sparseconv.tiles.plan import Plan
from sparseconv.tiles.run import LABELS, result_file
from sparseconv.tiles.sources import POINTS_PER_PART, Array


@dataclass
class Values:
    """What is written.

    Attributes:
        count: number of points.
        keep: ``"labels"`` or ``"scores"``.
        parts: the values, part by part.
    """

    count: int
    keep: str
    parts: Iterator[Array]


def gathered(
    folder: Path, plan: Plan, done: Collection[int], fill: int | float | None
) -> Iterator[Array]:
    """Yield the values of the points in the source's own order.

    Args:
        folder: of the results.
        plan: of the tiles.
        done: the tiles whose results are there.
        fill: the value of all others' points.
    """
    if not done:
        if plan.num_points and fill is not None:
            for tiles in tiles_in_order(folder, POINTS_PER_PART):
                yield np.full(len(tiles), fill)
        return
    some = np.load(result_file(folder, min(done)), mmap_mode="r")
    shape, dtype = some.shape[1:], some.dtype
    if len(done) < plan.num_tiles and fill is not None:
        dtype = np.promote_types(dtype, np.min_scalar_type(fill) if dtype.kind in "iu" else dtype)
    cursors = np.zeros(plan.num_tiles, np.int64)
    for tiles in tiles_in_order(folder, POINTS_PER_PART):
        values = np.full((len(tiles), *shape), 0 if fill is None else fill, dtype)
        order = np.argsort(tiles, kind="stable")
        for tile, first, end in runs(tiles[order]):
            if tile in done:
                start = int(cursors[tile])
                values[order[first:end]] = _rows(result_file(folder, tile), start, end - first)
            cursors[tile] += end - first
        yield values


def _rows(path: Path, first: int, count: int) -> Array:
    """Return rows of an ``.npy``, without reading the others."""
    table = np.load(path, mmap_mode="r")
    rows = np.array(table[first : first + count])
    del table
    return rows


def write(target: Path, files: list[Path], values: Values) -> None:
    """Write values to a file, or one file for each of the source's.

    Raises:
        SparseConvValueError: a target that cannot hold them.
    """
    suffix = target.suffix.lower()
    if suffix == ".npy":
        _write_npy(target, values)
        return
    if suffix in LAS or target.is_dir():
        targets = [target] if suffix in LAS else [target / path.name for path in files]
        fits = len(files) == len(targets) and all(p.suffix.lower() in LAS for p in files)
        if not fits or values.keep != LABELS:
            raise SparseConvValueError(
                f"target: {target.name!r} takes labels of a source that is itself one .las or .laz "
                f"file (a folder: several), got {values.keep} of {len(files)} files; write .npy"
            )
        stream = _Stream(values.parts)
        for path, copy in zip(files, targets, strict=True):
            _write_las(path, copy, stream)
        return
    raise SparseConvValueError(
        f"target: must be an .npy, .las or .laz file, a folder that is there, or a function, got "
        f"{target.name!r}"
    )


def _write_npy(target: Path, values: Values) -> None:
    """Write an array of all values, part by part."""
    part = next(values.parts, np.zeros(0, np.uint8))
    header = {"descr": part.dtype.str, "fortran_order": False}
    unfinished = target.with_name(f"{target.name}.part")
    with unfinished.open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file, {**header, "shape": (values.count, *part.shape[1:])}
        )
        part.tofile(file)
        for part in values.parts:
            part.tofile(file)
    unfinished.replace(target)


class _Stream:
    """Values that are taken in other lengths than they come."""

    def __init__(self, parts: Iterator[Array]) -> None:
        self.parts, self.rest = parts, np.zeros(0, np.uint8)

    def take(self, count: int) -> Array:
        """Return the next ``count`` values."""
        taken = [self.rest]
        missing = count - len(self.rest)
        while missing > 0:
            taken.append(next(self.parts))
            missing -= len(taken[-1])
        joined = np.concatenate(taken[1:]) if not len(self.rest) else np.concatenate(taken)
        self.rest = joined[count:]
        return joined[:count]


def _write_las(path: Path, target: Path, stream: _Stream) -> None:
    """Copy a file, its classification replaced."""
    laspy: Any = _laspy(path)
    unfinished = target.with_name(f"part_{target.name}")
    with laspy.open(path) as reader, laspy.open(unfinished, "w", header=reader.header) as writer:
        most = 255 if reader.header.point_format.id >= 6 else 31
        for points in reader.chunk_iterator(POINTS_PER_PART):
            labels = stream.take(len(points))
            if len(labels) and (labels.max() > most or labels.min() < 0):
                raise SparseConvValueError(
                    f"target: the classification of this file holds labels from 0 to {most}, got "
                    f"{int(labels.min())} to {int(labels.max())}; write .npy"
                )
            points.classification = labels.astype(np.uint8)
            writer.write_points(points)
    unfinished.replace(target)


def _laspy(path: Path) -> Any:
    try:
        return importlib.import_module("laspy")
    except ImportError as error:
        raise SparseConvError(
            f"{path.name!r} needs laspy, which is not installed: pip install 'sparseconv[las]'"
        ) from error
