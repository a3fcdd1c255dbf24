"""Airborne and mobile laser scans: ``.las`` and ``.laz``, by laspy; needs the extra ``las``."""

from __future__ import annotations

import copy
import importlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io.fields import Fields, as_xyz
from sparseconv.io.formats.laz import LazChunks, checked_laz
from sparseconv.io.points import AXIS_NAMES, Floats, Points
from sparseconv.io.records import binary_records
from sparseconv.io.source import Source
from sparseconv.io.table import Array, Column, Table

LABEL = "classification"
LEFT_OUT = ("X", "Y", "Z")  # the integers that x, y and z are made of
HEADER_BYTES = 375
FINEST = 1e-6  # the file's units: micrometres where they are metres
STEPS = 2e9  # int32 holds so many
LONGEST_NAME = 32  # bytes of an extra dimension's name
UNIT_KEY, CRS_KEYS = 3076, (3072, 2048)  # of a GeoKeyDirectory
LENGTHS = {9001: "metre", 9002: "foot", 9003: "US survey foot"}


def open_las(source: Source) -> Table:
    """Find the points of a ``.las`` or ``.laz`` file.

    Args:
        source: The file. The classification gives the labels; every other dimension is a column
            under laspy's name (``intensity``, ``return_number``, ``gps_time``, ``red``, ...). The
            header keeps ``"scales"``, ``"offsets"``, ``"crs"`` and the unit of length.

    Raises:
        SparseConvError: laspy (for ``.laz``: lazrs) is not installed.
        SparseConvValueError: The file is damaged.

    Source: ASPRS, "LAS Specification 1.4".
    """
    laspy = _library(source.name, source.suffix)
    with source.open() as file:
        _check_promises(file, source.size)
    packed = None
    if _is_compressed(source):
        source = checked_laz(source)
        packed = LazChunks(source)
    with source.open() as file, laspy.open(file, laz_backend=laspy.LazBackend.Lazrs) as reader:
        header = reader.header
        notes = _notes(header)
        rows, dtype = header.point_count, header.point_format.dtype()
        names = [name for name in header.point_format.dimension_names if name not in LEFT_OUT]
        kinds = {name: _kind(header.point_format.dimension_by_name(name)) for name in names}
        begin = header.offset_to_point_data
    stored: Any = None if packed else binary_records(source.buffer(), begin, dtype, rows)

    @lru_cache(maxsize=1)  # the columns of one part are read one after the other
    def part(start: int, stop: int) -> Any:
        raw = packed.rows(start, stop).view(dtype) if packed else stored[start:stop]
        return laspy.ScaleAwarePointRecord(
            raw, header.point_format, scales=header.scales, offsets=header.offsets
        )

    def column(name: str, kind: np.dtype[Any]) -> Column:
        def read(rows_: slice) -> Array:
            start, stop, step = rows_.indices(rows)
            values = np.asarray(part(start, stop)[name]) if stop > start else np.zeros(0, kind)
            return values[::step]

        return Column(kind, read)

    columns = {axis: column(axis, np.dtype(np.float64)) for axis in AXIS_NAMES}
    columns |= {name: column(name, kinds[name]) for name in names}
    notes["units"] |= {
        name: "0..65535" for name in names if name in ("intensity", "red", "green", "blue", "nir")
    }
    table = Table(rows, columns, notes, label=LABEL)
    if packed is None:
        return table

    def fetch(rows_: slice) -> None:
        start, stop, _ = rows_.indices(rows)
        packed.rows(start, stop)  # the chunks together, in parallel

    return replace(table, fetch=fetch)


def _kind(dimension: Any) -> np.dtype[Any]:
    """Return the dtype of a dimension; those of single bits are bytes."""
    kind = dimension.dtype
    return np.dtype(np.uint8) if kind is None else np.dtype(kind).base


def _is_compressed(source: Source) -> bool:
    head = source.buffer()[:105].tobytes()
    return len(head) > 104 and bool(head[104] & 0x80)


