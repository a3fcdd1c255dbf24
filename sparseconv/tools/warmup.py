"""Compile the CPU engine's kernels ahead, so that the first call of later processes is quick."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from sparseconv import engines
from sparseconv.functional import deform_conv, inverse_conv, subm_conv, subm_partial_conv
from sparseconv.points.voxels import voxelize
from sparseconv.tensor import SparseTensor

SIDE, CHANNELS = 24, 32  # of the network's grid: small tensors would run other kernels


def warm_up() -> Iterator[str]:
    """Run every kernel of the CPU engine once, and yield the name of each step.

    In float32 and float64, and what a network needs in bfloat16. Numba keeps the compiled code on
    disk, in ``NUMBA_CACHE_DIR`` or beside the package.

    Example:
        >>> import sparseconv as sc
        >>> len(list(sc.tools.warm_up()))
        13
    """
    with engines.engine("numba"):
        for dtype in (torch.float32, torch.float64):
            yield from (f"{step} {dtype}" for step in _steps(dtype))
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            _network(dtype)
            yield f"network and its gradients {dtype}"


def _steps(dtype: torch.dtype) -> Iterator[str]:
    xyz = torch.tensor([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    features = torch.ones(4, 2, dtype=dtype, requires_grad=True)
    for reduce in ("mean", "max"):
        x, _ = voxelize(xyz, 1.0, features, reduce=reduce)
    yield "voxelize"
    x.at(x.coords)
    yield "look-up"
    # 2 and 32 columns: blocks of one vector and of two
    strided = nn.Conv3d(2, 32, 2, stride=2, dtype=dtype)
    down = strided(x)
    up = inverse_conv(down, strided.weight, stride=2)
    inverse_conv(down, torch.ones(32, 32, 2, 2, 2, dtype=dtype), stride=2)
    yield "strided and inverse convolution"
    y = subm_conv(up, torch.ones(2, 2, 3, 3, 3, dtype=dtype, requires_grad=True))
    y.features.sum().backward()
    yield "submanifold convolution and gradients"
    # 2 and 32 input channels: blocks of one vector and of two, in the gradient too
    for channels in (2, 32):
        t = torch.ones(1, channels, 3, dtype=dtype, requires_grad=True)
        weight = torch.ones(channels, channels, 1, dtype=dtype, requires_grad=True)
        deform_conv(t, torch.zeros(1, 1, 3, dtype=dtype), weight).sum().backward()
    yield "deformable convolution and gradients"


def _network(dtype: torch.dtype) -> None:
    """Run the layers of a network on many sites in no order, forward and backward."""
    sites = torch.cartesian_prod(torch.arange(2), *[torch.arange(SIDE)] * 3).flip(0)
    features = torch.ones(len(sites), 4, dtype=dtype, requires_grad=True)
    x = SparseTensor(features, sites, (SIDE,) * 3)
    first = nn.Conv3d(4, CHANNELS, 3, padding=1, dtype=dtype)
    depthwise = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, dtype=dtype)
    multiplied = nn.Conv3d(4, CHANNELS, 3, padding=1, groups=4, dtype=dtype)
    grouped = nn.Conv3d(4, 6, 3, padding=1, groups=2, dtype=dtype)
    partial = torch.ones(CHANNELS, CHANNELS, 3, 3, 3, dtype=dtype, requires_grad=True)
    norms = nn.Sequential(nn.BatchNorm3d(CHANNELS), nn.InstanceNorm3d(CHANNELS)).to(dtype)
    y = norms(depthwise(first(x)) + multiplied(x)).relu()
    y = y + subm_partial_conv(y, partial, first.bias)
    y = torch.cat([y, y], dim=1)
    largest, mean = nn.functional.max_pool3d(y, 3, 2, 1), nn.functional.avg_pool3d(y, 2)
    (largest.sum() + mean.sum() + grouped(x).sum()).backward()
    with torch.no_grad():
        nn.functional.max_pool3d(norms.eval()(first(x)), 2)
