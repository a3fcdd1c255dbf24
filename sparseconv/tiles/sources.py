"""Point clouds in parts, in their own order: arrays, memory maps, files and folders of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sparseconv import io
from sparseconv.core.arguments import came
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io.read import OPENERS

Array: TypeAlias = npt.NDArray[Any]

POINTS_PER_PART = 2**19
FINGERPRINT_ROWS = 2**12  # of an array, evenly spaced


class Part(NamedTuple):
    """Some points of a source, one behind another.

    Attributes:
        xyz: float32 or float64 ``[n, D]``.
        features: floating point ``[n, C]``; None where the source has positions alone.
    """

    xyz: Array
    features: Array | None


class Source(Protocol):
    """A cloud that can be read more than once, part by part, each time in the same order."""

    def parts(self) -> Iterator[Part]:
        """Yield the points in their own order."""

    def fingerprint(self) -> str:
        """Return what changes when the source is another one."""

    def files(self) -> list[Path]:
        """Return the files that the points come from; none of arrays."""


@dataclass(frozen=True)
class Arrays:
    """Positions ``[N, D]`` and features ``[N, C]``: whatever has a shape and gives slices."""

    xyz: Any
    features: Any = None

    def parts(self) -> Iterator[Part]:
        """Yield slices."""
        for first in range(0, len(self.xyz), POINTS_PER_PART):
            rows = slice(first, first + POINTS_PER_PART)
            features = None if self.features is None else _floats(self.features[rows])
            yield Part(_floats(self.xyz[rows]), features)

    def fingerprint(self) -> str:
        """Return a hash of shapes, dtypes and some rows."""
        digest = hashlib.sha256()
        for array in (self.xyz, self.features):
            if array is None:
                continue
            digest.update(f"{tuple(array.shape)} {array.dtype}".encode())
            step = max(1, len(array) // FINGERPRINT_ROWS)
            digest.update(np.ascontiguousarray(_floats(array[::step])).tobytes())
        return digest.hexdigest()

    def files(self) -> list[Path]:
        """Return none."""
        return []


@dataclass(frozen=True)
class File:
    """One file, read as :func:`sparseconv.io.iter_points` does."""

    path: Path

    def parts(self) -> Iterator[Part]:
        """Yield the file's points."""
        for points in io.iter_points(self.path, rows=POINTS_PER_PART):
            yield from _of_points(points).parts()

    def fingerprint(self) -> str:
        """Return name, size and time of the last change."""
        state = self.path.stat()
        return f"{self.path.name} {state.st_size} {state.st_mtime_ns}"

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]


@dataclass(frozen=True)
class Joined:
    """Several sources, one behind another."""

    sources: tuple[Source, ...]

    def parts(self) -> Iterator[Part]:
        """Yield the parts of each in turn."""
        for source in self.sources:
            yield from source.parts()

    def fingerprint(self) -> str:
        """Return those of all."""
        return "; ".join(source.fingerprint() for source in self.sources)

    def files(self) -> list[Path]:
        """Return those of all."""
        return [path for source in self.sources for path in source.files()]


def source_of(source: Any) -> Source:
    """Return a cloud that can be read by parts.

    Args:
        source: ``[N, D]`` points in metres (an array, a memory map, a tensor or whatever else has
            a shape and gives slices); what :func:`sparseconv.io.read_points` returned; a pair of
            points and features; a path of a file, or of a folder, whose files are read in the
            order of their names; or a list of any of these.

    Raises:
        SparseConvTypeError, SparseConvValueError: anything else; a folder without point clouds.
    """
    if isinstance(source, io.Points):
        return _of_points(source)
    if isinstance(source, str | os.PathLike):
        return _of_path(Path(source))
    if isinstance(source, tuple) and len(source) == 2 and all(map(_is_array, source)):
        return _arrays(*source)
    if isinstance(source, list | tuple) and source and all(not np.isscalar(s) for s in source):
        return Joined(tuple(map(source_of, source)))
    if _is_array(source):
        return _arrays(source, None)
    raise SparseConvTypeError(
        f"source: must be an array of points, sparseconv.io.Points, a pair of points and features, "
        f"a path of a file or folder, or a list of these, got {came(source)}"
    )


def _of_path(path: Path) -> Source:
    if not path.is_dir():
        if not path.exists():
            raise SparseConvValueError(f"source: there is no file {path.name!r}")
        return File(path)
    files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in OPENERS)
    if not files:
        raise SparseConvValueError(f"source: the folder {path.name!r} holds no point clouds")
    return Joined(tuple(map(File, files)))


def _of_points(points: io.Points) -> Arrays:
    return Arrays(points.xyz, points.features if points.feature_names else None)


def _arrays(xyz: Any, features: Any) -> Arrays:
    """Return checked arrays."""
    if len(xyz.shape) != 2:
        raise SparseConvValueError(f"source: must have shape (N, D), got {tuple(xyz.shape)}")
    if features is not None and (len(features.shape) != 2 or len(features) != len(xyz)):
        raise SparseConvValueError(
            f"source: its features must have shape (N, C) with one row for each of {len(xyz)} "
            f"points, got {tuple(features.shape)}"
        )
    return Arrays(xyz, features)


def _is_array(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__", "__len__"))


def _floats(rows: Any) -> Array:
    """Return rows as floating point numbers on the CPU."""
    array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if array.dtype.kind != "f":
        raise SparseConvTypeError(f"source: must be floating point, got {array.dtype}")
    return array