def _notes(header: Any) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "format": "las",
        "version": str(header.version),
        "point_format": int(header.point_format.id),
        "scales": tuple(map(float, header.scales)),
        "offsets": tuple(map(float, header.offsets)),
        "bounds": (tuple(map(float, header.mins)), tuple(map(float, header.maxs))),
        "units": {},
    }
    for record in [*header.vlrs, *(header.evlrs or [])]:
        if type(record).__name__ == "WktCoordinateSystemVlr":
            notes["crs"] = record.string.strip("\0 \n")
            notes["units"]["xyz"] = "foot" if "foot" in notes["crs"].lower() else "metre"
        elif type(record).__name__ == "GeoKeyDirectoryVlr":
            keys = {key.id: key.value_offset for key in record.geo_keys}
            codes = [keys[key] for key in CRS_KEYS if key in keys and keys[key] != 32767]
            if codes and "crs" not in notes:
                notes["crs"] = f"EPSG:{codes[0]}"
            if keys.get(UNIT_KEY) in LENGTHS:
                notes["units"].setdefault("xyz", LENGTHS[keys[UNIT_KEY]])
    kept = [record for record in header.vlrs if record.user_id == "LASF_Projection"]
    if kept:
        notes["vlrs"] = kept
    return notes


def _check_promises(file: BinaryIO, size: int) -> None:
    """Raise where the header promises more than the file can hold; laspy would make room for it."""
    header = file.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0")
    if header[:4] != b"LASF":
        raise ValueError("it does not begin with LASF")
    start, records = struct.unpack_from("<II", header, 96)
    row, points = struct.unpack_from("<HI", header, 105)
    later = later_start = 0
    if header[25] >= 4:  # the minor version
        later_start, later, points = struct.unpack_from("<QIQ", header, 235)
    if start > size or (later and later_start > size):
        raise ValueError(f"its header points past the end of its {size} bytes")
    place = later_start
    for _ in range(later if later * 60 <= size else 0):
        file.seek(place)
        record = file.read(60)
        if len(record) < 60 or struct.unpack_from("<Q", record, 20)[0] > size - place - 60:
            raise ValueError(f"its later records reach past the end of its {size} bytes")
        place += 60 + struct.unpack_from("<Q", record, 20)[0]
    row = 0 if header[104] & 0x80 else row  # compressed points are checked on their own
    for count, least in ((records, 54), (later, 60), (points, row)):
        if count * least > size:
            raise ValueError(f"its header promises more than its {size} bytes hold")


def write_las(path: Path, points: Points) -> None:
    """Write a ``.las`` or ``.laz`` file (LAS 1.4, point format 7, or what the points came from).

    The format keeps coordinates as integers: they are rounded to the finest power of ten, of at
    least 1e-6, by which the extent fits; on the grid of the file that they came from, if they lie
    on it.

    Args:
        path: The file, replaced if it is there.
        points: Columns with the name of one of the format's dimensions are stored there, others as
            extra dimensions; labels become the classification.

    Raises:
        SparseConvError: laspy (for ``.laz``: lazrs) is not installed.
        SparseConvValueError: A position is not finite; a label, or a feature with the name of a
            dimension of integers, is not one of those integers; a name has more than 32 bytes.
    """
    write_las_parts(path, iter([points]), None)


