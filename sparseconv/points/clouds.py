"""Clouds from outside: one or a batch of them, with their features, checked and joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparseconv import io
from sparseconv.core.arguments import check_device, check_floating, check_integers
from sparseconv.core.dtypes import INT32
from sparseconv.core.index import to_device
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import MAX_DIMENSIONS

Points = Tensor | np.ndarray[Any, Any]
ARRAYS = (Tensor, np.ndarray)


class Cloud(NamedTuple):
    """The points of a batch in one piece.

    Attributes:
        xyz: floating point ``[N, D]``, all finite.
        features: floating point ``[N, C]``, no NaN.
        samples: int64 ``[N]``, the sample of each point.
        batch_size: number of samples, empty ones counted.
    """

    xyz: Tensor
    features: Tensor
    samples: Tensor
    batch_size: int


def one_cloud(xyz: Any, features: Any, batch: Any) -> Cloud:
    """Return what a caller gave as one cloud: an array, a file, a list of them or ``(B, N, D)``.

    Raises:
        SparseConvError: see :func:`sparseconv.voxelize`.
    """
    xyz, features = _columns(xyz, features)
    if isinstance(xyz, ARRAYS) and xyz.ndim == 3:
        xyz = list(xyz)
        features = list(features) if isinstance(features, ARRAYS) else features
    batch_size = None
    if isinstance(xyz, list | tuple) and any(isinstance(entry, ARRAYS) for entry in xyz):
        xyz, features, batch, batch_size = _joined(xyz, features, batch)
    points = as_tensor("xyz", xyz)
    _check_axes("xyz", points)
    values = _point_features(features, points)
    samples = _point_samples(batch, points)
    total = [] if features is None else [values.detach().sum(dtype=torch.float64)]
    numbers = [_sums(points), total, [] if batch is None else _ends(samples)]
    sums, total_on_host, ends = _on_host(numbers)
    _check_finite("xyz", points, sums)
    if any(map(math.isnan, total_on_host)):
        _check_no_nan(values)
    if batch_size is None:
        batch_size = _checked_ends(ends)[1] + 1
    return Cloud(points, values, samples, batch_size)


def _on_host(groups: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    """Return groups of numbers from their device, for all of which the host waits once."""
    flat = iter(torch.stack([number for group in groups for number in group]).tolist())
    return [[next(flat) for _ in group] for group in groups]


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
    clouds = [as_tensor(f"xyz[{sample}]", cloud) for sample, cloud in enumerate(xyz)]
    for cloud in clouds:
        _check_axes("xyz", cloud)
    counts = [cloud.shape[0] for cloud in clouds]
    if len({(cloud.shape[1], cloud.device) for cloud in clouds}) > 1:
        raise SparseConvValueError("xyz: the samples differ in their number of axes or device")
    lengths = to_device(counts, clouds[0].device)
    samples = torch.repeat_interleave(lengths, output_size=sum(counts))
    if features is None:
        return torch.cat(clouds), None, samples, len(clouds)
    if not isinstance(features, list | tuple) or len(features) != len(clouds):
        raise SparseConvValueError(f"features: must be a list of {len(clouds)}, as xyz")
    values = [as_tensor(f"features[{sample}]", value) for sample, value in enumerate(features)]
    shapes = [tuple(value.shape) for value in values]
    fits = all(len(shape) == 2 for shape in shapes) and len({shape[1:] for shape in shapes}) == 1
    if not fits or [shape[0] for shape in shapes] != counts:
        raise SparseConvValueError(
            f"features: must have shape (N, C) with one row per point in each sample, got {shapes} "
            f"for {counts} points"
        )
    return torch.cat(clouds), torch.cat(values), samples, len(clouds)


def as_tensor(name: str, value: Any) -> Tensor:
    """Return an array as a tensor."""
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:  # strings, objects, negative strides
        raise SparseConvTypeError(f"{name}: no tensor can be made of it: {error}") from error


def _check_axes(name: str, points: Any) -> None:
    """Raise unless ``points`` are floating point ``[N, D]`` with D from 1 to 4."""
    check_floating(name, points)
    if points.ndim != 2 or not 1 <= points.shape[1] <= MAX_DIMENSIONS:
        raise SparseConvValueError(
            f"{name}: must have shape (N, D) with D from 1 to {MAX_DIMENSIONS}, "
            f"got {tuple(points.shape)}"
        )


def _sums(points: Tensor) -> list[Tensor]:
    """Return the sum of each axis.

    A finite one shows that every point is finite, and is many times as fast as asking each one.
    """
    return [axis.sum(dtype=torch.float64) for axis in points.detach().unbind(1)]


def _check_finite(name: str, points: Tensor, sums: Sequence[float]) -> None:
    """Raise unless all points are finite; ``sums`` of their axes may show it."""
    if all(map(math.isfinite, sums)):
        return
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        raise SparseConvValueError(
            f"{name}: {int((~finite).sum())} of {points.shape[0]} points are NaN or infinite; keep "
            f"those with torch.isfinite(xyz).all(dim=1)"
        )


def _point_features(features: Any, points: Tensor) -> Tensor:
    if features is None:
        return torch.ones(points.shape[0], 1, device=points.device)
    values = as_tensor("features", features)
    check_floating("features", values)
    if values.ndim != 2 or values.shape[0] != points.shape[0]:
        raise SparseConvValueError(
            f"features: must have shape (N, C) with one row per point, got "
            f"{tuple(values.shape)} for {points.shape[0]} points"
        )
    check_device("features", values, points.device, "points")
    return values


def _check_no_nan(values: Tensor) -> None:
    """Raise if some features are NaN; infinite ones of both signs have a sum that is."""
    wrong = values.detach().isnan().any(dim=1)
    if bool(wrong.any()):
        raise SparseConvValueError(
            f"features: {int(wrong.sum())} of {len(wrong)} points have NaN; keep those with "
            f"~torch.isnan(features).any(dim=1), or replace NaN by torch.nan_to_num"
        )


def some_points(points: Any, own: Tensor) -> Tensor:
    """Return points ``[M, D]`` that must have as many axes as a map's own, on their device."""
    xyz = as_tensor("points", points)
    _check_axes("points", xyz)
    _check_finite("points", xyz, *_on_host([_sums(xyz)]))
    check_device("points", xyz, own.device, "map")
    if xyz.shape[1] != own.shape[1]:
        raise SparseConvValueError(
            f"points: must have {own.shape[1]} axes as the map's, got {xyz.shape[1]}"
        )
    return xyz


