"""From named columns to `Points`: which are positions, which the labels, which dtype each keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.points import AXES, AXIS_NAMES, GRID_KEYS, LABEL_NAMES, Floats, Points
from sparseconv.io.table import Array, Column, Table

Fields: TypeAlias = dict[str, Array]

# Names of positions, best first, as `plain` leaves them; a file may mix x with easting no further.
AXIS_WORDS = (
    ({"x"}, {"y"}, {"z"}),
    (
        {"xcoord", "xcoordinate", "coordx", "pointx", "posx", "positionx"},
        {"ycoord", "ycoordinate", "coordy", "pointy", "posy", "positiony"},
        {"zcoord", "zcoordinate", "coordz", "pointz", "posz", "positionz"},
    ),
    (
        {"easting", "eastings", "east", "e", "rechtswert", "rechts"},
        {"northing", "northings", "north", "n", "hochwert", "hoch"},
        {"elevation", "elev", "height", "altitude", "alt", "z", "h", "up", "u", "hoehe", "höhe"},
    ),
)
# Names of labels, best first; the same after `scalar_` is taken off, as CloudCompare puts it on.
LABEL_WORDS = (
    *LABEL_NAMES,
    *("classification", "class", "classid", "classlabel", "semantic", "semantics"),
    *("semanticlabel", "semanticlabels", "semlabel", "semlabels", "semanticclass", "semclass"),
    *("labelid", "pointlabel", "pointlabels", "groundtruth", "gt", "category", "categoryid"),
    *("segment", "cls"),
)
TIME_WORDS = ("time", "timestamp", "gpstime", "stamp", "timestamps")
MISSING_STEP = 1e-5  # of a column's own range: coarser steps of float32 would merge its values
CACHED_ROWS = 1 << 15  # rows of a file that stay in the cache while all columns are read
EXACT = 2**24  # float32 holds every whole number up to here
LARGEST = float(np.finfo(np.float32).max)
LARGE = 2.0**20  # from here on float32 has steps of an eighth and more


def plain(name: str) -> str:
    """Return a column's name as it is compared: no case, unit, blank or underscore.

    >>> plain("Easting [m]"), plain("scalar_Label"), plain("Gps_Time")
    ('easting', 'label', 'gpstime')
    """
    name = re.sub(r"[\[(].*?[\])]", "", name.strip().lower())
    return re.sub(r"[\s_\-.]", "", name.removeprefix("scalar_"))


@dataclass(frozen=True)
class Roles:
    """What each column of a table is for.

    Attributes:
        axes: Names of x, y and z.
        label: Name of the column of labels, or None.
        features: Names of the columns that become float32 features.
        extra: Names of the columns that keep their own dtype.
    """

    axes: tuple[str, str, str]
    label: str | None
    features: tuple[str, ...]
    extra: tuple[str, ...]

    def chosen(self, names: Sequence[str] | None, source: str) -> Roles:
        """Return the roles where only columns of these names are wanted; positions always are.

        Raises:
            SparseConvValueError: There is no such column.
        """
        if names is None:
            return self
        if isinstance(names, str):
            raise SparseConvValueError(f"fields: must be a tuple of names, got {names!r}")
        label_names = (*LABEL_NAMES, self.label) if self.label is not None else ()
        known = (*self.features, *self.extra, *label_names, *AXIS_NAMES)
        for name in names:
            if name not in known:
                raise SparseConvValueError(
                    f"fields: {source!r} has no column {name!r}, the names are "
                    f"{', '.join((*AXIS_NAMES, *self.features, *self.extra, *label_names[:1]))}"
                )
        label = self.label if set(names) & set(label_names) else None
        features = tuple(name for name in names if name in self.features)
        return Roles(self.axes, label, features, tuple(n for n in names if n in self.extra))


def roles_of(table: Table, source: str, label: str | None = None) -> Roles:
    """Find positions, labels, features and what float32 does not hold.

    Args:
        table: What a file holds.
        source: What to call it in an error.
        label: Name of the column of labels, where the caller says it.

    Raises:
        SparseConvValueError: x, y or z is missing or there twice; `label` is no column of whole
            numbers; two columns have the same claim to hold the labels.
    """
    names = list(table.columns)
    axes = _axes(names, source)
    rest = [name for name in names if name not in axes]
    found = _named_label(table, rest, source, label) if label else _label(table, rest, source)
    rest = [name for name in rest if name != found]
    features = [name for name in rest if _is_feature(table, name)]
    return Roles(axes, found, tuple(features), tuple(n for n in rest if n not in features))


def _axes(names: list[str], source: str) -> tuple[str, str, str]:
    for words in AXIS_WORDS:
        found = [[name for name in names if plain(name) in allowed] for allowed in words]
        # `e n z` and the like: the height may have two names, one of them z
        if len(found[2]) > 1 and len(found[0]) == len(found[1]) == 1:
            found[2] = [name for name in found[2] if plain(name) == "z"] or found[2]
        if all(len(entry) == 1 for entry in found):
            return found[0][0], found[1][0], found[2][0]
    raise SparseConvValueError(
        f"{source} has the fields {', '.join(names) or 'none'}, must have x, y and z once: "
        f"columns= names them where they have no names or others"
    )


def _named_label(table: Table, names: list[str], source: str, label: str) -> str:
    found = [name for name in names if name == label]
    found = found or [name for name in names if name.lower() == label.lower()]
    if len(found) != 1:
        raise SparseConvValueError(
            f"label: {source} has no column {label!r}, the names are {', '.join(names) or 'none'}"
        )
    if not _is_whole(table, found[0]):
        raise SparseConvValueError(f"label: {found[0]!r} in {source} must hold whole int64 numbers")
    return found[0]


def _label(table: Table, names: list[str], source: str) -> str | None:
    """Return the column of labels: integers before floats, and a better name before another."""
    if table.label is not None:
        return table.label
    ranked = [(name, LABEL_WORDS.index(p)) for name in names if (p := plain(name)) in LABEL_WORDS]
    ranked.sort(key=lambda entry: entry[1])
    for kinds in ("iu", "f"):
        fitting = [
            (name, rank)
            for name, rank in ranked
            if table.columns[name].dtype.kind in kinds and _is_whole(table, name)
        ]
        own = [name for name, rank in fitting if rank < len(LABEL_NAMES)]
        if len(own) > 1:
            raise SparseConvValueError(f"{source} holds both label and labels, keep one")
        if fitting:
            return fitting[0][0]
    return None


def _is_whole(table: Table, name: str) -> bool:
    """Return whether a column holds integers that int64 holds too."""
    column = table.columns[name]
    kind, size = column.dtype.kind, column.dtype.itemsize
    if kind == "i" or (kind == "u" and size < 8):
        return True
    if kind not in "uf":
        return False
    most = np.iinfo(np.int64).max
    for values in table.blocks(column):
        if kind == "u":
            fits = bool((values <= np.uint64(most)).all())
        else:
            fits = bool(((values == np.floor(values)) & (np.abs(values) < 2.0**63)).all())
        if not fits:
            return False
    return True


def _is_feature(table: Table, name: str) -> bool:
    """Return whether float32 holds a column well enough to be a feature."""
    column = table.columns[name]
    kind, size = column.dtype.kind, column.dtype.itemsize
    if kind not in "biuf" or column.beside:
        return False
    if kind in "iub":
        return size < 4 or all(_are_small(values) for values in table.blocks(column))
    if size < 8:
        return True
    if plain(name) in TIME_WORDS and not column.typed:
        return False
    return _fits_float32(table, column)


def _are_small(values: Array) -> bool:
    return not values.size or (int(values.min()) >= -EXACT and int(values.max()) <= EXACT)


def _fits_float32(table: Table, column: Column) -> bool:
    low, high = np.inf, -np.inf
    for values in table.blocks(column):
        numbers = values[np.isfinite(values)]
        if numbers.size:
            low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    largest = max(-low, high)
    if largest > LARGEST:
        return False
    coarse = largest * 2.0**-24 > MISSING_STEP * (high - low) > 0
    if largest < LARGE and not coarse:
        return True
    return all(held_by_float32(values) for values in table.blocks(column))


def held_by_float32(values: npt.NDArray[np.float64]) -> bool:
    """Return whether float32 keeps every value, or all the digits (up to 9) that it has.

    >>> held_by_float32(np.array([0.1, 21.5])), held_by_float32(np.array([5648349.895]))
    (True, False)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        near = values.astype(np.float32).astype(np.float64)
        left = (near != values) & np.isfinite(values)
    if not left.any():
        return True
    if not np.isfinite(near[left]).all():
        return False
    wanted, near = np.abs(values[left]), np.abs(near[left])
    for digits in (9, 8, 7, 6):
        # powers of ten up to 22 are exact in float64, so that dividing by one rounds once
        power = digits - 1 - np.floor(np.log10(wanted)).astype(np.int64)
        small = np.abs(power) > 22
        scale = 10.0 ** np.clip(np.abs(power), 0, 22)
        up = power >= 0
        whole = np.round(np.where(up, near * scale, near / scale))
        rounded = np.where(up, whole / scale, whole * scale)
        open_ = (rounded != wanted) & ~small
        wanted, near = wanted[open_], near[open_]
        if not wanted.size:
            return True
    return False


