"""Memory for large results on the CPU.

A fresh allocation of many megabytes comes from the system in pages that are touched for the first
time, which takes several times as long as writing to them: more than most layers without a matrix
product. So a block that a result leaves goes to the next one of about its size, as PyTorch does on
a GPU; what waits here is bounded. NumPy asks for huge pages, and PyTorch takes its memory.
"""

from __future__ import annotations

import os
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST_BYTES = 2**22  # below, the C library hands out memory that has been touched before
ALIGNMENT = 64  # a vector of AVX-512, and a cache line
MOST_WAITING = 2**29  # bytes
SLACK = 8  # a block serves results that are smaller by one part in so many

_Bytes = npt.NDArray[np.uint8]
_waiting: list[_Bytes] = []  # the oldest first
_taking = Lock()  # for whoever takes a block out; one that comes back is appended at any time
if hasattr(os, "register_at_fork"):  # a child must not begin with a lock that nobody will open
    os.register_at_fork(
        before=_taking.acquire, after_in_parent=_taking.release, after_in_child=_taking.release
    )


class _Block:
    """Memory that is kept for the next result once the last tensor on it is gone."""

    def __init__(self, memory: _Bytes) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        _waiting.append(self.memory)
        # may run on any thread and in the midst of anything, so it waits for no lock; whoever
        # holds it frees what is too much
        if _taking.acquire(blocking=False):
            _free_oldest(_waiting_bytes() - MOST_WAITING)
            _taking.release()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a contiguous CPU tensor of unset numbers, which is no view of another."""
    count = 1
    for size in shape:
        count *= size
    size = count * dtype.itemsize
    if size < LEAST_BYTES:
        return torch.empty(shape, dtype=dtype)
    block = np.asarray(_Block(_taken(size)))
    offset = -block.ctypes.data % ALIGNMENT
    storage = torch.from_numpy(block[offset : offset + size]).untyped_storage()
    strides = torch.empty(shape, device="meta").stride()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)


def _taken(size: int) -> _Bytes:
    """Return a block for ``size`` bytes: the closest that waits, or a new one.

    A new one takes the place of others that wait, so that all blocks together are never larger
    than those that were in use at one time.
    """
    least, most = size + ALIGNMENT, size + size // SLACK + 2 * ALIGNMENT
    with _taking:
        fitting = [
            (entry.nbytes, place)
            for place, entry in enumerate(_waiting)
            if least <= entry.nbytes <= most
        ]
        if fitting:
            return _waiting.pop(min(fitting)[1])
        # a little more than is needed: the next scan is as large but for a few sites
        wanted = least + size // (2 * SLACK)
        _free_oldest(max(wanted, _waiting_bytes() - MOST_WAITING))
    return np.empty(wanted, np.uint8)


def _waiting_bytes() -> int:
    return sum(entry.nbytes for entry in list(_waiting))


def _free_oldest(size: int) -> None:
    """Free the oldest blocks, ``size`` bytes or all; only with the lock."""
    while size > 0 and _waiting:
        size -= _waiting.pop(0).nbytes
