"""What follows a product - factor, bias, sum, ReLU - as the kernels take it.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from sparseconv.core.dtypes import Array
from sparseconv.engines.numba.machine.arrays import array, padded
from sparseconv.engines.numba.machine.bits import bits_or_numbers
from sparseconv.engines.protocol import Epilogue


class EpilogueArrays(NamedTuple):
    """The epilogue of a product, as kernels take it.

    Attributes:
        factor: ``[n_out]``, what the sums are multiplied by; without rows for nothing.
        bias: ``[G, columns]``, added to them.
        other: ``[n_out, G, c_out]``, added at the end; without rows for nothing.
        relu: whether negative results become 0.
    """

    factor: Array
    bias: Array
    other: Array
    relu: bool


def epilogue_arrays(
    epilogue: Epilogue, shape: tuple[int, int], columns: int, dtype: torch.dtype
) -> EpilogueArrays:
    """Return the epilogue of a result in ``dtype``: float32, float64, or bfloat16 as bits.

    Args:
        epilogue: what follows.
        shape: groups and output channels of each.
        columns: of a group in the kernel's result.
        dtype: of that result.
    """
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    nothing = _nothing(shape, columns, dtype)
    factor, bias, other, relu = epilogue.factor, epilogue.bias, epilogue.other, epilogue.relu
    return EpilogueArrays(
        nothing.factor if factor is None else array(factor[:, 0].to(wide)),
        nothing.bias
        if bias is None
        else array(padded(bias.detach().to(wide).reshape(shape), columns)),
        nothing.other if other is None else bits_or_numbers(other).reshape(-1, *shape),
        relu,
    )


@functools.lru_cache(maxsize=64)
def _nothing(shape: tuple[int, int], columns: int, dtype: torch.dtype) -> EpilogueArrays:
    """Return an epilogue that changes nothing; nobody writes to its arrays."""
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    return EpilogueArrays(
        array(torch.empty(0, dtype=wide)),
        array(torch.zeros(shape[0], columns, dtype=wide)),
        bits_or_numbers(torch.empty(0, *shape, dtype=dtype)),
        False,
    )
