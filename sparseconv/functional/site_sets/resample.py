"""Interpolation to another extent: nearest and linear, at the sites that an input reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.segments import segment_gather, segment_sum
from sparseconv.core.arguments import Ints, check_int, numbers_per_axis
from sparseconv.core.dispatch import implements
from sparseconv.core.dtypes import INT32
from sparseconv.core.grid import Grids, change
from sparseconv.core.index import starts_of
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvTypeError,
    SparseConvValueError,
)
from sparseconv.functional.precision import widened
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.tensor import SparseTensor

_NEAREST = ("nearest", "nearest-exact")
_LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}


class _Taps(NamedTuple):
    """Which inputs the outputs of one axis read, pair by pair, in ascending order of the inputs.

    Attributes:
        outputs: int64 ``[P]``.
        weights: ``[P]``, none of them 0.
        starts: int64 ``[L + 1]``, where the pairs of each input begin.
        first: the coordinate of input 0; not 0 on an axis without an end.
    """

    outputs: Tensor
    weights: Tensor
    starts: Tensor
    first: int = 0


@implements(
    F.interpolate,
    meaning="nearest or linear interpolation to another extent",
    law="an inactive site counts 0; an output is active where an active input has a weight in it; "
    "an axis without an end takes scale_factor",
)
def _sparse_interpolate(
    input: SparseTensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> SparseTensor:
    axes = input.ndim - 2
    _check_mode(mode, axes, align_corners, antialias)
    target, scales = _target(input.spatial_shape, size, scale_factor, bool(recompute_scale_factor))
    is_open = [end is None for end in input.sites.ends[1:]]
    if any(is_open) and (None in scales or align_corners):
        raise SparseConvValueError(
            "scale_factor: give it, without align_corners: sizes and corners need an end, and axes "
            f"of the input have none, {input.sites.ends[1:]}"
        )
    taps = []
    for axis, (length, out, scale) in enumerate(
        zip(input.spatial_shape, target, scales, strict=True)
    ):
        if scale is not None and is_open[axis]:
            box = input.sites.index.packing
            taps.append(_without_end(box.lower[1 + axis], box.upper[1 + axis], scale, mode))
        elif mode in _NEAREST:
            taps.append(_nearest(length, out, scale, mode))
        else:
            taps.append(_linear(length, out, scale, bool(align_corners)))
    input = widened(input, "interpolate")
    factors = [
        _voxels_per_output(length, out, scale)
        for length, out, scale in zip(input.spatial_shape, target, scales, strict=True)
    ]
    grid = change(input.grid, lambda own: own.scaled(factors))
    # an axis without an end has as many cells as it has outputs
    ends = [None if without else out for without, out in zip(is_open, target, strict=True)]
    return _spread(input, ends, [_on(tap, input.device) for tap in taps], grid)


def _spread(
    input: SparseTensor, target: Sequence[int | None], taps: Sequence[_Taps], grid: Grids
) -> SparseTensor:
    """Return the sum of weighted inputs at every output site that one of them reaches."""
    order = input.sites.index.order
    if order is None:
        order = torch.arange(input.num_sites, device=input.device)
    # the pairs come in ascending order of their input sites, whatever the order of the rows
    coords = input.sites.shared_coords.long()
    cells = coords[order]
    rows, weights, columns = order, None, [cells[:, 0]]
    for axis, tap in enumerate(taps):
        inputs = cells[:, 1 + axis] - tap.first
        first = tap.starts[inputs]
        counts = tap.starts[inputs + 1] - first
        owner = torch.repeat_interleave(counts)
        begin = starts_of(counts)[:-1]
        entry = torch.arange(owner.numel(), device=owner.device) - begin[owner] + first[owner]
        columns = [column[owner] for column in columns] + [tap.outputs[entry]]
        weights = tap.weights[entry] if weights is None else weights[owner] * tap.weights[entry]
        cells, rows = cells[owner], rows[owner]
    sites, groups = grouped_sites(torch.stack(columns, dim=1), target, input.batch_size, grid=grid)
    by_row = torch.sort(rows, stable=True)
    starts = torch.searchsorted(
        by_row.values, torch.arange(input.num_sites + 1, device=input.device)
    )
    spread = segment_gather(input.features, by_row.indices, starts, rows)
    if weights is not None:
        spread = spread * weights.to(spread.dtype)[:, None]
    return SparseTensor.on_sites(
        segment_sum(spread, groups.order, groups.starts, groups.site_of_row), sites
    )


def _voxels_per_output(length: int, out: int, scale: float | None) -> Fraction:
    """Return how many voxels make one of the output's, a whole number (or one over it) if one fits.

    An extent of 11 that a stride of 2 made 5 or 6 grows back to 11 by a half.
    """
    if scale is not None:
        return 1 / Fraction(scale).limit_denominator(1 << 16)
    long, short = max(length, out, 1), max(min(length, out), 1)
    whole = round(long / short)
    factor = Fraction(whole) if abs(long - whole * short) < whole else Fraction(long, short)
    return 1 / factor if out > length else factor


def _nearest(length: int, out: int, scale: float | None, mode: str) -> _Taps:
    """Return the one input of each output: PyTorch resamples a ramp, and rounds as it does."""
    ramp = torch.arange(length, dtype=torch.float64)[None, None]
    if length == 0:
        inputs = ramp.new_zeros(0)
    elif scale is None:
        inputs = F.interpolate(ramp, size=out, mode=mode)
    else:
        inputs = F.interpolate(ramp, scale_factor=scale, mode=mode, recompute_scale_factor=False)
    source = inputs.flatten().long()
    return _sorted_taps(source, torch.arange(source.numel()), torch.ones_like(source), length)


def _linear(length: int, out: int, scale: float | None, align_corners: bool) -> _Taps:
    """Return the two inputs around each output and their weights."""
    out = out if length else 0
    outputs = torch.arange(out, dtype=torch.float64)
    if align_corners:
        position = outputs * ((length - 1) / (out - 1) if out > 1 else 0.0)
    else:
        step = length / out if scale is None else 1 / scale
        position = ((outputs + 0.5) * step - 0.5).clamp(min=0)
    lower = position.floor().long().clamp(max=length - 1)
    upper = (lower + 1).clamp(max=length - 1)
    share = (position - lower).clamp(0, 1)
    # at the high end both are the last input
    share = torch.where(upper > lower, share, 0)
    inputs, weights = torch.cat([lower, upper]), torch.cat([1 - share, share])
    keep = weights > 0
    return _sorted_taps(inputs[keep], torch.arange(out).repeat(2)[keep], weights[keep], length)


def _without_end(low: int, high: int, scale: float, mode: str) -> _Taps:
    """Return the inputs ``low`` to ``high`` around each output of an axis without borders."""
    outputs = torch.arange(math.floor(low * scale) - 2, math.ceil((high + 2) * scale) + 2)
    if mode == "nearest":
        inputs, weights = (outputs.double() / scale).floor(), torch.ones(len(outputs))
    elif mode == "nearest-exact":
        inputs, weights = ((outputs.double() + 0.5) / scale).floor(), torch.ones(len(outputs))
    else:
        position = (outputs.double() + 0.5) / scale - 0.5
        share = position - position.floor()
        inputs = torch.cat([position.floor(), position.floor() + 1])
        weights, outputs = torch.cat([1 - share, share]), outputs.repeat(2)
    keep = (inputs >= low) & (inputs <= high) & (weights > 0)
    length = max(high - low + 1, 0)
    taps = _sorted_taps(inputs[keep].long() - low, outputs[keep], weights[keep], length)
    return taps._replace(first=low)


def _sorted_taps(inputs: Tensor, outputs: Tensor, weights: Tensor, length: int) -> _Taps:
    order = torch.argsort(inputs, stable=True)
    starts = torch.searchsorted(inputs[order], torch.arange(length + 1))
    return _Taps(outputs[order], weights[order], starts)


def _on(taps: _Taps, device: torch.device) -> _Taps:
    outputs, weights, starts = (part.to(device) for part in taps[:3])
    return _Taps(outputs, weights, starts, taps.first)


def _check_mode(mode: str, axes: int, align_corners: bool | None, antialias: bool) -> None:
    if not isinstance(mode, str):
        raise SparseConvTypeError(f"mode: must be a string, got {mode!r}")
    if mode not in _NEAREST and mode not in _LINEAR:
        raise SparseConvNotImplementedError(
            f"mode: {mode!r} has no sparse meaning here; use 'nearest', 'nearest-exact' or a "
            f"linear mode, torch.nn.AvgPool for 'area', or x.dense()"
        )
    if _LINEAR.get(mode, axes) != axes:
        raise SparseConvValueError(
            f"mode: {mode!r} is for {_LINEAR[mode]} spatial axes, the input has {axes}"
        )
    if mode in _NEAREST and align_corners is not None:
        raise SparseConvValueError("align_corners: only with the linear modes")
    if antialias:
        raise SparseConvNotImplementedError(
            "antialias: has no sparse meaning here; use x.dense(), or smooth by a convolution first"
        )


def _target(
    shape: Ints, size: Any, scale_factor: Any, recompute: bool
) -> tuple[Ints, list[float | None]]:
    """Return the extent of the output, and the scales where they set the step."""
    if (size is None) == (scale_factor is None):
        raise SparseConvValueError("size: give either size or scale_factor")
    if size is not None:
        if recompute:
            raise SparseConvValueError("recompute_scale_factor: only with scale_factor")
        entries = numbers_per_axis("size", size, len(shape))
        target = tuple(check_int("size", entry) for entry in entries)
        scales: list[float | None] = [None] * len(shape)
    else:
        factors = numbers_per_axis("scale_factor", scale_factor, len(shape))
        target = tuple(math.floor(n * s) for n, s in zip(shape, factors, strict=True))
        scales = [None] * len(shape) if recompute else [float(s) for s in factors]
    if any(out < 1 for out, length in zip(target, shape, strict=True) if length):
        raise SparseConvValueError(f"size: the output would have the extent {target}")
    if max(target, default=0) > INT32.max:
        raise SparseConvValueError(
            f"size: coordinates must lie in the int32 range, the output would have the extent "
            f"{target}"
        )
    return target, scales
