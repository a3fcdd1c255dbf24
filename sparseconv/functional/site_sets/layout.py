"""Functions that move values without changing them: pad, shuffle channels into space."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch.nn import functional as F

from sparseconv.autograd.segments import gather_rows, group_rows, place_rows
from sparseconv.core.arguments import check_int, plain
from sparseconv.core.dispatch import implements
from sparseconv.core.grid import change
from sparseconv.core.index import Groups
from sparseconv.errors import (
    SparseConvNotImplementedError,
    SparseConvTypeError,
    SparseConvValueError,
)
from sparseconv.functional.site_sets.axes import Frame, check_closed, grouped_rows, sites_in
from sparseconv.sites.borders import MODES, Pads, check_pads, with_borders
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@implements(
    F.pad,
    meaning="a larger extent: inactive sites around (mode 'constant', value 0), or sites repeated "
    "as modes 'circular', 'reflect' and 'replicate' do",
    law="dense law; another value would make sites active",
)
def _sparse_pad(
    input: SparseTensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> SparseTensor:
    axes = input.ndim - 2
    if mode not in ("constant", *MODES) or (mode == "constant" and value not in (None, 0)):
        raise SparseConvNotImplementedError(
            f"pad: mode={mode!r} with value={value} would make sites active; pad by zeros, by a "
            f"mode of {MODES}, or use x.dense()"
        )
    if not isinstance(pad, list | tuple) or not all(isinstance(n, int) for n in map(plain, pad)):
        raise SparseConvTypeError(f"pad: must be a sequence of ints, got {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * axes:
        raise SparseConvValueError(
            f"pad: must hold pairs (low, high) for at most {axes} axes, last axis first, got {pad}"
        )
    if any(amount < 0 for amount in pad):
        raise SparseConvValueError(
            f"pad: must not be negative, got {tuple(pad)}; sparseconv.crop cuts an extent"
        )
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    pads = ((0, 0),) * (axes - len(pairs)) + tuple(pairs)
    if mode != "constant":
        return _with_borders(input, pads, mode)
    frame = _padded_frame(input.sites, pads)
    coords = input.coords + input.coords.new_tensor([0, *(low for low, _ in pads)])
    # a copy, as of a dense tensor: writing into the result must not change the input
    return SparseTensor.on_sites(input.features.clone(), sites_in(frame, coords, input.batch_size))


def _padded_frame(sites: Sites, pads: Pads) -> Frame:
    """Return the frame of a padded box; where it is wider, it no longer wraps around."""
    shape = tuple(n + low + high for n, (low, high) in zip(sites.spatial_shape, pads, strict=True))
    steps = [low for low, _ in pads]
    wider = [axis for axis, pad in enumerate(pads) if any(pad)]
    grid = change(sites.grid, lambda own: own.moved(steps).cut(wider))
    return Frame(shape, sites.lower, grid, sites.inferred)


def _with_borders(input: SparseTensor, pads: Pads, mode: str) -> SparseTensor:
    """Return the tensor with sites repeated beyond the ends of its axes."""
    check_closed(input, [axis for axis, pad in enumerate(pads) if any(pad)], "pad")
    check_pads(input.spatial_shape, pads, mode)

    def build(sites: Sites) -> tuple[Sites, Groups]:
        coords, rows = with_borders(sites.shared_coords.long(), sites.spatial_shape, pads, mode)
        padded, order = grouped_rows(coords, _padded_frame(sites, pads), sites.batch_size)
        return padded, group_rows(rows[order], sites.num_sites)

    sites, groups = input.sites.derived(("pad", mode, pads), build)
    return SparseTensor.on_sites(gather_rows(input.features, groups), sites)


@implements(
    F.pixel_shuffle,
    torch.pixel_shuffle,
    meaning="channels (C r^2) of each site become r by r sites of C channels",
    law="every site that an input reaches",
)
def _sparse_pixel_shuffle(input: SparseTensor, upscale_factor: int) -> SparseTensor:
    r = _checked_factor(input, upscale_factor, "upscale_factor")
    if input.channels % (r * r):
        raise SparseConvValueError(
            f"upscale_factor: its square {r * r} must divide the {input.channels} channels"
        )
    corners = torch.cartesian_prod(*[torch.arange(r, device=input.device)] * 2).reshape(-1, 2)
    spatial = input.coords[:, None, 1:] * r + corners
    batch = input.coords[:, None, :1].expand(-1, r * r, -1)
    coords = torch.cat([batch, spatial], dim=2).flatten(0, 1)
    shape = tuple(size * r for size in input.spatial_shape)
    lower = tuple(low * r for low in input.sites.lower)
    grid = change(input.grid, lambda own: own.scaled(Fraction(1, r)))
    sites, groups = grouped_sites(coords, shape, input.batch_size, lower, grid)
    rows = input.features.unflatten(1, (-1, r * r)).transpose(1, 2).flatten(0, 1)
    return SparseTensor.on_sites(rows[groups.order], sites)


@implements(
    F.pixel_unshuffle,
    torch.pixel_unshuffle,
    meaning="r by r sites of C channels become one site of C r^2 channels",
    law="sites as of a convolution; an inactive site counts 0",
)
def _sparse_pixel_unshuffle(input: SparseTensor, downscale_factor: int) -> SparseTensor:
    r = _checked_factor(input, downscale_factor, "downscale_factor")
    if any(size % r for size in input.spatial_shape):
        raise SparseConvValueError(
            f"downscale_factor: {r} must divide the spatial shape {input.spatial_shape}"
        )
    coords = input.sites.shared_coords.long()
    coarse = torch.cat([coords[:, :1], coords[:, 1:].div(r, rounding_mode="floor")], dim=1)
    shape = tuple(size // r for size in input.spatial_shape)
    lower = tuple(low // r for low in input.sites.lower)
    grid = change(input.grid, lambda own: own.scaled(r))
    sites, groups = grouped_sites(coarse, shape, input.batch_size, lower, grid)
    corner = coords[:, 1:] - coarse[:, 1:] * r
    cell = (groups.site_of_row * r + corner[:, 0]) * r + corner[:, 1]
    rows = input.features.new_zeros(sites.num_sites * r * r, input.channels)
    cells = place_rows(input.features, cell, rows).unflatten(0, (-1, r * r))
    return SparseTensor.on_sites(cells.transpose(1, 2).flatten(1), sites)


def _checked_factor(input: SparseTensor, factor: int, name: str) -> int:
    if input.ndim != 4:
        raise SparseConvValueError(
            f"input: pixel shuffling takes 2 spatial axes, got {input.ndim - 2}"
        )
    return check_int(name, factor, least=1)