def write_las_parts(path: Path, parts: Iterator[Points], bounds: Any) -> None:
    """Write the same of parts, one after the other.

    Args:
        path: The file, replaced if it is there.
        parts: One at least, with the same columns.
        bounds: Low and high corner of all points; None for those of the first part.

    Raises:
        SparseConvError, SparseConvValueError: As of :func:`write_las`; a point lies outside of the
            bounds.
    """
    suffix = path.suffix.lower()
    laspy = _library(path.name, suffix)
    first = next(parts)
    header = _new_header(laspy, first, bounds)
    standard = set(header.point_format.dimension_names)
    extra = [(n, v.dtype) for n, v in _named(first).items() if n not in standard]
    if extra:
        header.add_extra_dims([laspy.ExtraBytesParams(name=n, type=kind) for n, kind in extra])
    backend = laspy.LazBackend.Lazrs if suffix == ".laz" else None
    unfinished = path.with_name(path.name + ".part")
    given = {"mode": "w", "header": header, "do_compress": suffix == ".laz", "laz_backend": backend}
    try:
        with laspy.open(str(unfinished), **given) as writer:
            for part in chain([first], parts):
                writer.write_points(_cloud(laspy, header, part, suffix).points)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _cloud(laspy: Any, header: Any, points: Points, suffix: str) -> Any:
    """Return points as laspy has them, rounded as the header says."""
    if not np.isfinite(points.xyz).all():
        raise SparseConvValueError(f"xyz: {suffix} holds finite positions only")
    cloud = laspy.LasData(copy.deepcopy(header))
    try:
        cloud.xyz = points.xyz
    except OverflowError as error:
        raise SparseConvValueError("parts: a point lies far outside of bounds") from error
    for name, values in _named(points).items():
        _store(cloud, name, values)
    return cloud


def _named(points: Points) -> Fields:
    """Return what becomes a dimension, by its name.

    Raises:
        SparseConvValueError: A name is taken or too long, or a column is text.
    """
    fields: Fields = dict(zip(points.feature_names, points.features.T, strict=True))
    fields |= points.extra
    for name, values in fields.items():
        if name.lower() in (*AXIS_NAMES, LABEL):
            raise SparseConvValueError(f"feature_names: {name!r} is taken, rename that feature")
        if not name or not name.isprintable() or set(name) & set(" ,;\"'#/"):
            raise SparseConvValueError(
                f"feature_names: {name!r} must be one word without blank, comma or quote"
            )
        if len(name.encode()) > LONGEST_NAME:
            raise SparseConvValueError(
                f"feature_names: {name!r} has more than {LONGEST_NAME} bytes, which a .las holds"
            )
        if values.dtype.kind not in "iuf":
            raise SparseConvValueError(f"extra: {name!r} is {values.dtype}, a .las holds numbers")
    if points.labels is not None:
        fields[LABEL] = points.labels
    elif "label" in fields or "labels" in fields:
        raise SparseConvValueError("feature_names: 'label' is taken, rename that feature")
    return fields


def _new_header(laspy: Any, points: Points, bounds: Any) -> Any:
    old = points.header
    header = laspy.LasHeader(point_format=7, version="1.4")
    if old.get("format") == "las":
        header = laspy.LasHeader(point_format=old["point_format"], version=old["version"])
        header.vlrs.extend(old.get("vlrs", ()))
        header.offsets, header.scales = np.array(old["offsets"]), np.array(old["scales"])
        steps = (as_xyz(points.xyz) - header.offsets) / header.scales
        on_grid = np.abs(steps - np.round(steps)) < 1e-3
        if on_grid.all() and (np.abs(steps) < 2**31 - 1).all():
            return header
    low, high = _extent(points.xyz) if bounds is None else np.array(bounds, np.float64)
    header.offsets = np.floor(low)
    header.scales = np.maximum(FINEST, 10.0 ** np.ceil(np.log10((high - low + 1) / STEPS)))
    return header


def _store(cloud: Any, name: str, values: npt.NDArray[Any]) -> None:
    """Put a column into the cloud.

    Raises:
        SparseConvValueError: The dimension does not hold these numbers.
    """
    dimension = cloud.point_format.dimension_by_name(name)
    if dimension.kind.name == "FloatingPoint" or values.dtype == dimension.dtype:
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


def _library(name: str, suffix: str) -> Any:
    """Return laspy, once all that the file needs is there."""
    for module in ("laspy", "lazrs") if suffix == ".laz" else ("laspy",):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SparseConvError(
                f"{name!r} needs {module}, which is not installed: pip install 'laspy[lazrs]'"
            ) from error
    return importlib.import_module("laspy")
