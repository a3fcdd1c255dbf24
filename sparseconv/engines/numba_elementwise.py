"""Elementwise functions of the Numba engine, on the threads that its products run on.

PyTorch's own threads keep spinning for some milliseconds after each of its functions, and the next
product would share the processor with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines.numba_arrays import LEAST_VALUES, by_shares, contiguous
from sparseconv.engines.numba_bits import bits_or_numbers, number, stored
from sparseconv.engines.numba_compile import Kernel
from sparseconv.memory import empty

Array = np.ndarray[Any, Any]


# a loop from 0 over a slice becomes vector instructions: its index is never negative


@Kernel
def _add(left: Array, right: Array, first: int, last: int, out: Array) -> None:
    x, y, z = left[first:last], right[first:last], out[first:last]
    for place in range(len(z)):
        z[place] = stored(number(x[place]) + number(y[place]), out)


@Kernel
def _relu(values: Array, first: int, last: int, out: Array) -> None:
    x, z = values[first:last], out[first:last]
    for place in range(len(z)):
        value = x[place]
        # a NaN stays one, as in torch
        z[place] = out.dtype.type(0) if number(value) < 0 else value


@Kernel
def _relu_gradient(grad: Array, result: Array, first: int, last: int, out: Array) -> None:
    x, y, z = grad[first:last], result[first:last], out[first:last]
    for place in range(len(z)):
        value, held = x[place], y[place]
        # a NaN hands its gradient on, as in torch
        z[place] = out.dtype.type(0) if number(held) <= 0 else value


@Kernel
def _copy_columns(
    source: Array, begin: int, target: Array, target_begin: int, width: int, first: int, last: int
) -> None:
    for row in range(first, last):
        x = source[row, begin : begin + width]
        y = target[row, target_begin : target_begin + width]
        for column in range(width):
            y[column] = x[column]


def add(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left + right``."""
    return _each(_add, left, right)


def relu(values: Tensor) -> Tensor:
    """Return ``max(values, 0)``."""
    return _each(_relu, values)


def relu_gradient(grad: Tensor, result: Tensor) -> Tensor:
    """Return ``grad`` where ``result`` is above 0."""
    return _each(_relu_gradient, grad, result)


def join(columns: Sequence[Tensor]) -> Tensor:
    """Return matrices side by side."""
    out = empty((columns[0].shape[0], sum(x.shape[1] for x in columns)), columns[0].dtype)
    target, begin = _array(out), 0
    for entry in columns:
        _copy(_array(entry), 0, target, begin, entry.shape[1])
        begin += entry.shape[1]
    return out


def part(rows: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the columns of a matrix in runs of ``widths``, each in its own memory."""
    found, source, begin = [], _array(rows), 0
    for width in widths:
        found.append(empty((rows.shape[0], width), rows.dtype))
        _copy(source, begin, _array(found[-1]), 0, width)
        begin += width
    return tuple(found)


def _each(kernel: Kernel, *operands: Tensor) -> Tensor:
    arrays = [bits_or_numbers(entry).reshape(-1) for entry in operands]
    half = operands[0].dtype == torch.float16  # computes in float32
    out = empty(tuple(operands[0].shape), torch.float32 if half else operands[0].dtype)
    target = bits_or_numbers(out).reshape(-1)
    by_shares(len(target), lambda s, e: kernel(*arrays, s, e, target), LEAST_VALUES)
    return out.half() if half else out


def _array(x: Tensor) -> Array:
    """Return the contiguous array of numbers that are not computed with."""
    x = x.detach()
    return contiguous((x.view(torch.int16) if x.itemsize == 2 else x).numpy())


def _copy(source: Array, begin: int, target: Array, target_begin: int, width: int) -> None:
    least = max(1, LEAST_VALUES // max(width, 1))
    by_shares(
        len(source),
        lambda s, e: _copy_columns(source, begin, target, target_begin, width, s, e),
        least,
    )
