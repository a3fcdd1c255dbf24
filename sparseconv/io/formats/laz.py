"""What a ``.laz`` claims, checked before the decoder believes it: the decoder ends the process."""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvValueError
from sparseconv.io.source import Source, check_expansion

Box: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

RECORD = struct.Struct("<2x16sHH32x")
ITEMS = struct.Struct("<HHBBHIIqqH")  # the head of LASzip's record; then 6 bytes an item
POINTWISE, CHUNKED, LAYERED = 1, 2, 3
VARIABLE = 2**32 - 1  # chunk size: each chunk says its own
# bytes of an item (None: any number), and layers of it in a layered chunk (None: one a byte)
SIZES: dict[int, tuple[int | None, int | None]] = {
    0: (None, 0), 6: (20, 0), 7: (8, 0), 8: (6, 0), 9: (29, 0),
    10: (30, 9), 11: (6, 1), 12: (8, 2), 13: (29, 1), 14: (None, None),
}  # fmt: skip
COPC_INFO = struct.Struct("<4d8xQQ")
COPC_ENTRY = struct.Struct("<4iQii")
MOST_LEVELS = 64


class Chunk(NamedTuple):
    """Points that are packed together."""

    points: int
    bytes: int
    start: int


@dataclass(frozen=True)
class Packing:
    """What the header and LASzip's record say.

    Attributes:
        start: Where the packed points begin.
        points: How many there are.
        row: Bytes of a point.
        compressor: LASzip's number of the way of packing.
        chunk_size: Points in a chunk.
        layers: Layers in a layered chunk.
        record: LASzip's record, and where it stands.
        copc: The record of cloud-optimised files, or nothing.
    """

    start: int
    points: int
    row: int
    compressor: int
    chunk_size: int
    layers: int
    record: bytes
    place: int
    copc: bytes


def checked_laz(source: Source) -> Source:
    """Return a file that the decoder can be given.

    Raises:
        SparseConvValueError: The file claims more points than its bytes can hold.
        ValueError: Its chunk table, chunks or layers do not fit into it.

    Source: Isenburg 2013, "LASzip: lossless compression of LiDAR data".
    """
    data = source.buffer()
    packing = _packing(data)
    check_expansion(packing.points * packing.row, len(data), source.name)
    if packing.compressor == POINTWISE:
        return Source(source.name, source.suffix, None, _chunked(data, packing))
    for chunk in chunks_of(data, packing):
        if packing.compressor == LAYERED:
            _check_layers(data, packing, chunk)
    return source


def _packing(data: Any) -> Packing:
    head = data[:375].tobytes().ljust(375, b"\0")
    size, start, records = struct.unpack_from("<HII", head, 94)
    row, points = struct.unpack_from("<HI", head, 105)
    if head[25] >= 4:
        (points,) = struct.unpack_from("<Q", head, 247)
    found: dict[tuple[bytes, int], tuple[bytes, int]] = {}
    place = size
    for _ in range(records):
        if place + RECORD.size > len(data):
            raise ValueError("its records end too early")
        user, number, length = RECORD.unpack(data[place : place + RECORD.size].tobytes())
        place += RECORD.size
        content = data[place : place + length].tobytes()
        found.setdefault((user.rstrip(b"\0"), number), (content, place))
        place += length
    record, where = found.get((b"laszip encoded", 22204), (b"", 0))
    if len(record) < ITEMS.size:
        raise ValueError("it has no record of LASzip")
    compressor, coder, _, _, _, _, chunk_size, _, _, items = ITEMS.unpack_from(record)
    if compressor not in (POINTWISE, CHUNKED, LAYERED) or coder:
        raise ValueError(f"LASzip's compressor {compressor} and coder {coder} are not known")
    if len(record) < ITEMS.size + 6 * items:
        raise ValueError("LASzip's record ends too early")
    layers = total = 0
    for number in range(items):
        kind, width, _ = struct.unpack_from("<HHH", record, ITEMS.size + 6 * number)
        if kind not in SIZES or SIZES[kind][0] not in (None, width):
            raise ValueError(f"LASzip's item {kind} of {width} bytes is not known")
        item_layers = SIZES[kind][1]
        layers += width if item_layers is None else item_layers
        total += width
    if total != row or row < 20:
        raise ValueError(f"LASzip's items have {total} bytes, a point has {row}")
    copc, _ = found.get((b"copc", 1), (b"", 0))
    return Packing(start, points, row, compressor, chunk_size, layers, record, where, copc)


