"""What the partial operators share: masks, how much of a window is valid, the factor for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.autograd.windows import window_sum
from sparseconv.core.arguments import as_bools, check_device
from sparseconv.core.dtypes import wider
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.convolution.dense import dense_conv, dense_conv_transpose
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

NORMALIZATIONS = ("ratio", "mean")


class Coverage(NamedTuple):
    """What a mask leaves of each window; both broadcast against the output.

    Attributes:
        factor: what the sum over the valid values is multiplied with; 0 where there is none.
        reached: bool, where the window holds a valid value.
    """

    factor: Tensor
    reached: Tensor


def check_normalize(normalize: str) -> None:
    """Raise unless ``normalize`` is one of :data:`NORMALIZATIONS`."""
    if normalize not in NORMALIZATIONS:
        raise SparseConvValueError(f"normalize: must be one of {NORMALIZATIONS}, got {normalize!r}")


def dense_mask(mask: Any, input: Tensor) -> Tensor:
    """Return a checked mask as bool ``[B, 1 or C, *spatial]``; all valid where it is None.

    One of a batch of 1 is that of every sample.
    """
    batch, channels, *spatial = input.shape
    if mask is None:
        return torch.ones(1, 1, *spatial, dtype=torch.bool, device=input.device)
    shapes = [(batch, 1, *spatial), (batch, channels, *spatial), (batch, *spatial)]
    # one mask for every sample, as a dense operand would broadcast
    mask = _checked(mask, [*shapes, *((1, *shape[1:]) for shape in shapes)], input)
    mask = mask if mask.ndim == input.ndim else mask.unsqueeze(1)
    shared: Tensor = mask.expand(batch, -1, *spatial)
    return shared


def row_mask(mask: Any, input: SparseTensor) -> Tensor | None:
    """Return None, or a checked mask as bool ``[N, 1]`` or ``[N, C]``, a row per active site."""
    if mask is None:
        return None
    return _checked(mask, [(input.num_sites, 1), (input.num_sites, input.channels)], input)


def _checked(mask: Any, allowed: Sequence[tuple[int, ...]], input: Tensor | SparseTensor) -> Tensor:
    bools = as_bools("mask", mask)
    if tuple(mask.shape) not in allowed:
        shapes = " or ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise SparseConvValueError(f"mask: must have shape {shapes}, got {tuple(mask.shape)}")
    check_device("mask", bools, input.device)
    return bools


def hidden(values: Tensor, mask: Tensor, fill: float = 0.0) -> Tensor:
    """Return ``values``, ``fill`` where the mask is 0: no NaN passes there, and no gradient."""
    return torch.where(mask, values, fill)


def out_mask(reached: Tensor, mask: Tensor, channels: int) -> Tensor:
    """Return the output's mask in the kind of the input's: shared, or one per channel."""
    if mask.shape[1] == 1:
        return reached
    return reached.expand(-1, channels, *reached.shape[2:])


def dense_coverage(
    mask: Tensor, geometry: Geometry, groups: int, normalize: str, dtype: torch.dtype
) -> Coverage:
    """Return what ``mask`` ``[B, 1 or C, *spatial]`` leaves of a dense convolution's windows."""
    values, most = per_group(mask, groups, dtype)
    counted = values.shape[1]
    ones = values.new_ones(counted, 1, *geometry.kernel_size)
    with torch.autocast(values.device.type, enabled=False):  # counts are not for half precision
        if geometry.kind is not Kind.TRANSPOSED:
            count = dense_conv(values, ones, None, geometry, counted)
            return coverage(count, most, geometry.num_cells, normalize)
        size = geometry.output_shape(tuple(mask.shape[2:]))
        count = dense_conv_transpose(values, ones, None, geometry, counted, size)
    return coverage(count, most, dense_windows(geometry, size, count), normalize)


def row_coverage(
    mask: Tensor,
    sites: Sites,
    rulebook: Rulebook,
    geometry: Geometry,
    groups: int,
    normalize: str,
    dtype: torch.dtype,
) -> Coverage:
    """Return what ``mask`` ``[N, 1 or C]`` leaves of the windows of the output rows."""
    values, most = per_group(mask, groups, dtype)
    count = window_sum(values, rulebook)
    return coverage(count, most, _row_windows(geometry, sites), normalize)


