"""Points to voxels and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv import io
from sparseconv.autograd.segments import check_reduction, reduce_groups
from sparseconv.core.arguments import Ints, check_device, check_floating, check_integers
from sparseconv.core.dtypes import INT32
from sparseconv.core.grid import Grid
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.points.point_map import Metres, PointMap
from sparseconv.sites.coordinates import MAX_DIMENSIONS, grouped_sites
from sparseconv.tensor import SparseTensor

Points = Tensor | np.ndarray[Any, Any]
ARRAYS = (Tensor, np.ndarray)


def voxelize(
    xyz: Points | io.Points | Sequence[Points | io.Points],
    voxel_size: float | Sequence[float],
    features: Points | Sequence[Points] | None = None,
    batch: Points | None = None,
    bounds: Sequence[Any] | Points | None = None,
    reduce: str = "mean",
) -> tuple[SparseTensor, PointMap]:
    """Return the voxels that points fall on, and the way back to the points.

    A point belongs to voxel ``floor((xyz - origin) / voxel_size)``, computed in float64. Without
    bounds the origin is the smallest voxel that holds a point, on the grid of whole multiples of
    ``voxel_size``, so that shifting all points by whole voxels changes nothing.

    Args:
        xyz: ``[N, D]`` points, metres, D from 1 to 4, or what :func:`sparseconv.io.read_points`
            returned, whose features count where ``features`` is left out; or a list of either, one
            entry per sample (a sample may be empty).
        voxel_size: metres, one number or one per axis.
        features: floating point ``[N, C]``, or a list as ``xyz``; a column of ones where left out
            and where the file had none.
        batch: integer ``[N]``, the sample of each point; all in sample 0 where left out. Not with
            a list.
        bounds: ``(low, high)`` or ``(*low, *high)``, metres: points outside ``low <= xyz < high``
            are dropped and the extent is ``ceil((high - low) / voxel_size)``.
        reduce: how the features of points in one voxel merge: ``"mean"``, ``"sum"``, ``"max"``,
            ``"min"``, ``"first"`` or ``"last"``; differentiable.

    Returns:
        The SparseTensor, its sites sorted, and the :class:`PointMap`.

    Raises:
        SparseConvError: NaN or infinite points, NaN features, a voxel size that is not positive,
            shapes that do not fit, voxel coordinates that cannot be packed.

    Example:
        >>> import torch, sparseconv as sc
        >>> xyz = torch.tensor([[0.1, 0.2, 0.0], [0.3, 0.1, 0.2], [2.0, 0.0, 0.0]])
        >>> x, to_points = sc.voxelize(xyz, 0.5, reduce="sum")
        >>> x.features.flatten(), to_points.rows
        (tensor([2., 1.]), tensor([0, 0, 1]))
    """
    check_reduction(reduce)
    batch_size = None
    xyz, features = _columns(xyz, features)
    if isinstance(xyz, list | tuple) and any(isinstance(entry, ARRAYS) for entry in xyz):
        xyz, features, batch, batch_size = _joined(xyz, features, batch)
    points = _tensor("xyz", xyz)
    _check_points(points)
    size = _metres("voxel_size", voxel_size, points.shape[1])
    if not all(0 < edge < float("inf") for edge in size):
        raise SparseConvValueError(f"voxel_size: must be positive and finite, got {size}")
    values = _point_features(features, points)
    samples = _point_samples(batch, points)
    inside, coords, origin, shape = _cells(points.detach(), samples, size, bounds)
    if inside is not None:
        coords, values = coords[inside], values[inside]
    if batch_size is None:
        batch_size = int(samples.max()) + 1 if samples.numel() else 1
    sites, groups = grouped_sites(coords, shape, batch_size, grid=Grid(origin, size))
    x = SparseTensor.on_sites(reduce_groups(values, groups, reduce), sites)
    rows = groups.site_of_row
    if inside is not None:
        rows = torch.full((points.shape[0],), -1, device=points.device)
        rows[inside] = groups.site_of_row
    return x, PointMap(rows, sites, points, samples, origin, size, groups)


def _columns(xyz: Any, features: Any) -> tuple[Any, Any]:
    """Return positions and features where ``xyz`` is what a reader returned, or a list of that.

    Raises:
        SparseConvValueError: the files of a list have different features.
    """
    if isinstance(xyz, io.Points):
        read = xyz.features if xyz.feature_names else None
        return xyz.xyz, read if features is None else features
    if not isinstance(xyz, list | tuple) or not all(isinstance(x, io.Points) for x in xyz):
        return xyz, features
    names = {x.feature_names for x in xyz}
    if features is None and len(names) > 1:
        raise SparseConvValueError(
            f"features: must be the same in all samples, got {sorted(names)}; give features="
        )
    if features is None and names - {()}:
        features = [x.features for x in xyz]
    return [x.xyz for x in xyz], features


def _joined(
    xyz: Sequence[Any], features: Any, batch: Any
) -> tuple[Tensor, Tensor | None, Tensor, int]:
    """Return points and features of a list of samples in one piece, their batch and its size."""
    if batch is not None:
        raise SparseConvValueError("batch: a list of samples says it already; leave it out")
    clouds = [_tensor(f"xyz[{sample}]", cloud) for sample, cloud in enumerate(xyz)]
    for cloud in clouds:
        _check_points(cloud)
    counts = [cloud.shape[0] for cloud in clouds]
    if len({(cloud.shape[1], cloud.device) for cloud in clouds}) > 1:
        raise SparseConvValueError("xyz: the samples differ in their number of axes or device")
    numbers = torch.arange(len(clouds), device=clouds[0].device)
    samples = torch.repeat_interleave(numbers, torch.tensor(counts, device=numbers.device))
    if features is None:
        return torch.cat(clouds), None, samples, len(clouds)
    if not isinstance(features, list | tuple) or len(features) != len(clouds):
        raise SparseConvValueError(f"features: must be a list of {len(clouds)}, as xyz")
    values = [_tensor(f"features[{sample}]", value) for sample, value in enumerate(features)]
    shapes = [tuple(value.shape) for value in values]
    fits = all(len(shape) == 2 for shape in shapes) and len({shape[1:] for shape in shapes}) == 1
    if not fits or [shape[0] for shape in shapes] != counts:
        raise SparseConvValueError(
            f"features: must have shape (N, C) with one row per point in each sample, got {shapes} "
            f"for {counts} points"
        )
    return torch.cat(clouds), torch.cat(values), samples, len(clouds)


def _tensor(name: str, value: Any) -> Tensor:
    """Return an array as a tensor."""
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:  # strings, objects, negative strides
        raise SparseConvTypeError(f"{name}: no tensor can be made of it: {error}") from error


def _cells(
    points: Tensor, samples: Tensor, size: Metres, bounds: Any
) -> tuple[Tensor | None, Tensor, Metres, Ints]:
    """Return which points are inside (None for all), coordinates, origin and extent.

    It works axis by axis, because operators over rows of three numbers use no vector instructions.
    """
    steps = torch.tensor(size, dtype=torch.float64, device=points.device)
    axes = [axis.double() for axis in points.unbind(1)]
    coords = torch.empty(len(points), 1 + len(size), dtype=torch.int64, device=points.device)
    coords[:, 0] = samples
    if bounds is None:
        ends = []
        for column, (axis, step) in enumerate(zip(axes, steps, strict=True), 1):
            cells = (axis / step).floor_()
            ends.append(torch.aminmax(cells) if len(points) else (step * 0, step * 0 - 1))
            coords[:, column] = cells.sub_(ends[-1][0])
        first, last = (torch.stack(end) for end in zip(*ends, strict=True))
        spans = (last - first).tolist()
        wide = [span for span in spans if not span < 2**31]  # NaN between infinite ones
        if wide:
            raise SparseConvValueError(
                f"voxel_size: the points span {wide[0]:.3g} voxels of {size} metres on one "
                f"axis; coordinates must lie in the int32 range"
            )
        origin = tuple((first * steps).tolist())
        return None, coords, origin, tuple(int(entry) + 1 for entry in spans)
    low, high = _bounds(bounds, len(size))
    # bounds that hold a whole number of voxels up to rounding hold exactly that number
    lengths = zip(low, high, size, strict=True)
    shape = tuple(int(np.ceil((top - bottom) / step - 1e-6)) for bottom, top, step in lengths)
    inside = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for number, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        cells = ((axis - low[number]) / step).floor_()
        within = (axis >= low[number]) & (axis < high[number]) & (cells < float(shape[number]))
        coords[:, 1 + number] = torch.where(within, cells, 0)
        inside &= within
    return inside, coords, low, shape


def _bounds(bounds: Any, axes: int) -> tuple[Metres, Metres]:
    flat = _numbers("bounds", bounds)
    if flat.size != 2 * axes or not np.isfinite(flat).all():
        raise SparseConvValueError(
            f"bounds: must be (low, high) with {axes} finite numbers each, got {bounds!r}"
        )
    low, high = tuple(flat[:axes].tolist()), tuple(flat[axes:].tolist())
    if any(top <= bottom for bottom, top in zip(low, high, strict=True)):
        raise SparseConvValueError(f"bounds: high must exceed low on every axis, got {low}, {high}")
    return low, high


def _metres(name: str, value: float | Sequence[float], axes: int) -> Metres:
    entries: list[float] = _numbers(name, value).tolist()
    if len(entries) == 1:
        entries = entries * axes
    if len(entries) != axes:
        raise SparseConvValueError(
            f"{name}: must be one number or {axes} (one per axis), got {len(entries)}"
        )
    return tuple(entries)


def _numbers(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Return numbers, nested or not, as one float64 array."""
    try:
        return np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise SparseConvTypeError(f"{name}: must be numbers, got {value!r}") from error


