"""Geometry: kernel size, stride, padding and dilation of one layer, and what follows from them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from sparseconv.core.arguments import Ints, came, per_axis
from sparseconv.errors import SparseConvValueError


class Kind(Enum):
    """Which site law a layer follows (DESIGN, law 3)."""

    REGULAR = "regular"
    SUBMANIFOLD = "submanifold"
    TRANSPOSED = "transposed"
    STRIDED = "strided"  # the cells of the stride that hold an input, whatever the window


_LAWS = {"reached": Kind.REGULAR, "strided": Kind.STRIDED}  # as users name them


def site_law(sites: str) -> Kind:
    """Return the site law that a user names.

    Raises:
        SparseConvValueError: another name.
    """
    if not isinstance(sites, str) or sites not in _LAWS:
        raise SparseConvValueError(f"sites: must be 'reached' or 'strided', got {came(sites)}")
    return _LAWS[sites]


@dataclass(frozen=True)
class Geometry:
    """The relation between the sites that a layer reads and those that it writes.

    Kernel cell ``k`` joins a fine site ``i`` and a coarse site ``o`` where, on each axis,
    ``i = o * stride - padding + k * dilation``. A regular or submanifold convolution reads ``i``
    and writes ``o``; a transposed one reads ``o`` and writes ``i``. Equal geometries are equal
    cache keys.

    Attributes:
        kernel_size, stride, padding, dilation: one int per axis; ``padding`` is at the low end.
        padding_end: padding at the high end (differs from ``padding`` only for ``"same"``).
        output_padding: extra sites at the high end of a transposed convolution's output.
        kind: the site law.
    """

    kernel_size: Ints
    stride: Ints
    padding: Ints
    padding_end: Ints
    dilation: Ints
    output_padding: Ints
    kind: Kind

    def __str__(self) -> str:
        """Return the arguments of the layer that has this geometry."""
        arguments = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        law = ", sites='strided'" if self.kind is Kind.STRIDED else ""
        return f"{arguments}, dilation={self.dilation}{law}"

    @property
    def dimensions(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def num_cells(self) -> int:
        """Number of kernel cells."""
        return math.prod(self.kernel_size)

    @cached_property
    def cells(self) -> list[Ints]:
        """Kernel cells, last axis fastest: the order of ``weight.flatten(2)``."""
        return list(itertools.product(*(range(size) for size in self.kernel_size)))

    @property
    def numbers(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
        """All but the kind, in the order of the constructor."""
        window = (self.kernel_size, self.stride, self.padding, self.padding_end, self.dilation)
        return (*window, self.output_padding)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash of the numbers, worked out once: every layer asks for it at every call.

        That of an enumeration's member differs from process to process, and pickles keep this one.
        """
        return hash(self.numbers)

    @property
    def is_pointwise(self) -> bool:
        """Whether every output site reads the one input site in its own place."""
        pads = (*self.padding, *self.padding_end, *self.output_padding)
        return max(self.kernel_size) == max(self.stride) == 1 and not any(pads)

    @cached_property
    def as_submanifold(self) -> Geometry:
        """The same window under the submanifold site law."""
        return replace(self, kind=Kind.SUBMANIFOLD)

    @property
    def as_regular(self) -> Geometry:
        """The same window under the regular site law."""
        return replace(self, kind=Kind.REGULAR)

    @property
    def block(self) -> Geometry:
        """The cells of the stride as windows: what they reach is the strided law's output."""
        none, ones = (0,) * self.dimensions, (1,) * self.dimensions
        return Geometry(self.stride, self.stride, none, none, ones, none, Kind.REGULAR)

    @property
    def keeps_sites(self) -> bool:
        """Whether the output sites are the input sites."""
        strided = self.kind is Kind.STRIDED and max(self.stride) == 1
        return strided or self.kind is Kind.SUBMANIFOLD

    @property
    def returns_to_itself(self) -> bool:
        """Whether the layer that undoes this one stays on its sites."""
        return self.is_pointwise or self.keeps_sites

    @property
    def keeps_grid(self) -> bool:
        """Whether outputs lie where inputs do: stride 1, and padding that keeps the extent."""
        if self.keeps_sites:
            return True
        windows = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        pads = zip(self.padding, self.padding_end, strict=True)
        return max(self.stride) == 1 and all(
            low + high == window and low == window // 2
            for (low, high), window in zip(pads, windows, strict=True)
        )

    def pads(self, spatial_shape: Ints) -> list[tuple[int, int]]:
        """Return how far windows read beyond both ends of each axis.

        Under the strided law their number says so, and not the padding.
        """
        ends = list(self.padding_end)
        if self.kind is Kind.STRIDED:
            for axis, windows in enumerate(self.output_shape(spatial_shape)):
                first = (windows - 1) * self.stride[axis] - self.padding[axis]
                last = first + self.dilation[axis] * (self.kernel_size[axis] - 1)
                ends[axis] = max(last + 1 - spatial_shape[axis], 0)
        return list(zip(self.padding, ends, strict=True))

    def unpadded(self, axes: Sequence[int]) -> Geometry:
        """Return the regular window of this one, without padding on ``axes``."""
        start, end = (
            tuple(0 if axis in axes else pad for axis, pad in enumerate(pads))
            for pads in (self.padding, self.padding_end)
        )
        return replace(self, padding=start, padding_end=end, kind=Kind.REGULAR)

    def output_shape(self, spatial_shape: Ints, whole: bool = False) -> Ints:
        """Return the output's extent per axis: ``floor((L + 2p - d(k-1) - 1)/s + 1)``, or back.

        An axis of extent 0 (a tensor without any site, whose shape nobody gave) stays 0. With
        ``whole`` windows go on until the last input: strides leave none of them out. Under the
        strided law it is ``ceil(L/s)``.

        Raises:
            SparseConvValueError: an axis would get an extent below 1.
        """
        if self.kind is Kind.STRIDED:
            return self.block.output_shape(spatial_shape, whole=True)
        shape = tuple(
            0 if length == 0 else self._output_length(axis, length, whole)
            for axis, length in enumerate(spatial_shape)
        )
        for axis, (length, size) in enumerate(zip(spatial_shape, shape, strict=True)):
            if length > 0 and size < 1:
                raise SparseConvValueError(
                    f"spatial_shape: axis {axis} has extent {length}: an output size "
                    f"of {size} for kernel_size={self.kernel_size[axis]}, "
                    f"stride={self.stride[axis]}, padding={self.padding[axis]}, "
                    f"dilation={self.dilation[axis]}; it must be at least 1"
                )
        return shape

    def _output_length(self, axis: int, length: int, whole: bool) -> int:
        window = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        padding = self.padding[axis] + self.padding_end[axis]
        if self.kind is Kind.SUBMANIFOLD:
            return length
        if self.kind is Kind.TRANSPOSED:
            extra = self.output_padding[axis]
            return (length - 1) * self.stride[axis] - padding + window + extra
        stride = self.stride[axis]
        windows = (length + padding - window) // stride + 1
        if whole and stride > 1:
            return max(windows, -((window - self.padding[axis] - length) // stride) + 1)
        return windows

    def reach(self, lower: Ints, upper: Ints) -> tuple[Ints, Ints]:
        """Return the box of outputs that inputs in the box ``lower..upper`` can reach."""
        if self.kind is Kind.STRIDED:
            return self.block.reach(lower, upper)
        low, high = [], []
        for axis, (first, last) in enumerate(zip(lower, upper, strict=True)):
            stride, padding = self.stride[axis], self.padding[axis]
            span = self.dilation[axis] * (self.kernel_size[axis] - 1)
            if self.kind is Kind.TRANSPOSED:
                low.append(first * stride - padding)
                high.append(last * stride - padding + span)
            else:
                low.append(-((span - first - padding) // stride))
                high.append((last + padding) // stride)
        return tuple(low), tuple(high)


def make_geometry(
    kernel_size: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    kind: Kind = Kind.REGULAR,
) -> Geometry:
    """Return the checked :class:`Geometry` of a layer from torch's arguments.

    Args:
        kernel_size: one int per axis; it sets the number of axes.
        stride, dilation: int or one per axis, at least 1.
        padding: int or one per axis, at least 0; ``"valid"``; ``"same"`` (stride 1 only; with an
            even window the extra site is at the high end, as in torch).
        output_padding: transposed only; smaller than the larger of stride and dilation.
        kind: the site law; submanifold sets the padding itself, and strided takes any: it says
            where windows begin, not how many there are.

    Raises:
        SparseConvValueError, SparseConvTypeError: an argument that no layer can have.
    """
    axes = len(kernel_size)
    if not isinstance(padding, str):
        padding = per_axis("padding", padding, axes, least=0)
    return _made(
        per_axis("kernel_size", kernel_size, axes, least=1),
        per_axis("stride", stride, axes, least=1),
        padding,
        per_axis("dilation", dilation, axes, least=1),
        per_axis("output_padding", output_padding, axes, least=0),
        kind,
    )


@functools.lru_cache(maxsize=256)  # a network asks for the same few at every call
def _made(
    kernel: Ints, strides: Ints, padding: Ints | str, dilations: Ints, extra: Ints, kind: Kind
) -> Geometry:
    """Return the geometry of arguments that have been checked one by one."""
    windows = tuple(d * (k - 1) for d, k in zip(dilations, kernel, strict=True))
    if kind is Kind.SUBMANIFOLD:
        if any(size % 2 == 0 for size in kernel):
            raise SparseConvValueError(
                f"kernel_size: a submanifold kernel must be odd on every axis, got {kernel}"
            )
        padding = tuple(window // 2 for window in windows)
    if kind is Kind.TRANSPOSED:
        for out_pad, s, d in zip(extra, strides, dilations, strict=True):
            if out_pad >= max(s, d):
                raise SparseConvValueError(
                    f"output_padding: must be smaller than stride or dilation, got {extra} "
                    f"with stride {strides} and dilation {dilations}"
                )
    start, end = _paddings(padding, windows, strides)
    return Geometry(kernel, strides, start, end, dilations, extra, kind)


def _paddings(padding: Ints | str, windows: Ints, strides: Ints) -> tuple[Ints, Ints]:
    """Return the padding at the low and at the high end of each axis."""
    if not isinstance(padding, str):
        return padding, padding
    if padding == "valid":
        return (0,) * len(windows), (0,) * len(windows)
    if padding != "same":
        raise SparseConvValueError(f"padding: must be numbers, 'same' or 'valid', got {padding!r}")
    if any(stride != 1 for stride in strides):
        raise SparseConvValueError(f"padding: 'same' needs stride 1, got stride {strides}")
    start = tuple(window // 2 for window in windows)
    return start, tuple(window - low for window, low in zip(windows, start, strict=True))


_KINDS = list(Kind)


def encoded(geometry: Geometry) -> list[int]:
    """Return a geometry as the integers that an operator of a graph takes."""
    return [_KINDS.index(geometry.kind), *itertools.chain(*geometry.numbers)]


def decoded(numbers: Sequence[int]) -> Geometry:
    """Return the geometry that :func:`encoded` gave as ``numbers``."""
    axes = (len(numbers) - 1) // 6
    rows = (tuple(numbers[1 + row * axes : 1 + (row + 1) * axes]) for row in range(6))
    kernel, stride, padding, padding_end, dilation, output_padding = rows
    kind = _KINDS[numbers[0]]
    return Geometry(kernel, stride, padding, padding_end, dilation, output_padding, kind)
