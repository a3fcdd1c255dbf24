"""Layers with a window: convolutions, pooling, interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

from sparseconv.core.arguments import Ints, numbers_per_axis
from sparseconv.core.geometry import Kind
from sparseconv.functional.convolution.table import CONVOLUTIONS
from sparseconv.tools.fields.intervals import Field
from sparseconv.tools.fields.stand_in import Axes, Axis, Call

_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation")
_AVG_POOL = ("input", "kernel_size", "stride", "padding")


def windowed(call: Call, through: Sequence[Callable[[Axis], Field]]) -> Axes:
    """Return the axes behind a window on the last dimensions, and record them."""
    (x,) = call.inputs[:1]
    first = call.results[0].ndim - len(through)
    axes = []
    for axis in x.axes:
        if axis.merged and axis.dim is not None and axis.dim >= first:
            axes.append(axis.everywhere())
        elif axis.dim is None or axis.dim < first:
            axes.append(axis)
        else:
            size = call.results[0].shape[axis.dim]
            axes.append(Axis(axis.dim, through[axis.dim - first](axis), size))
    x.history.record(call.name, tuple(axes))
    return tuple(axes)


def _window(kernel: int, stride: int, padding: int, dilation: int) -> Callable[[Axis], Field]:
    span = dilation * (kernel - 1) + 1

    def reads(n: int) -> range:
        return range(n * stride - padding, n * stride - padding + span, dilation)

    return lambda axis: axis.field.through(reads, 1, stride)


def _transposed_window(
    kernel: int, stride: int, padding: int, dilation: int
) -> Callable[[Axis], Field]:
    def reads(n: int) -> list[int]:
        positions = [n + padding - cell * dilation for cell in range(kernel)]
        return [position // stride for position in positions if position % stride == 0]

    return lambda axis: axis.field.through(reads, stride, 1)


def convolution(call: Call) -> Axes:
    """Return the axes behind a line of the table of convolutions."""
    line = CONVOLUTIONS[call.name]
    bound = call.bind("input", "weight", "bias", *line.arguments)
    if line.kind is Kind.SUBMANIFOLD:
        bound["padding"] = "same"
    window = _transposed_window if line.transposed else _window
    return windowed(call, _windows(window, tuple(bound["weight"].shape[2:]), bound))


def _windows(make: Callable[..., Any], kernel: Ints, bound: dict[str, Any]) -> list[Any]:
    """Return what each axis of a window layer does, from torch's arguments."""
    axes = len(kernel)
    stride, dilation = (
        numbers_per_axis(name, bound.get(name, 1), axes) for name in ("stride", "dilation")
    )
    padding = bound.get("padding", 0)
    if padding == "valid":
        padding = 0
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    pads = numbers_per_axis("padding", padding, axes)
    return [make(*entry) for entry in zip(kernel, stride, pads, dilation, strict=True)]


def _pool(names: Sequence[str]) -> Callable[[Call], Axes]:
    def pool(call: Call) -> Axes:
        bound = call.bind(*names)
        axes = int(call.name.split("d")[0][-1])
        kernel = numbers_per_axis("kernel_size", bound["kernel_size"], axes)
        stride = bound.get("stride")
        return windowed(
            call, _windows(_window, kernel, bound | {"stride": stride if stride else kernel})
        )

    return pool


def _adaptive(call: Call) -> Axes:
    axes = int(call.name[-2] if call.name.endswith("d") else call.name.split("d_")[0][-1])

    def through(axis: Axis) -> Field:
        size, out = axis.size, call.results[0].shape[axis.dim or 0]
        return axis.field.through(
            lambda n: range(n * size // out, -(-(n + 1) * size // out)), out, size
        )

    return windowed(call, [through] * axes)


def _interpolate(call: Call) -> Axes:
    names = ("input", "size", "scale_factor", "mode", "align_corners")
    bound = call.bind(*names)
    mode, scale = bound.get("mode", "nearest"), bound.get("scale_factor")
    if mode == "area":
        return _adaptive(replace_name(call, f"adaptive_{call.results[0].ndim - 2}d"))
    axes = call.results[0].ndim - 2
    scales: Sequence[Any] = [None] * axes
    if scale is not None:
        scales = numbers_per_axis("scale_factor", scale, axes)

    def through(number: int) -> Callable[[Axis], Field]:
        def resample(axis: Axis) -> Field:
            out = call.results[0].shape[axis.dim or 0]
            step = Fraction(axis.size, out)
            if scales[number] is not None and not bound.get("recompute_scale_factor"):
                step = 1 / Fraction(scales[number]).limit_denominator(1000)
            corners = bool(bound.get("align_corners")) and out > 1
            if corners:
                step = Fraction(axis.size - 1, out - 1)
            reads = _taps(mode, step, corners)
            return axis.field.through(reads, step.denominator, step.numerator)

        return resample

    return windowed(call, [through(number) for number in range(axes)])


def _taps(mode: str, step: Fraction, corners: bool) -> Callable[[int], Sequence[int]]:
    """Return which positions an interpolated one reads, ``step`` apart."""
    offset = Fraction(0) if corners else (step - 1) / 2
    if mode == "nearest":
        return lambda n: [floor(n * step)]
    if mode == "nearest-exact":
        return lambda n: [floor((n + Fraction(1, 2)) * step)]
    if mode == "bicubic":
        return lambda n: _cubic(n * step + offset)
    return lambda n: [floor(n * step + offset), ceil(n * step + offset)]


def _cubic(position: Fraction) -> Sequence[int]:
    if position.denominator == 1:
        return [int(position)]
    return range(floor(position) - 1, floor(position) + 3)


def replace_name(call: Call, name: str) -> Call:
    """Return the call under another name."""
    return replace(call, name=name)


# by the beginning of their names, the longer ones first
WINDOWS: dict[str, Callable[[Call], Axes]] = {
    "max_pool": _pool(_MAX_POOL),
    "avg_pool": _pool(_AVG_POOL),
    "lp_pool": _pool(("input", "norm_type", "kernel_size", "stride")),
    "adaptive_": _adaptive,
    "interpolate": _interpolate,
    "upsample": _interpolate,
}