def chunks_of(data: Any, packing: Packing) -> list[Chunk]:
    """Return the chunks, whose number, places and points fit the file.

    Raises:
        ValueError: They do not.
    """
    first = packing.start + 8
    if first > len(data):
        raise ValueError("it ends before its points")
    (table,) = struct.unpack("<q", data[packing.start : first].tobytes())
    if table <= packing.start:  # written to a stream: the place of the table comes last
        (table,) = struct.unpack("<q", data[-8:].tobytes())
    if not packing.points:
        return []
    if not first <= table <= len(data) - 8:
        raise ValueError("its chunk table lies outside of the file")
    _, count = struct.unpack("<II", data[table : table + 8].tobytes())
    if not 0 < count * packing.row <= table - first:
        raise ValueError(f"its chunk table has {count} chunks, which its bytes do not hold")
    chunks, place, left = [], first, packing.points
    for points, length in _chunk_sizes(data, packing, table):
        if length < packing.row or place + length > table:
            raise ValueError("its chunks reach outside of their place")
        chunks.append(Chunk(min(points, left), length, place))
        place, left = place + length, left - min(points, left)
    return chunks


def _chunk_sizes(data: Any, packing: Packing, table: int) -> list[tuple[int, int]]:
    """Return points and bytes of each chunk."""
    lazrs = importlib.import_module("lazrs")
    # the table is packed, too: the decoder reads it, now that its length is known to be possible
    moved = io.BytesIO(struct.pack("<q", 8) + data[table:].tobytes())
    sizes: list[tuple[int, int]] = lazrs.read_chunk_table(moved, lazrs.LazVlr(packing.record))
    if packing.chunk_size != VARIABLE:
        sizes = [(packing.chunk_size, length) for _, length in sizes]
    elif sum(points for points, _ in sizes) != packing.points:
        raise ValueError("its chunks hold another number of points than its header says")
    if sum(points for points, _ in sizes) < packing.points:
        raise ValueError("its chunks hold fewer points than its header says")
    return sizes