def _check_points(points: Tensor) -> None:
    check_floating("xyz", points)
    if points.ndim != 2 or not 1 <= points.shape[1] <= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"xyz: must have shape (N, D) with D from 1 to {MAX_DIMENSIONS}, "
            f"got {tuple(points.shape)}"
        )
    # a finite sum shows that every point is finite, and is many times as fast as asking each one
    sums = [axis.sum(dtype=torch.float64) for axis in points.detach().unbind(1)]
    if bool(torch.stack(sums).isfinite().all()):
        return
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        raise SparseConvValueError(
            f"xyz: {int((~finite).sum())} of {points.shape[0]} points are NaN or infinite; keep "
            f"those with torch.isfinite(xyz).all(dim=1)"
        )


def _point_features(features: Any, points: Tensor) -> Tensor:
    if features is None:
        return torch.ones(points.shape[0], 1, device=points.device)
    values = _tensor("features", features)
    check_floating("features", values)
    if values.ndim != 2 or values.shape[0] != points.shape[0]:
        raise SparseConvValueError(
            f"features: must have shape (N, C) with one row per point, got "
            f"{tuple(values.shape)} for {points.shape[0]} points"
        )
    check_device("features", values, points.device, "points")
    if not bool(
        values.detach().sum(dtype=torch.float64).isnan()
    ):  # much faster than a look at each
        return values
    wrong = values.detach().isnan().any(dim=1)
    if bool(wrong.any()):
        raise SparseConvValueError(
            f"features: {int(wrong.sum())} of {points.shape[0]} points have NaN; keep those with "
            f"~torch.isnan(features).any(dim=1), or replace NaN by torch.nan_to_num"
        )
    return values


def _point_samples(batch: Any, points: Tensor) -> Tensor:
    if batch is None:
        return torch.zeros(points.shape[0], dtype=torch.int64, device=points.device)
    samples = _tensor("batch", batch)
    check_integers("batch", samples)
    if tuple(samples.shape) != (points.shape[0],):
        raise SparseConvValueError(
            f"batch: must have shape ({points.shape[0]},), one entry per point, "
            f"got {tuple(samples.shape)}"
        )
    check_device("batch", samples, points.device, "points")
    samples = samples.long()
    wrong = samples[(samples < 0) | (samples > INT32.max)]
    if wrong.numel():
        raise SparseConvValueError(
            f"batch: must not be negative or exceed the int32 range, got {int(wrong[0])}"
        )
    return samples
