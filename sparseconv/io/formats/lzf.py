"""Decompress LZF, the compression of ``.pcd`` files."""

from __future__ import annotations

import importlib

import numpy as np


def decompress(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that ``data`` stands for.

    A control byte below 32 announces that many bytes and one more, as they are. Any other repeats
    earlier output: its upper 3 bits are the length less 2 (7: the next byte is added), its lower 5
    and the next byte the distance less 1.

    Raises:
        ValueError: `data` is damaged, or stands for another number of bytes.

    Source: Lehmann, LibLZF.

    >>> decompress(bytes([2]) + b"abc" + bytes([0b101_00000, 2]), 10)
    b'abcabcabca'
    """
    if size > len(data) * 264 + 1:  # three bytes stand for 264 at most
        raise ValueError(f"its compressed part of {len(data)} bytes cannot hold {size}")
    out = np.empty(size, np.uint8)
    loops = importlib.import_module("sparseconv.io.loops")
    end = loops.decompress_lzf(np.frombuffer(data, np.uint8), out)
    if end == -1:
        raise ValueError("its compressed part refers to what was never written")
    if end != size:
        raise ValueError(f"its compressed part must hold {size} bytes, and does not")
    return out.tobytes()
