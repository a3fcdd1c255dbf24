"""Compile the CPU engine's kernels ahead, so that the first call of later processes is quick."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sparseconv import engines
from sparseconv.functional import deform_conv, inverse_conv, subm_conv
from sparseconv.voxelize import voxelize


def warm_up() -> Iterator[str]:
    """Run every kernel of the CPU engine once on a few sites, and yield the name of each step.

    Numba keeps the compiled code on disk, in ``NUMBA_CACHE_DIR`` or beside the package.

    Example:
        >>> import sparseconv as sc
        >>> len(list(sc.tools.warm_up()))
        10
    """
    with engines.engine("numba"):
        for dtype in (torch.float32, torch.float64):
            yield from (f"{step} {dtype}" for step in _steps(dtype))


def _steps(dtype: torch.dtype) -> Iterator[str]:
    xyz = torch.tensor([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    features = torch.ones(4, 2, dtype=dtype, requires_grad=True)
    for reduce in ("mean", "max"):
        x, _ = voxelize(xyz, 1.0, features, reduce=reduce)
    yield "voxelize"
    x.at(x.coords)
    yield "look-up"
    # 2 and 32 columns: blocks of one vector and of two
    strided = torch.nn.Conv3d(2, 32, 2, stride=2, dtype=dtype)
    down = strided(x)
    up = inverse_conv(down, strided.weight, stride=2)
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
