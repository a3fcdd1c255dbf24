"""How TorchSparse's coordinates become sites, and which sites a layer makes of them.

Sites lie on axes without an end. Their axes lie in the reverse order, so that an odd kernel, whose
first axis is the fastest, is ours as it lies in memory.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from sparseconv.compat.place import Reading
from sparseconv.core.arguments import Ints, check_integers
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.core.handles import next_number
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites

AXES = 3
_REPEATED = "TorchSparse would have taken one of these rows by chance; sparse_quantize leaves one"


def level_of(coords: Tensor, stride: Ints, batch_last: bool) -> Tensor:
    """Return coordinates ``[N, 4]`` as sites have them: batch first, in steps, axes reversed.

    Args:
        coords: integer, the sample in column 0, and spatial columns in steps of the stride; or with
            ``batch_last`` the sample in the last column and the others multiples of the stride.
        stride: one per axis.
        batch_last: which of the two.

    Raises:
        SparseConvError: coordinates of another kind or shape, or no multiples.
    """
    check_integers("coords", coords)
    if coords.ndim != 2 or coords.shape[1] != 1 + AXES:
        raise SparseConvValueError(f"coords: must have shape (N, 4), got {tuple(coords.shape)}")
    if not batch_last:
        return coords[:, [0, 3, 2, 1]]
    steps = coords.new_tensor(stride)
    if bool((coords[:, :AXES] % steps).any()):
        raise SparseConvValueError(f"coords: must be multiples of the stride, {stride}")
    spatial = torch.div(coords[:, :AXES], steps, rounding_mode="floor").flip(1)
    return torch.cat([coords[:, AXES:], spatial], dim=1)


def coords_of(level: Tensor, stride: Ints, batch_last: bool) -> Tensor:
    """Return the coordinates, int32 ``[N, 4]``, of what :func:`level_of` returns."""
    if not batch_last:
        return level[:, [0, 3, 2, 1]].int()
    spatial = level[:, 1:].flip(1) * level.new_tensor(stride)
    return torch.cat([spatial, level[:, :1]], dim=1).int()


def _made(coords: Tensor, stride: Ints, batch_last: bool) -> Sites:
    return sites_from_coords(
        level_of(coords, stride, batch_last), (None,) * AXES, None, remedy=_REPEATED
    )


def _shown(sites: Sites, stride: Ints, batch_last: bool) -> Tensor:
    return coords_of(sites.shared_coords, stride, batch_last)


LEVELS = Reading(_made, _shown)


@functools.lru_cache(maxsize=256)
def window(kernel: Ints, stride: Ints, dilation: Ints) -> Geometry:
    """Return the window of a layer, from its sizes in TorchSparse's order of axes."""
    kernel, stride, dilation = kernel[::-1], stride[::-1], dilation[::-1]
    odd = all(size % 2 for size in kernel)
    if odd and set(stride) == {1}:
        return make_geometry(kernel, dilation=dilation, kind=Kind.SUBMANIFOLD)
    padding = tuple(d * ((k - 1) // 2) for k, d in zip(kernel, dilation, strict=True))
    return make_geometry(
        kernel, stride=stride, padding=padding, dilation=dilation, kind=Kind.STRIDED
    )


@functools.lru_cache(maxsize=256)
def _block(stride: Ints) -> Geometry:
    """Return the cells of a stride as windows."""
    steps = stride[::-1]
    return make_geometry(steps, stride=steps, kind=Kind.STRIDED)


def strided(sites: Sites, stride: Ints) -> Sites:
    """Return the sites of a stride that hold one of ``sites``."""
    return sites.convolve(_block(stride))[0]


def reached(
    sites: Sites, sizes: tuple[Ints, Ints, Ints, Ints], low: Ints | None, high: Ints | None
) -> Sites:
    """Return the sites in a box whose windows hold one of ``sites``.

    Args:
        sites: of the layer's input.
        sizes: kernel size, stride, padding and dilation, per axis.
        low, high: the box, both inside; None for no end.
    """
    kernel, stride, padding, dilation = (entries[::-1] for entries in sizes)
    geometry = make_geometry(kernel, stride=stride, padding=padding, dilation=dilation)
    return _kept(sites, geometry, low, high)


def spread(sites: Sites, kernel: Ints, stride: Ints, high: Ints | None) -> Sites:
    """Return the sites that generative layers make, below ``high`` and not below 0."""
    size = kernel[::-1]
    padding = tuple((k - 1) // 2 for k in size)
    geometry = make_geometry(size, stride=stride[::-1], padding=padding, kind=Kind.TRANSPOSED)
    return _kept(sites, geometry, (0,) * AXES, high)


def _kept(sites: Sites, geometry: Geometry, low: Ints | None, high: Ints | None) -> Sites:
    """Return what a layer reaches of a box, made once for these sites."""

    def make(sites: Sites) -> Sites:
        record = sites.record.reached(geometry, sites.record.shape_under(geometry))
        coords = record.coords
        kept = torch.ones(len(coords), dtype=torch.bool, device=coords.device)
        for axis in range(AXES):
            column = coords[:, AXES - axis]
            if low is not None:
                kept &= column >= low[axis]
            if high is not None:
                kept &= column <= high[axis]
        if bool(kept.all()):
            return Sites(record)
        return sites_from_coords(coords[kept], (None,) * AXES, sites.batch_size)

    return sites.derived(("torchsparse", geometry, geometry.kind, low, high), make)


def multiples(sites: Sites, stride: Ints) -> Sites:
    """Return the same sites in the steps of a finer level, ``stride`` times as far apart."""

    def make(sites: Sites) -> Sites:
        coords = sites.coords
        coords[:, 1:] *= coords.new_tensor(stride[::-1])
        return sites_from_coords(coords, (None,) * AXES, sites.batch_size)

    return sites.derived(("torchsparse", "multiples", stride), make)


def weight_cells(weight: Tensor, kernel: Ints) -> Tensor:
    """Return a kernel ``[K, C_in, C_out]`` as products take it, ``[K, 1, C_in, C_out]``."""
    if weight.ndim == 2:
        weight = weight[None]
    if math.prod(kernel) % 2 == 0:  # its last axis is the fastest, and ours the first one of these
        cells = weight.reshape(*kernel, *weight.shape[1:])
        weight = cells.permute(2, 1, 0, 3, 4).flatten(0, 2)
    return weight[:, None]


def grown(sites: Sites, batch_size: int) -> Sites:
    """Return the same sites of a larger batch."""
    if sites.batch_size == batch_size:
        return sites

    def make(sites: Sites) -> Sites:
        return Sites(replace(sites.record, batch_size=batch_size, parents=(), number=next_number()))

    return sites.derived(("torchsparse", "batch", batch_size), make)


def same_batch(first: Sites, other: Sites) -> tuple[Sites, Sites]:
    """Return two sets with as many samples, the larger number of both."""
    most = max(first.batch_size, other.batch_size)
    return grown(first, most), grown(other, most)
