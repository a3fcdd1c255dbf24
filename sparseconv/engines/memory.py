"""Memory for large results and rulebooks on the CPU.

Memory that comes fresh from the system is slow to touch for the first time: many megabytes of it
take several times as long as writing to them, more than most layers without a matrix product. So
results lie in arenas, and what one leaves goes to the next, as PyTorch does it on a GPU. NumPy asks
the system for an arena's memory, in huge pages, and PyTorch takes it from NumPy.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_BYTES = 2**20  # below, the C library hands out memory that has been touched before
ALIGNMENT = 64  # a vector of AVX-512, and a cache line
ARENA_BYTES = 2**26  # of the first; later ones are as large as all before, up to a limit
MOST_ARENA_BYTES = 2**30


def _most_idle() -> int:
    """Return the bytes of arenas without a result that are kept: a quarter of the machine's."""
    if not hasattr(os, "sysconf"):
        return 2**30
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 4


MOST_IDLE = _most_idle()


class _Arena:
    """A run of memory, and the ranges of it that no result uses, in ascending order."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.size = size
        self.first = -self.memory.ctypes.data % ALIGNMENT
        self.free = [(0, size)]

    @property
    def idle(self) -> bool:
        """Whether no result lies here."""
        return self.free == [(0, self.size)]

    def take(self, size: int) -> int | None:
        """Return the begin of ``size`` bytes, the lowest that are free, or None."""
        for place, (begin, end) in enumerate(self.free):
            if end - begin >= size:
                self.free[place : place + 1] = [(begin + size, end)] if end - begin > size else []
                return begin
        return None

    def give_back(self, begin: int, end: int) -> None:
        """Take a range back, and join it with the free ones on both sides."""
        place = bisect_left(self.free, (begin, end))
        first = last = place
        if place and self.free[place - 1][1] == begin:
            begin, first = self.free[place - 1][0], place - 1
        if place < len(self.free) and self.free[place][0] == end:
            end, last = self.free[place][1], place + 1
        self.free[first:last] = [(begin, end)]


_arenas: list[_Arena] = []
_returned: list[tuple[_Arena, int, int]] = []  # ranges that their arenas do not know yet
_lock = Lock()  # of the arenas; a range comes back at any time
if hasattr(os, "register_at_fork"):  # a child must not begin with a lock that nobody will open
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class _Block:
    """A range of an arena, which goes back with the last tensor on it."""

    def __init__(self, arena: _Arena, begin: int, size: int, used: int) -> None:
        self.arena, self.begin, self.end = arena, begin, begin + used
        place = arena.memory.ctypes.data + arena.first + begin
        self.__array_interface__ = {
            "shape": (size,), "typestr": "|u1", "data": (place, False), "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        _returned.append((self.arena, self.begin, self.end))
        # may run on any thread and in the midst of anything, so it waits for no lock; whoever
        # holds it, or takes it next, puts the range where it belongs
        if _lock.acquire(blocking=False):
            _settle()
            _lock.release()


def empty(
    shape: tuple[int, ...], dtype: torch.dtype, strides: tuple[int, ...] | None = None
) -> Tensor:
    """Return a CPU tensor of unset numbers, which is no view of another.

    It is contiguous unless strides are given, by which it has no gaps.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST_BYTES:
        if strides is None:
            return torch.empty(shape, dtype=dtype)
        return torch.empty_strided(shape, strides, dtype=dtype)
    if strides is None:
        strides = tuple(math.prod(shape[axis:]) for axis in range(1, len(shape) + 1))
    storage = torch.from_numpy(np.asarray(_taken(size))).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape, strides)


def empty_array(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return a contiguous array of unset numbers."""
    count = shape if isinstance(shape, int) else math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if size < LEAST_BYTES:
        return np.empty(shape, dtype)
    found: np.ndarray[Any, Any] = np.asarray(_taken(size)).view(dtype).reshape(shape)
    return found


def _taken(size: int) -> _Block:
    """Return a block of ``size`` bytes: the first that fits, so that later arenas empty."""
    used = -(-size // ALIGNMENT) * ALIGNMENT
    with _lock:
        _settle()
        for arena in _arenas:
            begin = arena.take(used)
            if begin is not None:
                return _Block(arena, begin, size, used)
        held = min(sum(arena.size for arena in _arenas), MOST_ARENA_BYTES)
        try:
            arena = _Arena(max(used, held, ARENA_BYTES))
        except MemoryError:  # no room for later results
            arena = _Arena(used)
        _arenas.append(arena)
        arena.take(used)
        return _Block(arena, 0, size, used)


def _settle() -> None:
    """Put ranges back where they belong, and drop idle arenas beyond the limit; with the lock."""
    while _returned:
        arena, begin, end = _returned.pop()
        arena.give_back(begin, end)
    idle = 0
    for arena in [arena for arena in _arenas if arena.idle]:
        idle += arena.size
        if idle > MOST_IDLE:
            _arenas.remove(arena)
