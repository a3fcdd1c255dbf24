"""The products of the Numba engine: which kernel multiplies, and by which layout of the weight.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.numba.machine.arrays import array, columns_of, contiguous, padded
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.numba.machine.widths import VECTOR_BYTES
from sparseconv.engines.numba.products.blocks import TileWeight, by_dots
from sparseconv.engines.numba.products.gradient import reduce_bfloat_tiles, reduce_tiles, reduced
from sparseconv.engines.numba.products.groups import Lanes, LaneWeight, reduce_by_lanes
from sparseconv.engines.numba.products.narrow import NarrowWeight
from sparseconv.engines.protocol import Epilogue

# of the channels of a group, or of joined ones, on both sides, in a weight gradient in bfloat16
MIN_PRODUCTS_FOR_DOTS = 512

PackedWeight = TileWeight | NarrowWeight | LaneWeight


def pack_weight(weight: Tensor) -> PackedWeight:
    """Return the weight in the layout of the kernel that multiplies by it fastest."""
    weight = weight.detach()
    packed: PackedWeight = _layout_of(*weight.shape[1:], weight.dtype).of(weight)
    return packed


@functools.lru_cache(maxsize=256)  # one entry a layer's channels, and a layer asks at every call
def _layout_of(groups: int, c_in: int, c_out: int, dtype: torch.dtype) -> Any:
    """Return the class of the fastest layout."""
    one_cell = torch.zeros(1, groups, c_in, c_out, dtype=dtype)
    return type(LaneWeight.of(one_cell) or NarrowWeight.of(one_cell) or TileWeight.of(one_cell))


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Pack the weight, and multiply without an epilogue."""
    return pack_weight(weight).product(features, rulebook, Epilogue())


def gather_gemm_epilogue(
    features: Tensor, packed: PackedWeight, rulebook: Rulebook, epilogue: Epilogue
) -> Tensor:
    """Give each tile or row its epilogue while it is in the cache."""
    return packed.product(features, rulebook, epilogue)


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Add partial sums over parts of the tiles, in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    lanes = Lanes.of(groups, c_in, c_out, features.dtype)
    if lanes is not None:
        return reduce_by_lanes(features, grad, rulebook, lanes)
    count = _joinable(groups, c_out)
    if count > 1:  # on the diagonal of what the joined groups have
        joined = gather_gemm_reduce(features, grad, rulebook, groups // count)
        blocks = joined.reshape(-1, groups // count, count, c_in, count, c_out)
        return blocks.diagonal(dim1=2, dim2=4).movedim(-1, 2).flatten(1, 2).contiguous()
    # of few products the rows take longer to lay out for dot products than to convert
    dots = by_dots(features.dtype) and c_in * c_out > MIN_PRODUCTS_FOR_DOTS
    layout = bits_or_numbers if dots else array
    x = layout(features).reshape(rulebook.n_in, groups, c_in)
    dtype = np.dtype(np.float32) if dots else x.dtype
    columns, block = columns_of(c_out, dtype)
    g = layout(padded(grad.detach().reshape(rulebook.n_out, groups, c_out), columns))
    shape = (groups, columns // block, c_in, block)
    sums = reduced(reduce_bfloat_tiles if dots else reduce_tiles, x, g, rulebook, shape, dtype)
    rows = contiguous(sums.transpose(0, 1, 3, 2, 4)).reshape(-1, groups, c_in, columns)
    return torch.from_numpy(rows[..., :c_out]).to(features.dtype).contiguous()


def _joinable(groups: int, c_out: int) -> int:
    """Return how many groups side by side are taken for one in the weight gradient.

    A narrow group would fill its vector with zeros; so its neighbours' channels fill it instead.
    What one group's rows and another's gradients make is dropped. (A product may not do so: in it
    a zero of the weight would meet the other group's values, which need not be finite.)
    """
    fitting = [
        n for n in range(1, groups + 1) if groups % n == 0 and n * c_out <= VECTOR_BYTES // 4
    ]
    return max(fitting, default=1)
