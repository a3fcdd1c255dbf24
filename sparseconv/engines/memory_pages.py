"""Pages of memory that hold nothing: given back to the system, while their addresses stay taken."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

PAGE_BYTES = 2**21  # a huge page; a part of one would be split from it
_DONT_NEED = 4  # MADV_DONTNEED of Linux: the next touch finds zeros


def give_back_pages(address: int, size: int) -> None:
    """Let the system take the whole pages of a range whose contents nobody needs.

    Elsewhere than on Linux the range keeps its pages.

    Args:
        address: of the first byte, in private memory that no file is mapped to.
        size: bytes.
    """
    first = -(-address // PAGE_BYTES) * PAGE_BYTES
    last = (address + size) // PAGE_BYTES * PAGE_BYTES
    if last > first and sys.platform == "linux":
        _library().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONT_NEED)


@functools.cache
def _library() -> Any:
    return ctypes.CDLL(None)