class LazChunks:
    """The points of a checked file, unpacked chunk by chunk: what was read last is kept."""

    def __init__(self, source: Source) -> None:
        """Find the chunks.

        Args:
            source: A file that :func:`checked_laz` returned.
        """
        self._data = source.buffer()
        self._packing = _packing(self._data)
        self._chunks = chunks_of(self._data, self._packing)
        self._ends = np.cumsum([chunk.points for chunk in self._chunks])
        self._kept: tuple[int, int, Any] = (0, 0, np.zeros(0, np.uint8))

    def rows(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of the points from ``start`` on, up to ``stop``."""
        row = self._packing.row
        if start >= stop:
            return np.zeros(0, np.uint8)
        first, last = np.searchsorted(self._ends, (start, stop - 1), side="right").tolist()
        if not self._kept[0] <= first <= last < self._kept[1]:
            self._kept = first, last + 1, self._unpacked(self._chunks[first : last + 1])
        kept = self._kept[0]
        before = int(self._ends[kept - 1]) if kept else 0
        part: npt.NDArray[np.uint8] = self._kept[2][(start - before) * row : (stop - before) * row]
        return part

    def _unpacked(self, chunks: list[Chunk]) -> npt.NDArray[np.uint8]:
        out = np.empty(sum(chunk.points for chunk in chunks) * self._packing.row, np.uint8)
        packed = self._data[chunks[0].start : chunks[-1].start + chunks[-1].bytes].tobytes()
        table = [(chunk.points, chunk.bytes) for chunk in chunks]
        lazrs = importlib.import_module("lazrs")
        lazrs.decompress_points_with_chunk_table(packed, self._packing.record, out, table)
        return out


def _check_layers(data: Any, packing: Packing, chunk: Chunk) -> None:
    """Raise where the layers of a chunk are longer than the chunk: room would be made for them."""
    head = 4 + 4 * packing.layers
    begin = chunk.start + packing.row
    sizes = data[begin : begin + head].tobytes()
    if len(sizes) < head or packing.row + head > chunk.bytes:
        raise ValueError("a chunk is shorter than its layers")
    count, *layers = struct.unpack(f"<{1 + packing.layers}I", sizes)
    if count > chunk.points or sum(layers) > chunk.bytes - packing.row - head:
        raise ValueError("the layers of a chunk do not fit into it")


def _chunked(data: Any, packing: Packing) -> bytes:
    """Return a file of LASzip 1.x, which has one stream of points, as one with a single chunk."""
    lazrs = importlib.import_module("lazrs")
    stream = data[packing.start :].tobytes()
    record = bytearray(packing.record)
    struct.pack_into("<H", record, 0, CHUNKED)
    struct.pack_into("<I", record, 12, min(max(packing.points, 1), VARIABLE - 1))
    head = bytearray(data[: packing.start].tobytes())
    head[packing.place : packing.place + len(record)] = record
    out = io.BytesIO()
    out.write(head + struct.pack("<q", packing.start + 8 + len(stream)) + stream)
    chunk = [(packing.points, len(stream))]
    lazrs.write_chunk_table(out, chunk, lazrs.LazVlr(bytes(record)))
    return out.getvalue()


def copc_rows(source: Source, bounds: Box | None, levels: int | None) -> list[slice] | None:
    """Return the rows of a cloud-optimised file that a box and a number of levels need.

    Args:
        source: A checked ``.laz`` file.
        bounds: Low and high corner, in the file's units; None for everywhere.
        levels: How many levels of detail, the coarsest first; None for all.

    Returns:
        Runs of rows in the order of the file, or None where the file has no such index.

    Source: Hobu Inc., "COPC - Cloud Optimized Point Cloud Specification 1.0".
    """
    data = source.buffer()
    packing = _packing(data)
    if len(packing.copc) < COPC_INFO.size:
        return None
    wanted = {node[1] for node in _nodes(data, packing.copc, bounds, levels)}
    rows, first = [], 0
    for chunk in chunks_of(data, packing):
        if chunk.start in wanted:
            rows.append(slice(first, first + chunk.points))
        first += chunk.points
    return rows


def _nodes(
    data: Any, info: bytes, bounds: Box | None, levels: int | None
) -> Iterator[tuple[int, int]]:
    """Yield level and place of the nodes of the tree that a box and a number of levels need."""
    *centre, half, offset, size = COPC_INFO.unpack_from(info)
    pages, seen = [(offset, size)], set()
    while pages:
        page = pages.pop()
        if page in seen:
            raise ValueError("its pages of nodes run in a circle")
        seen.add(page)
        raw = data[page[0] : page[0] + page[1]].tobytes()
        for entry in range(0, len(raw) - COPC_ENTRY.size + 1, COPC_ENTRY.size):
            level, *key, start, length, count = COPC_ENTRY.unpack_from(raw, entry)
            if not 0 <= level < (MOST_LEVELS if levels is None else levels):
                continue
            edge = 2 * half / 2.0**level
            low = np.array(centre) - half + np.array(key) * edge
            if bounds is not None and (np.any(low > bounds[1]) or np.any(low + edge < bounds[0])):
                continue
            if count < 0:
                pages.append((start, length))
            elif count:
                yield level, start


def check_copc(source: Source, levels: int | None) -> None:
    """Raise where levels are asked of a file that has none.

    Raises:
        SparseConvValueError: The file is no cloud-optimised one.
    """
    if levels is not None and (source.suffix != ".laz" or copc_rows(source, None, 1) is None):
        raise SparseConvValueError(f"levels: {source.name!r} is no COPC file, it has no levels")