def points_of(table: Table, roles: Roles, rows: slice, xyz: npt.DTypeLike) -> Points:
    """Read rows of a table.

    Args:
        table: What the file holds.
        roles: What its columns are for.
        rows: Which rows.
        xyz: Dtype of the positions, :func:`xyz_dtype`.
    """
    table.fetch(rows)
    start, stop, step = rows.indices(table.rows)
    count = len(range(start, stop, step))
    positions = np.empty((count, AXES), xyz)
    features = np.empty((count, len(roles.features)), np.float32)
    labels = None if roles.label is None else np.empty(count, np.int64)
    for first in range(0, count, CACHED_ROWS):
        own = slice(first, min(first + CACHED_ROWS, count))
        part = slice(start + own.start * step, start + own.stop * step, step)
        for target, names in ((positions, roles.axes), (features, roles.features)):
            for number, name in enumerate(names):
                target[own, number] = table.columns[name].read(part)
        if labels is not None and roles.label is not None:
            labels[own] = table.columns[roles.label].read(part)
    extra = {name: _own(table.columns[name].read(rows)) for name in roles.extra}
    header = table.header
    if count != table.rows:
        header = {name: value for name, value in header.items() if name not in GRID_KEYS}
    return Points(positions, features, roles.features, labels, extra, header)