def row_factor(
    sites: Sites, rulebook: Rulebook, geometry: Geometry, normalize: str, dtype: torch.dtype
) -> Tensor:
    """Return the factor ``[n_out, 1]`` of each output site where every input row is valid.

    The count is then the number of the site's pairs: it belongs to the rulebook, and stays there.
    """
    dtype = wider(dtype)

    def build(rulebook: Rulebook) -> Tensor:
        count = rulebook.pairs_of_output[:, None].to(dtype)
        return coverage(count, 1, _row_windows(geometry, sites), normalize).factor

    factor: Tensor = rulebook.derived(f"partial {normalize} {dtype}", build)
    return factor


def per_group(mask: Tensor, groups: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return the valid channels of each group, ``[.., 1 or G, ..]``, and the most there can be.

    A mask that all channels share counts as one channel, whatever their number.
    """
    dtype = wider(dtype)
    if mask.shape[1] == 1:
        return mask.to(dtype), 1
    split = mask.unflatten(1, (groups, -1))
    return split.sum(dim=2, dtype=dtype), split.shape[2]


def coverage(count: Tensor, most: int, window: Tensor | int, normalize: str) -> Coverage:
    """Return the factor, and where it is not 0.

    Args:
        count: valid values in each window, ``[.., 1 or G, ..]``.
        most: values per kernel cell.
        window: kernel cells of a whole window.
        normalize: ``"ratio"``: most * window / count; ``"mean"``: most / count.
    """
    reached = count > 0
    whole = most * window if normalize == "ratio" else most
    return Coverage(torch.where(reached, whole / count, 0.0), reached)


def per_channel(left: Coverage, channels: int) -> Coverage:
    """Return the coverage with its groups (axis 1) repeated to the output's channels."""
    groups = left.factor.shape[1]
    if groups == 1:
        return left
    factor, reached = (part.repeat_interleave(channels // groups, dim=1) for part in left)
    return Coverage(factor, reached)


def normalised(total: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``total * factor + bias`` in the dtype of ``total``; half precision rounds once.

    Args:
        total: ``[.., C_out, *rest]``.
        factor: broadcasts against it.
        bias: ``[C_out]`` or None.
    """
    if bias is None:
        return (total * factor).to(total.dtype)
    shape = (-1, *(1,) * (total.ndim - 2))
    return torch.addcmul(bias.reshape(shape), total, factor).to(total.dtype)


def dense_windows(geometry: Geometry, spatial: Sequence[int], like: Tensor) -> Tensor:
    """Return the kernel cells that reach each place ``[*spatial]`` of a transposed convolution."""
    sizes = like.new_ones(())
    for axis, table in enumerate(_phases(geometry)):
        place = torch.arange(spatial[axis], device=like.device) + geometry.padding[axis]
        sizes = sizes[..., None] * like.new_tensor(table)[place % geometry.stride[axis]]
    return sizes


def _row_windows(geometry: Geometry, sites: Sites) -> Tensor | int:
    """Return the kernel cells of a whole window: one number, or ``[N, 1]``."""
    if geometry.kind is not Kind.TRANSPOSED:
        return geometry.num_cells
    coords = sites.shared_coords
    sizes = coords.new_ones(coords.shape[0])
    for axis, table in enumerate(_phases(geometry)):
        place = (coords[:, 1 + axis].long() + geometry.padding[axis]) % geometry.stride[axis]
        sizes = sizes * coords.new_tensor(table)[place]
    return sizes[:, None]


def _phases(geometry: Geometry) -> list[list[int]]:
    """Return, per axis, how many kernel cells reach a place at each distance from a stride."""
    return [
        [sum((place - dilation * k) % stride == 0 for k in range(size)) for place in range(stride)]
        for size, stride, dilation in zip(
            geometry.kernel_size, geometry.stride, geometry.dilation, strict=True
        )
    ]
