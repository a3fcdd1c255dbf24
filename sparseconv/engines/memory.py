"""The allocator of large results and rulebooks on the CPU: a pool that can be asked and emptied.

Memory that comes fresh from the system is slow to touch for the first time: many megabytes of it
take several times as long as writing to them, more than most layers without a matrix product. So
results lie in arenas, and what one leaves goes to the next, as PyTorch does it on a GPU. NumPy asks
the system for an arena's memory, in huge pages, and PyTorch takes it from NumPy.

What no result uses is kept for later ones up to a bound: a quarter of what this process may use
(the machine's memory, its control group's limit, ``RLIMIT_AS``), or as many bytes as the
environment variable ``SPARSECONV_POOL_BYTES`` says; 0 keeps nothing. The variable is read once,
when the first large result is made. While the pool grows, ranges that were too small for a large
result give their pages back, so that a first run needs hardly more than lives at once.
"""

from __future__ import annotations

import functools
import math
import os
from bisect import bisect_left
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.engines.memory_limit import most_idle_bytes
from sparseconv.engines.memory_pages import give_back_pages

LEAST_BYTES = 2**20  # below, the C library hands out memory that has been touched before
ALIGNMENT = 64  # a vector of AVX-512, and a cache line
ARENA_BYTES = 2**26  # of the first; later ones are as large as all before, up to a limit
MOST_ARENA_BYTES = 2**30
FRESH_BYTES = 2**27  # never touched before, in one result: then free ranges give their pages


_most_idle_bytes = functools.cache(most_idle_bytes)  # the files of the system are read once


class _Arena:
    """A run of memory, and the ranges of it that no result uses, in ascending order."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.size = size
        self.first = -self.memory.ctypes.data % ALIGNMENT
        self.free = [(0, size)]
        self.touched = 0  # the end of all that has ever been given out

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

    def give_back_pages(self) -> None:
        """Let the system have the memory of the free ranges until they are used again."""
        for begin, end in self.free:
            give_back_pages(self.memory.ctypes.data + self.first + begin, end - begin)

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
            try:
                _settle(_most_idle_bytes())
            finally:
                _lock.release()


def held() -> int:
    """Return the bytes that the pool holds, those of living results included.

    Example:
        >>> import sparseconv as sc
        >>> released = sc.memory.release()
        >>> sc.memory.held() >= 0
        True
    """
    with _lock:
        _settle(_most_idle_bytes())
        return sum(arena.size for arena in _arenas)


def release() -> int:
    """Give all memory that no result uses back to the system; return how many bytes that was."""
    with _lock:
        before = sum(arena.size for arena in _arenas)
        _settle(0)
        return before - sum(arena.size for arena in _arenas)


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
    most_idle = _most_idle_bytes()
    with _lock:
        _settle(most_idle)
        arena, begin = _first_fit(used) or _new_arena(used)
        fresh = begin + used - max(arena.touched, begin)
        if fresh >= FRESH_BYTES:  # what runs a second time touches nothing fresh
            for entry in _arenas:
                entry.give_back_pages()
        arena.touched = max(arena.touched, begin + used)
        return _Block(arena, begin, size, used)


def _first_fit(used: int) -> tuple[_Arena, int] | None:
    """Return the first arena with a free range, and where it begins; with the lock."""
    for arena in _arenas:
        begin = arena.take(used)
        if begin is not None:
            return arena, begin
    return None


def _new_arena(used: int) -> tuple[_Arena, int]:
    """Return an arena with ``used`` bytes and, where there is room, more for later results.

    With the lock.

    Raises:
        MemoryError: there is no room even when every idle arena is given back.
    """
    pooled = min(sum(arena.size for arena in _arenas), MOST_ARENA_BYTES)
    try:
        arena = _Arena(max(used, pooled, ARENA_BYTES))
    except MemoryError:
        _settle(0)
        arena = _Arena(used)
    _arenas.append(arena)
    arena.take(used)
    return arena, 0


def _settle(most_idle: int) -> None:
    """Put ranges back where they belong, and drop idle arenas beyond a bound; with the lock."""
    while _returned:
        arena, begin, end = _returned.pop()
        arena.give_back(begin, end)
    idle = 0
    for arena in [arena for arena in _arenas if arena.idle]:
        idle += arena.size
        if idle > most_idle:
            _arenas.remove(arena)
