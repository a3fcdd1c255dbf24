"""Coordinates of the next stride, of a finer one, and of a part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.torchsparse import level
from sparseconv.compat.torchsparse.functional.config import check_mode
from sparseconv.compat.torchsparse.level import AXES
from sparseconv.compat.torchsparse.sizes import make_ntuple
from sparseconv.compat.torchsparse.tensor import SparseTensor, get_allow_negative_coordinates
from sparseconv.core.arguments import Ints, check_kind
from sparseconv.sites.sites import Sites


def next_sites(
    input: SparseTensor, sites: Sites, sizes: tuple[Ints, ...], mode: str, extent: Any
) -> Sites:
    """Return the sites of a strided layer's output.

    Args:
        input: the layer's, whose class tells the version.
        sites: its sites.
        sizes: kernel size, stride, padding and dilation, per axis.
        mode: ``"minkowski"`` or ``"spconv"``.
        extent: the dense shape of the output, None where it is not known.
    """
    kernel, stride, _, dilation = sizes
    fits = all(s in (1, k) for k, s in zip(kernel, stride, strict=True))
    if fits or (mode == "minkowski" and not input.BATCH_LAST):
        return level.strided(sites, stride)
    coords = sites.shared_coords[:, 1:].flip(1)
    if len(coords) == 0:
        return level.strided(sites, stride)
    if input.BATCH_LAST:  # version 1.4: centred windows, that begin behind the first input
        padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
        low = tuple(-(-n // s) for n, s in zip(coords.amin(0).tolist(), stride, strict=True))
        return level.reached(sites, (kernel, stride, padding, dilation), low, None)
    low, high = _box(coords, sizes, extent)
    return level.reached(sites, sizes, low, high)  # type: ignore[arg-type]


def _box(coords: Tensor, sizes: tuple[Ints, ...], extent: Any) -> tuple[Ints, Ints]:
    """Return the box of the outputs of a layer that pads as spconv's do."""
    kernel, stride, padding, dilation = sizes
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    low = (0,) * AXES
    if get_allow_negative_coordinates():
        both = zip(coords.amin(0).tolist(), padding, reach, stride, strict=True)
        low = tuple(int((n - 2 * p + r) / s) for n, p, r, s in both)
    if extent is not None:
        return low, tuple(size - 1 for size in extent[1:])
    both = zip(coords.amax(0).tolist(), padding, reach, stride, strict=True)
    return low, tuple((n + 2 * p - r) // s for n, p, r, s in both)


def spdownsample(
    coords: Tensor,
    stride: Any = 2,
    kernel_size: Any = 2,
    padding: Any = 0,
    spatial_range: Any = None,
    downsample_mode: str = "spconv",
) -> Tensor:
    """Return the coordinates of a strided layer's output, int32 ``[M, 4]``, ascending.

    Args:
        coords: integer ``[N, 4]``, the sample first.
        stride, kernel_size, padding: int or one per axis.
        spatial_range: the dense shape of the output, where it is known.
        downsample_mode: as of :func:`conv3d`.
    """
    check_mode(downsample_mode)
    kernel, steps, pads = (make_ntuple(n, AXES) for n in (kernel_size, stride, padding))
    x = SparseTensor(coords[:, :0], coords)
    sizes = (kernel, steps, pads, (1,) * AXES)
    return _ascending(next_sites(x, x.sites, sizes, downsample_mode, spatial_range))


def spupsample_generative(
    coords: Tensor,
    stride: Any = 2,
    kernel_size: Any = 2,
    padding: Any = 0,
    spatial_range: Any = None,
) -> Tensor:
    """Return the coordinates of a generative layer's output, int32 ``[M, 4]``, ascending.

    Args:
        coords: integer ``[N, 4]``, the sample first.
        stride, kernel_size: int or one per axis.
        padding: without effect.
        spatial_range: the dense shape of the output.
    """
    sites = SparseTensor(coords[:, :0], coords).sites
    kernel, steps = make_ntuple(kernel_size, AXES), make_ntuple(stride, AXES)
    high = None if spatial_range is None else tuple(int(n) - 1 for n in spatial_range[1:])
    return _ascending(level.spread(sites, kernel, steps, high))


def _ascending(sites: Sites) -> Tensor:
    """Return the coordinates of sites, the sample first, in ascending order."""
    coords = level.coords_of(sites.shared_coords, (1,) * AXES, False)
    ascending: Tensor = torch.unique(coords, dim=0)
    return ascending


def spcrop(input: SparseTensor, coords_min: Any = None, coords_max: Any = None) -> SparseTensor:
    """Return the rows in a box: ``coords_min <= coordinate < coords_max``; None for no end."""
    check_kind("input", input, SparseTensor, "a SparseTensor")
    spatial = input.coords[:, :AXES] if input.BATCH_LAST else input.coords[:, 1:]
    kept = torch.ones(len(spatial), dtype=torch.bool, device=spatial.device)
    if coords_min is not None:
        kept &= (spatial >= spatial.new_tensor(coords_min)).all(dim=1)
    if coords_max is not None:
        kept &= (spatial < spatial.new_tensor(coords_max)).all(dim=1)
    return type(input)(input.feats[kept], input.coords[kept], input.stride)


__all__ = ["spcrop", "spdownsample", "spupsample_generative"]
