"""Colours of 16 bits a channel in PNG and TIFF files, of which Pillow keeps 8."""

from __future__ import annotations

import importlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvError, SparseConvValueError

Words = npt.NDArray[np.uint16]

ORIENTATION = 274  # of EXIF
# what turns an image upright, by its orientation
UPRIGHT: dict[int, Callable[[Words], Words]] = {
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: v.swapaxes(0, 1)[:, ::-1],
    7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
    8: lambda v: v.swapaxes(0, 1)[::-1],
}
HEADER_END = 33  # bytes of a PNG's signature and header


def is_deep_colour(picture: Any) -> bool:
    """Return whether the file of a Pillow image, not loaded yet, has colours of 16 bits."""
    return picture.mode in ("RGB", "RGBA") and any(";16" in str(tile[-1]) for tile in picture.tile)


def read_deep_colour(path: str | os.PathLike[str], orientation: int) -> Words:
    """Return the colours ``[H, W, 3]``, turned upright.

    Raises:
        SparseConvValueError: the file is damaged; SparseConvError: OpenCV is missing.
    """
    library = _library("cv2", "opencv-python-headless")
    try:
        values = library.imdecode(np.fromfile(path, np.uint8), library.IMREAD_UNCHANGED)
    except library.error as error:
        raise SparseConvValueError(f"image: {Path(path).name} cannot be read") from error
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        raise SparseConvValueError(f"image: {Path(path).name} cannot be read")
    colours: Words = values[..., 2::-1]
    turn = UPRIGHT.get(orientation)
    return np.ascontiguousarray(colours if turn is None else turn(colours))


def write_deep_colour(path: str | os.PathLike[str], values: Words, profile: bytes | None) -> None:
    """Write colours ``[H, W, 3]`` as a PNG or a TIFF, with a colour profile.

    Raises:
        SparseConvError: OpenCV (PNG) or tifffile (TIFF) is missing.
    """
    if Path(path).suffix.lower() != ".png":
        library = _library("tifffile", "tifffile")
        library.imwrite(path, values, photometric="rgb", iccprofile=profile, compression="zlib")
        return
    library = _library("cv2", "opencv-python-headless")
    _, coded = library.imencode(".png", np.ascontiguousarray(values[..., ::-1]))
    data = coded.tobytes()
    if profile:
        body = b"iCCPicc\0\0" + zlib.compress(profile)
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        data = data[:HEADER_END] + chunk + data[HEADER_END:]
    Path(path).write_bytes(data)


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SparseConvError(
            f"colours of 16 bits need {package}, which is not installed: pip install {package}"
        ) from error
