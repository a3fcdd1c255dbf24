"""Images and masks from and to files, and how close two images are; needs the extra ``images``."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.inpaint.deep_colour import (
    ORIENTATION,
    is_deep_colour,
    read_deep_colour,
    write_deep_colour,
)

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
TIFF = (".tif", ".tiff")
DEEP = (".png", *TIFF)  # suffixes that hold 16 bits
SSIM_WINDOW = 7  # pixels: side of the windows that are compared
GREY = ("1", "L", "LA", "La")
WHOLE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
BYTE, WORD = 255, 65535
HALF = 128  # of a byte: from here on a mask is bright, a pixel opaque


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Return an image file as ``[1, C, H, W]``: one channel if it is grey, else three.

    8 and 16 bits become 0 to 1, the same for every file; floats stay what they are. It is turned
    upright, as its EXIF orientation says; transparency is :func:`read_alpha`'s.

    Raises:
        SparseConvValueError: the file is no image; SparseConvError: Pillow is missing.
        OSError: the file cannot be opened.
    """
    picture = _open(path)
    values: np.ndarray[Any, Any]
    if _is_deep_colour(path):
        values = read_deep_colour(path, picture.info[ORIENTATION]).astype(np.float32) / WORD
    elif picture.mode == "F":
        values = np.asarray(picture, dtype=np.float32)
    elif picture.mode in WHOLE:
        values = np.asarray(picture).astype(np.float32) / WORD
    else:
        grey = picture.mode in GREY
        values = np.asarray(picture.convert("L" if grey else "RGB"), dtype=np.float32) / BYTE
    if not np.isfinite(values).all() and picture.mode != "F":
        raise SparseConvValueError(f"image: {Path(path).name} holds values that are no numbers")
    return as_tensor(values)


def depth_of(path: str | os.PathLike[str]) -> str:
    """Return ``"byte"``, ``"word"`` (16 bits) or ``"float"``: what the pixels of a file are."""
    mode = _open(path).mode
    deep = mode in WHOLE or _is_deep_colour(path)
    return "float" if mode == "F" else "word" if deep else "byte"


def _is_deep_colour(path: str | os.PathLike[str]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags
        with needed("PIL.Image", "pillow").open(path) as picture:
            return is_deep_colour(picture)


def read_alpha(path: str | os.PathLike[str]) -> Tensor | None:
    """Return bool ``[1, 1, H, W]``, True where an image is opaque; None where it cannot say."""
    picture = _open(path)
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    values = np.asarray(picture.convert("RGBA").getchannel("A"))
    return torch.from_numpy(values >= HALF)[None, None]


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Tensor:
    """Return a mask file as bool ``[1, 1, H, W]``, True where the image is valid.

    Args:
        path: an image that is bright (128 of 255 and more, or 1 where it holds 0 and 1 alone)
            where the other one is missing; of one colour with transparent pixels, these are the
            holes; else what is transparent is no hole.
        size: height and width that it must have.

    Raises:
        SparseConvValueError: another size, no hole at all, or the file is no image.
    """
    picture = _open(path)
    opaque = read_alpha(path)
    if picture.mode in WHOLE or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float32)
        bright = values >= (0.5 if values.max(initial=0) <= 1 else HALF)
    else:
        values = np.asarray(picture.convert("RGB" if picture.mode == "P" else "L").convert("L"))
        bright = values >= (1 if values.max(initial=0) == 1 else HALF)
    if values.shape != size:
        raise SparseConvValueError(
            f"mask: {Path(path).name} is {values.shape[1]} x {values.shape[0]} pixels, the image "
            f"{size[1]} x {size[0]}"
        )
    hole = torch.from_numpy(bright)[None, None]
    if opaque is not None and not bool(opaque.all()):
        hole = ~opaque if values.min() == values.max() else hole & opaque
    if not bool(hole.any()):
        raise SparseConvValueError(
            f"mask: {Path(path).name} marks no pixel, it must be bright where the image is missing"
        )
    return ~hole


