"""What the host side of the Numba engine shares: arrays to compute in, tasks over rows.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import HALVES, Array, wider
from sparseconv.engines.memory import empty, empty_array
from sparseconv.engines.numba.machine.compile import ParallelKernel
from sparseconv.engines.numba.machine.vectors import VECTOR_BYTES

_in_group: Callable[[], bool] = getattr(torch.distributed, "is_initialized", bool)
CHUNK_ROWS = 16384  # sites or segments that one task takes
# What a task takes at least where rows are shared out by the number of threads: to begin on
# another thread and wait for the last takes about ten microseconds.
MIN_ROWS_PER_TASK = 1024  # rows of windows or segments
MIN_VALUES_PER_TASK = 2**16  # values that are copied, added, scaled
TASKS_PER_THREAD = 8  # tasks of each thread then: fewer would leave some waiting for the last


def by_chunks(loop: ParallelKernel, count: int, *args: Any) -> None:
    """Run a loop over ``count`` rows in chunks of ``CHUNK_ROWS``, in parallel."""
    loop.run(count, CHUNK_ROWS, *args)


def by_shares(loop: ParallelKernel, count: int, least: int, *args: Any) -> None:
    """Run a loop over ``count`` rows or tiles, in parallel, a few tasks a thread.

    A task takes ``least`` at least.
    """
    tasks = max(1, min(count // max(least, 1), TASKS_PER_THREAD * torch.get_num_threads()))
    loop.run(count, max(1, -(-count // tasks)), *args)


def rows_of(values: int, columns: int) -> int:
    """Return how many rows of so many columns hold that many values, rounded up."""
    return -(-values // max(columns, 1))


class Segments(NamedTuple):
    """Segments of rows: segment ``s`` is ``order[starts[s]:starts[s + 1]]``.

    Attributes:
        order: int64 ``[N]``.
        starts: int64 ``[S + 1]``.
    """

    order: Array
    starts: Array


def by_segments(loop: ParallelKernel, segments: Segments, *args: Any) -> None:
    """Run a loop over segments, in parallel.

    A task takes at least as many segments as hold ``MIN_ROWS_PER_TASK`` rows on average.

    Args:
        loop: takes ``args`` behind the ``segments``.
        segments: of rows.
    """
    count = len(segments.starts) - 1
    least = MIN_ROWS_PER_TASK * count // max(len(segments.order), count, 1)
    by_shares(loop, count, least, segments, *args)


def memory_of(x: Tensor) -> Array:
    """Return the numbers of a tensor, without a copy.

    ``numpy()`` takes less time, and forbids for ever that the memory be given back, as training in
    several processes does with parameters (``torch.distributed.fsdp``).
    """
    return _lent(x) if _in_group() else x.numpy()


class _Lender:
    """Memory by NumPy's own protocol, kept as long as an array of it lives."""

    def __init__(self, read_only: Array) -> None:
        """Say that the memory may be written to."""
        self.lent = read_only
        address, _ = read_only.__array_interface__["data"]
        self.__array_interface__ = {**read_only.__array_interface__, "data": (address, False)}


def _lent(x: Tensor) -> Array:
    numbers = np.from_dlpack(x)
    if numbers.flags.writeable:
        return numbers
    return np.asarray(_Lender(numbers))  # NumPy before 2.3 takes it for read-only


def array(x: Tensor) -> Array:
    """Return a contiguous array in a dtype to compute in: halves become float32."""
    if x.dtype not in HALVES:  # of nearly all calls
        x = x.detach() if x.requires_grad else x
        # as memory_of, without its call
        numbers: Array = _lent(x) if _in_group() else x.numpy()
        return numbers if numbers.flags.c_contiguous else contiguous(numbers)
    return contiguous(memory_of(converted(x, wider(x.dtype))))


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` in a dtype, outside autograd; a copy lies in memory that was used before."""
    x = x.detach()
    return x if x.dtype == dtype else empty(tuple(x.shape), dtype).copy_(x)


def computed_in(dtype: torch.dtype) -> np.dtype[Any]:
    """Return NumPy's dtype of the numbers that :func:`array` gives."""
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


def contiguous(x: Array) -> Array:
    """Return the array, or a contiguous copy."""
    if x.flags.c_contiguous or x.size < MIN_VALUES_PER_TASK:
        return np.ascontiguousarray(x)
    out = empty_array(x.shape, x.dtype)
    _copy(x, out)
    return out


def copy(source: Tensor, target: Tensor) -> None:
    """Write ``source`` to ``target``, of one shape and dtype."""
    _copy(_bits(source), _bits(target))


def _copy(source: Array, target: Array) -> None:
    """Copy on all threads, which NumPy does not."""
    torch.from_numpy(target).copy_(torch.from_numpy(source))


def ranges(count: int, parts: int) -> Array:
    """Return ``[parts, 2]``: ``count`` split into ranges of about equal length."""
    ends = np.arange(parts + 1) * count // parts
    return np.stack([ends[:-1], ends[1:]], axis=1)


def columns_of(c_out: int, dtype: Any) -> tuple[int, int]:
    """Return ``c_out`` rounded up to whole vectors, and the columns of a block: one or two."""
    lanes = VECTOR_BYTES // dtype.itemsize
    columns = -(-c_out // lanes) * lanes
    return columns, lanes if columns % (2 * lanes) else 2 * lanes


def without_padding(x: Tensor, columns: int) -> Tensor:
    """Return the first ``columns`` of the last axis, in memory of their own.

    A result must not be a view: autograd lets no function change a view in place that one of its
    rules returned. So ``x`` is none either.
    """
    if x.shape[-1] == columns:
        return x
    out = empty((*x.shape[:-1], columns), x.dtype)
    copy(x[..., :columns], out)
    return out


def padded(x: Tensor, columns: int) -> Tensor:
    """Return ``x`` with zeros behind its last axis, up to ``columns``; no copy where it fits."""
    x = x.detach()
    if x.shape[-1] == columns:
        return x
    out = empty((*x.shape[:-1], columns), x.dtype)
    copy(x, out[..., : x.shape[-1]])
    _bits(out)[..., x.shape[-1] :] = 0
    return out


def _bits(x: Tensor) -> Array:
    """Return the numbers of a tensor, or of halves the bits, which are only copied."""
    return memory_of(x.view(torch.int16) if x.itemsize == 2 else x)
