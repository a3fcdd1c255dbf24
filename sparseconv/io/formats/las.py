"""Airborne and mobile laser scans: ``.las`` and ``.laz``, by laspy; needs the extra ``las``."""

from __future__ import annotations

import importlib
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io.damage import naming_damage
from sparseconv.io.points import AXIS_NAMES, Fields, Floats, Points, as_fields, from_fields

LABEL = "classification"
LEFT_OUT = ("X", "Y", "Z", "gps_time")  # float32 does not hold seconds of a week or of years
HEADER_BYTES = 375
DENSEST = 1000  # points per byte of a compressed file, more than any scan reaches
FINEST = 1e-6  # the file's units: micrometres where they are metres
STEPS = 2e9  # int32 holds so many


def read_las(path: Path) -> Points:
    """Read a ``.las`` or ``.laz`` file.

    Args:
        path: The file. The classification gives the labels; every other dimension but the time is a
            feature under laspy's name (``intensity``, ``return_number``, ``red``, ...).

    Returns:
        Points; coordinates are float64, scaled and shifted as the header says.

    Raises:
        SparseConvError: laspy (for ``.laz``: lazrs) is not installed.
        SparseConvValueError: The file is damaged.

    Source: ASPRS, "LAS Specification 1.4".
    """
    laspy = _library(path)
    with path.open("rb") as file, naming_damage(path):
        _check_promises(file, path.suffix.lower() == ".laz")
        cloud = laspy.read(file, laz_backend=laspy.LazBackend.Lazrs)
        fields: Fields = dict(zip(AXIS_NAMES, cloud.xyz.T, strict=True))
        for name in cloud.point_format.dimension_names:
            if name == LABEL:
                fields["label"] = np.asarray(cloud[name]).astype(np.int64)
            elif name not in LEFT_OUT:
                fields[name] = np.asarray(cloud[name])
        return from_fields(fields, path.name)


def _check_promises(file: BinaryIO, compressed: bool) -> None:
    """Raise where the header promises more than the file can hold; laspy would make room for it."""
    size = file.seek(0, 2)
    file.seek(0)
    header = file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0")
    file.seek(0)
    (records,) = struct.unpack_from("<I", header, 100)
    row, points = struct.unpack_from("<HI", header, 105)
    later = 0
    if header[25] >= 4:  # the minor version
        later, points = struct.unpack_from("<IQ", header, 243)
    row = 1 / DENSEST if compressed else row
    for count, least in ((records, 54), (later, 60), (points, row)):
        if count * least > size:
            raise ValueError(f"its header promises more than its {size} bytes hold")


def write_las(path: Path, points: Points) -> None:
    """Write a ``.las`` or ``.laz`` file (LAS 1.4, point format 7).

    The format keeps coordinates as integers: they are rounded to the finest power of ten, of at
    least 1e-6, by which the extent fits.

    Args:
        path: The file, replaced if it is there.
        points: Features with the name of one of the format's dimensions are stored there, others as
            extra float32 dimensions; labels become the classification.

    Raises:
        SparseConvError: laspy (for ``.laz``: lazrs) is not installed.
        SparseConvValueError: A position is not finite; a label, or a feature with the name of a
            dimension of integers, is not one of those integers.
    """
    laspy = _library(path)
    fields = as_fields(points)
    if not np.isfinite(points.xyz).all():
        raise SparseConvValueError(f"xyz: {path.suffix.lower()} holds finite positions only")
    header = laspy.LasHeader(point_format=7, version="1.4")
    low, high = _extent(points.xyz)
    header.offsets = np.floor(low)
    header.scales = np.maximum(FINEST, 10.0 ** np.ceil(np.log10((high - low + 1) / STEPS)))
    cloud = laspy.LasData(header)
    cloud.xyz = points.xyz
    standard = set(cloud.point_format.dimension_names)
    for name, values in fields.items():
        target = LABEL if name == "label" else name
        if name in AXIS_NAMES:
            continue
        if target not in standard:
            cloud.add_extra_dim(laspy.ExtraBytesParams(name=name, type=np.float32))
        _store(cloud, target, values)
    cloud.write(str(path))


def _store(cloud: Any, name: str, values: npt.NDArray[Any]) -> None:
    """Put a column into the cloud.

    Raises:
        SparseConvValueError: The dimension does not hold these numbers.
    """
    dimension = cloud.point_format.dimension_by_name(name)
    if dimension.kind.name == "FloatingPoint":
        cloud[name] = values
        return
    signed = int(dimension.kind.name == "SignedInteger")
    low, high = -signed << dimension.num_bits - 1, (1 << dimension.num_bits - signed) - 1
    whole = np.isfinite(values).all() and np.array_equal(values, np.floor(values))
    if not whole or not ((values >= low) & (values <= high)).all():
        raise SparseConvValueError(
            f"{name}: a .las holds whole numbers from {low} to {high} here; rename the feature, or "
            f"write .npz"
        )
    cloud[name] = values.astype(np.int64)


def _extent(xyz: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if not len(xyz):
        return np.zeros(3), np.zeros(3)
    return xyz.min(axis=0).astype(np.float64), xyz.max(axis=0).astype(np.float64)


def _library(path: Path) -> Any:
    """Return laspy, once all that the file needs is there."""
    names = ("laspy", "lazrs") if path.suffix.lower() == ".laz" else ("laspy",)
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SparseConvError(
                f"{path.name!r} needs {name}, which is not installed: pip install 'laspy[lazrs]'"
            ) from error
    return importlib.import_module("laspy")