def _own(values: Array) -> Array:
    """Return a copy in the machine's byte order."""
    return np.array(values, dtype=values.dtype.newbyteorder("="), order="C")


def xyz_dtype(table: Table, roles: Roles) -> np.dtype[Any]:
    """Return the smaller of float32 and float64 that keeps the digits of all positions."""
    columns = [table.columns[name] for name in roles.axes]
    if any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError(f"its positions {', '.join(roles.axes)} are not numbers")
    if np.result_type(np.float32, *(column.dtype for column in columns)) != np.float32:
        return np.dtype(np.float64)
    typed = (values for column in columns if column.typed for values in table.blocks(column))
    return np.dtype(np.float32 if all(map(held_by_float32, typed)) else np.float64)


def as_fields(points: Points, reserved: tuple[str, ...] = ()) -> Fields:
    """Return what a file of named columns holds: x, y, z, features, further columns, the label.

    Raises:
        SparseConvValueError: A feature's name is taken, empty, or has a blank, comma or quote.
    """
    axes: Fields = dict(zip(AXIS_NAMES, as_xyz(points.xyz).T, strict=True))
    for name in (*points.feature_names, *points.extra):
        if name.lower() in (*AXIS_NAMES, *LABEL_NAMES, *reserved):
            raise SparseConvValueError(f"feature_names: {name!r} is taken, rename that feature")
        if not name.isprintable() or not name or set(name) & set(" ,;\"'#/"):
            raise SparseConvValueError(
                f"feature_names: {name!r} must be one word without blank, comma or quote"
            )
    features = dict(zip(points.feature_names, points.features.astype(np.float32).T, strict=True))
    labels = {} if points.labels is None else {"label": points.labels.astype(np.int64)}
    return axes | features | dict(points.extra) | labels


def check_numbers(fields: Fields, suffix: str) -> None:
    """Raise where a column is text and the format holds numbers only."""
    for name, values in fields.items():
        if values.dtype.kind not in "biuf":
            raise SparseConvValueError(
                f"extra: {name!r} is text, a {suffix} holds numbers; write .csv or .npz"
            )


def as_xyz(columns: Array) -> Floats:
    """Copy numeric coordinates to the smallest of float32 and float64 that keeps their digits.

    Args:
        columns: ``[N, 3]``, any integer or floating dtype; int32 and wider become float64.

    Returns:
        ``[N, 3]`` contiguous float32 or float64.
    """
    if np.result_type(columns.dtype, np.float32) == np.float32:
        return columns.astype(np.float32, order="C")
    return columns.astype(np.float64, order="C")


def column_names(count: int) -> tuple[str, ...]:
    """Return names for the columns of a table without: x, y, z and ``intensity`` or ``feature_i``.

    >>> column_names(4), column_names(5)
    (('x', 'y', 'z', 'intensity'), ('x', 'y', 'z', 'feature_0', 'feature_1'))
    """
    extra = count - AXES
    names = ("intensity",) if extra == 1 else tuple(f"feature_{i}" for i in range(extra))
    return (*AXIS_NAMES, *names)


def named_columns(
    names: Sequence[str] | None, default: Sequence[str], count: int, source: str
) -> tuple[str, ...]:
    """Return the caller's names of a table's columns, or the default ones.

    Args:
        names: What the caller named; ``"_"`` leaves a column out.
        default: What the columns are called where the caller says nothing.
        count: Number of columns.
        source: What to call the file in an error.

    Raises:
        SparseConvValueError: There are more or fewer names, x, y or z is missing, or a name comes
            twice.
    """
    if names is None:
        return tuple(default)
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise SparseConvValueError(f"columns: must be a tuple of names, got {names!r}")
    names = tuple(names)
    used = [name for name in names if name != "_"]
    if len(names) != count:
        raise SparseConvValueError(
            f"columns: {source!r} has {count} columns, got {len(names)} names: {', '.join(names)}"
        )
    if len(set(used)) != len(used):
        raise SparseConvValueError(f"columns: the names {', '.join(names)} must differ")
    return names