def color_mask(path: str | os.PathLike[str], color: str) -> Tensor:
    """Return bool ``[1, 1, H, W]``, False where an image has a colour.

    Args:
        path: the image.
        color: as ``white``, ``#ff00ff`` or ``rgb(255, 0, 255)``.

    Raises:
        SparseConvValueError: There is no such colour, in words or in the image.
    """
    try:
        wanted = needed("PIL.ImageColor", "pillow").getrgb(color)[:3]
    except ValueError as error:
        raise SparseConvValueError(
            f"mask-color: must be a name or #rrggbb, got {color!r}"
        ) from error
    values = np.asarray(_open(path).convert("RGB"))
    hole = (values == np.array(wanted, np.uint8)).all(axis=-1)
    if not hole.any():
        raise SparseConvValueError(f"mask-color: no pixel of {Path(path).name} is {color}")
    return torch.from_numpy(~hole)[None, None]


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise unless :func:`write_image` could write there.

    Raises:
        SparseConvValueError: an unknown suffix, or a folder that does not exist.
    """
    library, path = needed("PIL.Image", "pillow"), Path(path)
    if library.registered_extensions().get(path.suffix.lower()) not in library.SAVE:
        raise SparseConvValueError(
            f"output: {path.name} must end as an image file does, such as .png"
        )
    if not path.parent.is_dir():
        raise SparseConvValueError(f"output: there is no folder {path.parent}")


def write_image(
    path: str | os.PathLike[str], image: Tensor, source: str | os.PathLike[str] | None = None
) -> None:
    """Write ``[1, C, H, W]`` from 0 to 1; the format follows from the suffix.

    Args:
        path: of the file to write.
        image: what to write.
        source: the file that it was made from. Its colour profile is kept, of a JPEG the quality,
            of 16 bits a channel these (``.png``, ``.tif``), of floats these (``.tif``).

    Raises:
        SparseConvValueError: what :func:`check_output` raises; floats and another suffix.
    """
    check_output(path)
    suffix = Path(path).suffix.lower()
    depth = "byte" if source is None else depth_of(source)
    options = _kept(source, suffix in JPEG)
    array = as_array(image)
    if depth == "float":
        if suffix not in TIFF:
            raise SparseConvValueError(
                f"output: a {suffix} holds no floats, as the image does: write .tif"
            )
        values = array.astype(np.float32)
    elif depth == "word" and suffix in DEEP and array.ndim == 2:
        values = np.round(array.clip(0, 1) * WORD).astype(np.uint16)
    elif depth == "word" and suffix in DEEP:
        words = np.round(array.clip(0, 1) * WORD).astype(np.uint16)
        write_deep_colour(path, words, options.get("icc_profile"))
        return
    else:
        values = np.round(array.clip(0, 1) * BYTE).astype(np.uint8)
    picture = needed("PIL.Image", "pillow").fromarray(values)
    try:
        picture.save(path, **options)
    except (ValueError, KeyError) as error:  # a profile that the format does not take
        raise SparseConvValueError(f"output: {Path(path).name}: {error}") from error


def _kept(source: str | os.PathLike[str] | None, jpeg: bool) -> dict[str, Any]:
    """Return the options that keep the colour profile of a file, and of a JPEG the quality."""
    options: dict[str, Any] = {"quality": 95} if jpeg else {}
    if source is None:
        return options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags
        with needed("PIL.Image", "pillow").open(source) as picture:
            if jpeg and picture.format == "JPEG":
                sampling = needed("PIL.JpegImagePlugin", "pillow").get_sampling(picture)
                options = {"qtables": picture.quantization, "subsampling": sampling}
            profile = picture.info.get("icc_profile")
    return options | ({"icc_profile": profile} if profile else {})


def as_tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """Return ``[H, W]`` or ``[H, W, C]`` as float32 ``[1, C, H, W]``."""
    planes = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    planes = planes[..., None] if planes.ndim == 2 else planes
    return planes.movedim(-1, 0)[None].contiguous()


def as_array(image: Tensor) -> np.ndarray[Any, Any]:
    """Return ``[1, C, H, W]`` as ``[H, W]`` where it is grey, else ``[H, W, C]``."""
    planes = image.detach()[0].movedim(0, -1)
    return planes.squeeze(-1).numpy() if planes.shape[-1] == 1 else planes.numpy()


def psnr(image: Tensor, truth: Tensor, where: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB over the pixels of ``where``; the peak is 1.

    Args:
        image, truth: ``[1, C, H, W]``.
        where: bool ``[1, 1, H, W]``.
    """
    error = (image - truth).square().mean(dim=1, keepdim=True)[where]
    return float(-10 * torch.log10(error.mean())) if error.numel() else float("inf")


def ssim(image: Tensor, truth: Tensor, where: Tensor) -> float:
    """Return the structural similarity (Wang et al. 2004), averaged over the pixels of ``where``.

    Args:
        image, truth, where: as of :func:`psnr`; 7 pixels or more along each side.

    Raises:
        SparseConvValueError: fewer pixels; SparseConvError: scikit-image is missing.
    """
    if min(image.shape[2:]) < SSIM_WINDOW:
        height, width = image.shape[2:]
        raise SparseConvValueError(
            f"image: SSIM needs {SSIM_WINDOW} x {SSIM_WINDOW} pixels or more, "
            f"got {height} x {width}"
        )
    similarity = needed("skimage.metrics", "scikit-image").structural_similarity
    planes = [values[0].double().numpy() for values in (image, truth)]
    _, local = similarity(*planes, data_range=1.0, channel_axis=0, full=True)
    chosen = local.mean(axis=0)[where[0, 0].numpy()]
    return float(chosen.mean()) if chosen.size else 1.0


def needed(module: str, package: str) -> Any:
    """Return an optional module.

    Raises:
        SparseConvError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SparseConvError(
            f"this needs {package}, which is not installed: pip install pillow scikit-image tqdm"
        ) from error


def _open(path: str | os.PathLike[str]) -> Any:
    library = needed("PIL.Image", "pillow")
    with Path(path).open("rb"):  # a file that is missing stays an OSError
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, and of damaged tags
            with library.open(path) as picture:
                picture.load()
                turned = needed("PIL.ImageOps", "pillow").exif_transpose(picture)
                turned.info[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)
                return turned
    except library.UnidentifiedImageError as error:
        raise SparseConvValueError(f"image: {Path(path).name} is not an image file") from error
    except Exception as error:  # damaged files make decoders raise almost anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SparseConvValueError(f"image: {Path(path).name} cannot be read: {reason}") from error