def samples_of(batch: Any, points: Tensor, batch_size: int) -> Tensor:
    """Return the sample of each of other points, int64 ``[M]``, which the batch must have."""
    samples = _point_samples(batch, points)
    ends = [] if batch is None else _ends(samples)
    last = _checked_ends(*_on_host([ends]))[1] if ends else 0
    if last >= batch_size and samples.numel():
        raise SparseConvValueError(
            f"batch: must be below the {batch_size} samples of the map, got {last}"
        )
    return samples


def _point_samples(batch: Any, points: Tensor) -> Tensor:
    if batch is None:
        # one number, shown as many times as there are points
        return torch.zeros(1, dtype=torch.int64, device=points.device).expand(points.shape[0])
    samples = as_tensor("batch", batch)
    check_integers("batch", samples)
    if tuple(samples.shape) != (points.shape[0],):
        raise SparseConvValueError(
            f"batch: must have shape ({points.shape[0]},), one entry per point, "
            f"got {tuple(samples.shape)}"
        )
    check_device("batch", samples, points.device, "points")
    return samples.long()


def _ends(samples: Tensor) -> list[Tensor]:
    """Return the smallest and the largest of samples, none of none."""
    return [end.double() for end in samples.aminmax()] if samples.numel() else []


def _checked_ends(ends: Sequence[float]) -> tuple[int, int]:
    """Return the first and the last sample, 0 and 0 of none.

    Raises:
        SparseConvValueError: numbers that no sample has.
    """
    for end in ends:
        if not 0 <= end <= INT32.max:
            raise SparseConvValueError(
                f"batch: must not be negative or exceed the int32 range, got {int(end)}"
            )
    first, last = map(int, ends or (0, 0))
    return first, last
