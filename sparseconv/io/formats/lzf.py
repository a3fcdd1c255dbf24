"""Decompress LZF, the compression of ``.pcd`` files."""

from __future__ import annotations

SHORTEST = 3  # bytes that a reference copies at least


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
    out = bytearray()
    position = 0
    while position < len(data) and len(out) <= size:
        control = data[position]
        position += 1
        if control < 32:
            out += data[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[position]
            position += 1
        length += SHORTEST - 1
        distance = ((control & 31) << 8 | data[position]) + 1
        position += 1
        if distance > len(out):
            raise ValueError("its compressed part refers to what was never written")
        piece = out[-distance:]  # shorter than the length where the copy overlaps itself
        out += (piece * (length // distance + 1))[:length]
    if len(out) != size or position > len(data):
        raise ValueError(f"its compressed part holds {len(out)} bytes, must hold {size}")
    return bytes(out)
