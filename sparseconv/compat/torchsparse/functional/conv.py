"""The convolution of TorchSparse 2.x: submanifold, strided, transposed, generative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.torchsparse import level
from sparseconv.compat.torchsparse.functional.config import mode_of
from sparseconv.compat.torchsparse.functional.levels import next_sites
from sparseconv.compat.torchsparse.level import AXES, LEVELS
from sparseconv.compat.torchsparse.sizes import make_ntuple
from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.core.arguments import Ints, check_kind, check_tensor
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.convolution.products import product

_ONES = (1,) * AXES


def conv3d(
    input: SparseTensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    config: Any = None,
    transposed: bool = False,
    generative: bool = False,
    training: bool = False,
) -> SparseTensor:
    """Return the convolution of ``input``.

    Cell ``(k - 1) // 2`` of the kernel lies on the site. With a stride the sites are those of the
    stride that hold an input, where the kernel is as wide as the stride, or where ``config`` says
    ``downsample_mode="minkowski"``; else all whose windows, moved by ``padding``, hold one.

    Args:
        input: ``[N, C_in]``.
        weight: ``[K, C_in, C_out]``, the first axis of its cells fastest where K is odd, else the
            last; ``[C_in, C_out]`` for one cell.
        kernel_size, stride, padding, dilation: int or one per axis.
        bias: ``[C_out]`` or None.
        config: choices; those for all layers where left out.
        transposed: back to the coordinates that the layer of this stride read.
        generative: to every site around an input, which are new.
        training: without effect.

    Raises:
        SparseConvError: what does not fit; no coordinates to go back to.
    """
    sizes = tuple(make_ntuple(n, AXES) for n in (kernel_size, stride, padding, dilation))
    out = ("generative" if generative else "transposed") if transposed else ""
    return convolved(input, weight, bias, sizes, out, mode_of(config))


def convolved(
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    sizes: tuple[Ints, ...],
    direction: str,
    mode: str,
) -> SparseTensor:
    """Return the convolution of ``input``.

    Args:
        input: ``[N, C_in]``.
        weight, bias: of the layer.
        sizes: kernel size, stride, padding and dilation, per axis.
        direction: ``"transposed"``, ``"generative"``, or empty for neither.
        mode: which sites a strided layer makes.
    """
    _check(input, weight)
    kernel, stride, _, dilation = sizes
    if kernel == stride == dilation == _ONES:
        rows = torch.nn.functional.linear(input.feats, weight.reshape(weight.shape[-2:]).T, bias)
        return input.with_feats(rows)
    plan = {"transposed": _back, "generative": _generated}.get(direction, _forth)
    rulebook, coords, new_stride, extent = plan(input, sizes, mode)
    rows = product(input.feats, level.weight_cells(weight, kernel), bias, rulebook)
    out = input.moved(rows, coords, new_stride, extent)
    remember(out)
    return out


def remember(x: SparseTensor) -> None:
    """Keep the coordinates of a tensor for transposed layers behind it."""
    known = x.coords if x.BATCH_LAST else (x.coords, x.spatial_range)
    x._caches.cmaps.setdefault(x.stride, known)


Plan = tuple[Rulebook, Tensor, Ints, Any]


def _forth(input: SparseTensor, sizes: tuple[Ints, ...], mode: str) -> Plan:
    """Return pairs, coordinates, stride and extent of a layer that keeps the level or goes up."""
    kernel, stride, _, dilation = sizes
    remember(input)
    sites = input.sites
    geometry = level.window(kernel, stride, dilation)
    new = tuple(own * s for own, s in zip(input.stride, stride, strict=True))
    extent = extent_after(input.spatial_range, sizes)
    if set(stride) == {1}:
        out, coords = sites, input.coords
    else:
        out = next_sites(input, sites, sizes, mode, extent)
        coords = input._caches.keep(LEVELS.of_sites(out, new, input.BATCH_LAST)).indices
    rulebook = sites.convolve(geometry, out)[1]
    input._caches.kmaps[input.stride, kernel, stride, dilation] = rulebook
    return rulebook, coords, new, extent


def _back(input: SparseTensor, sizes: tuple[Ints, ...], mode: str) -> Plan:
    """Return the same of a transposed layer: back to coordinates of the finer stride."""
    kernel, stride, _, dilation = sizes
    fine = _finer(input.stride, stride)
    known = input._caches.cmaps.get(fine)
    if known is None:
        raise SparseConvValueError(
            f"input: no tensor of stride {fine} came before; a transposed layer goes back to the "
            f"coordinates of one"
        )
    coords, extent = (known, None) if input.BATCH_LAST else known
    target = input._caches.keep(LEVELS.of_indices(coords)).sites_on(fine, input.BATCH_LAST)
    source, target = level.same_batch(input.sites, target)
    geometry = level.window(kernel, stride, dilation)
    return source.inverse(geometry, target)[1], coords, fine, extent


def _generated(input: SparseTensor, sizes: tuple[Ints, ...], mode: str) -> Plan:
    """Return the same of a generative layer: every site around an input, within the extent."""
    kernel, stride, _, _ = sizes
    if input.spatial_range is None:
        raise SparseConvValueError("spatial_range: must be known to a generative layer")
    fine = _finer(input.stride, stride)
    high = tuple(size - 1 for size in input.spatial_range[1:])
    out = level.spread(input.sites, kernel, stride, high)
    coords = input._caches.keep(LEVELS.of_sites(out, fine, input.BATCH_LAST)).indices
    source = level.multiples(input.sites, stride)
    rulebook = source.convolve(level.window(kernel, _ONES, _ONES), out)[1]
    extent = extent_after(input.spatial_range, sizes)
    input._caches.cmaps[fine] = (coords, extent)
    input._caches.kmaps = {}
    return rulebook, coords, fine, extent


def extent_after(spatial_range: Any, sizes: tuple[Ints, ...]) -> Any:
    """Return the dense shape behind a layer, ``floor((L + 2p - k) / s) + 1``; None for None."""
    if spatial_range is None:
        return None
    kernel, stride, padding, _ = sizes
    both = zip(spatial_range[1:], kernel, stride, padding, strict=True)
    return (spatial_range[0], *((n + 2 * p - k) // s + 1 for n, k, s, p in both))


def _finer(own: Ints, stride: Ints) -> Ints:
    if any(a % b for a, b in zip(own, stride, strict=True)):
        raise SparseConvValueError(f"stride: must divide that of the input, {own}, got {stride}")
    return tuple(a // b for a, b in zip(own, stride, strict=True))


def _check(input: Any, weight: Any) -> None:
    check_kind("input", input, SparseTensor, "a SparseTensor")
    check_tensor("weight", weight)
    if weight.ndim not in (2, 3) or weight.shape[-2] != input.feats.shape[1]:
        raise SparseConvValueError(
            f"input: has {input.feats.shape[1]} channels, the weight {tuple(weight.shape)} takes "
            f"{weight.shape[-2]}"
        )


__all__ = ["conv3d"]
