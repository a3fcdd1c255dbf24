"""Where bytes come from: a path, an open file or bytes; `.gz` is unpacked on the way."""

from __future__ import annotations

import io
import mmap
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvTypeError, SparseConvValueError

Readable: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

ROOM = 32 << 20  # bytes that a small file may unpack to, whatever its own size
EXPANSION = 200  # bytes out of a compressed byte; real scans stay below 50
PIECE = 1 << 20  # bytes that are unpacked at a time
MAGIC = (
    (b"ply", ".ply"),
    (b"LASF", ".las"),
    (b"\x93NUMPY", ".npy"),
    (b"PK\x03\x04", ".npz"),
    (b"PK\x05\x06", ".npz"),
    (b"ASTM-E57", ".e57"),
    (b"# vtk", ".vtk"),
    (b"OFF", ".off"),
    (b"# .PCD", ".pcd"),
    (b"VERSION", ".pcd"),
)
POINTERS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: git lfs pull",
    b"/annex/objects/": "is a git-annex pointer, not the file itself: git annex get",
}


@dataclass(frozen=True)
class Source:
    """The bytes of one file.

    Args:
        name: What errors call it.
        suffix: The format, in lower case, without ``.gz``.
        path: The file, or None where `data` has been read already.
        data: All bytes, or None where they are in the file.
    """

    name: str
    suffix: str
    path: Path | None
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """Return a binary file at its beginning."""
        return io.BytesIO(self.data or b"") if self.path is None else self.path.open("rb")

    def buffer(self) -> npt.NDArray[np.uint8]:
        """Return the bytes without a copy, read only: the file is mapped."""
        if self.path is None:
            return np.frombuffer(self.data or b"", np.uint8)
        if not self.path.stat().st_size:
            return np.zeros(0, np.uint8)
        with self.path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data or b"") if self.path is None else self.path.stat().st_size


def source_of(path: Readable, known: tuple[str, ...]) -> Source:
    """Return where to read from.

    Args:
        path: A path, bytes, or a file that is open for reading bytes; the format of the latter two
            follows from their content, where their name does not say it.
        known: Suffixes that can be read.

    Raises:
        SparseConvError: A path has another suffix, a file is open as text, a pointer file stands in
            for the real one, or a ``.gz`` is damaged or too large.
        OSError: The file cannot be opened.
    """
    if isinstance(path, str | os.PathLike):
        path = Path(path)
        suffix = path.suffix.lower()
        packed = suffix == ".gz"
        suffix = path.with_suffix("").suffix.lower() if packed else suffix
        if suffix not in known:
            raise SparseConvValueError(
                f"path {path.name!r} has suffix {suffix!r}, known are {', '.join(known)}"
            )
        with path.open("rb") as file:
            check_pointer(file.read(1024), path.name)
        if packed:
            return Source(path.name, suffix, None, unzip(path.read_bytes(), path.name))
        return Source(path.name, suffix, path)
    data = path if isinstance(path, bytes | bytearray | memoryview) else _bytes_of(path)
    data = bytes(data)
    name = Path(str(getattr(path, "name", "bytes"))).name
    check_pointer(data[:1024], name)
    if data[:2] == b"\x1f\x8b":
        data, name = unzip(data, name), name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    return Source(name, suffix if suffix in known else sniff(data), None, data)


def _bytes_of(file: Any) -> bytes:
    if not hasattr(file, "read"):
        raise SparseConvTypeError(
            f"path: must be a path, bytes or an open file, got {type(file).__name__}"
        )
    data = file.read()
    if not isinstance(data, bytes):
        raise SparseConvTypeError("path: a file must be open for bytes, mode 'rb'")
    return data


def sniff(data: bytes) -> str:
    r"""Return the suffix of a format by the first bytes of a file.

    >>> sniff(b"ply\nformat ascii 1.0"), sniff(b"1 2 3"), sniff(bytes(16))
    ('.ply', '.txt', '.bin')
    """
    for magic, suffix in MAGIC:
        if data.startswith(magic):
            compressed = suffix == ".las" and len(data) > 104 and data[104] & 0x80
            return ".laz" if compressed else suffix
    head = data[:4096]
    if b"\nDATA " in head and b"SIZE" in head:
        return ".pcd"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (head and b"\0" not in head):
        return ".txt"
    return ".bin"


def check_pointer(head: bytes, name: str) -> None:
    """Raise where a file only names another one, as version control leaves it."""
    for start, text in POINTERS.items():
        if head.startswith(start):
            raise SparseConvValueError(f"{name!r} {text}")


def unzip(data: bytes, name: str) -> bytes:
    """Return what gzip packed, of a bounded size.

    Raises:
        SparseConvValueError: It is damaged, or larger than any scan would be.
    """
    most = ROOM + EXPANSION * len(data)
    out = bytearray()
    rest = data
    while rest:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            while rest and not unpacker.eof:
                out += unpacker.decompress(rest, PIECE)
                rest = unpacker.unconsumed_tail
                check_expansion(len(out), len(data), name, most)
        except zlib.error as error:
            raise SparseConvValueError(f"{name!r} cannot be read as .gz: {error}") from error
        if not unpacker.eof:
            raise SparseConvValueError(f"{name!r} cannot be read as .gz: it ends too early")
        rest = unpacker.unused_data.lstrip(b"\0")
    return bytes(out)


def check_expansion(unpacked: int, packed: int, name: str, most: int | None = None) -> None:
    """Raise where a compressed file claims to hold more than one of its size can.

    Raises:
        SparseConvValueError: More than 200 bytes a byte, and more than 32 MiB.
    """
    if unpacked > (ROOM + EXPANSION * packed if most is None else most):
        raise SparseConvValueError(
            f"{name!r} has {packed} bytes and claims to hold {unpacked} or more: no scan is packed "
            f"so densely"
        )
