"""Images and masks from and to files, and how close two images are; needs the extra ``images``."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.errors import SparseConvError, SparseConvValueError

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
SSIM_WINDOW = 7  # pixels: side of the windows that are compared


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Return an image file as ``[1, C, H, W]`` from 0 to 1: one channel if it is grey, else three.

    It is turned upright, as its EXIF orientation says; transparency is :func:`read_alpha`'s.

    Raises:
        SparseConvValueError: the file is no image; SparseConvError: Pillow is missing.
        OSError: the file cannot be opened.
    """
    picture = _open(path)
    values: np.ndarray[Any, Any]
    grey = picture.mode in ("1", "L", "LA", "I", "I;16", "F")
    if picture.mode in ("I", "I;16", "F"):
        values = np.asarray(picture, dtype=np.float32)
        values = values / max(float(values.max()), 1.0)
    else:
        values = np.asarray(picture.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    return as_tensor(values)


def read_alpha(path: str | os.PathLike[str]) -> Tensor | None:
    """Return bool ``[1, 1, H, W]``, True where an image is opaque; None where it cannot say."""
    picture = _open(path)
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    values = np.asarray(picture.convert("RGBA").getchannel("A"))
    return torch.from_numpy(values >= 128)[None, None]


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Tensor:
    """Return a mask file as bool ``[1, 1, H, W]``, True where the image is valid.

    Args:
        path: an image that is bright (128 of 255 and more) where the other one is missing.
        size: height and width that it must have.

    Raises:
        SparseConvValueError: another size, or the file is no image.
    """
    values = np.asarray(_open(path).convert("L"))
    if values.shape != size:
        raise SparseConvValueError(
            f"mask: {Path(path).name} is {values.shape[1]} x {values.shape[0]} pixels, the image "
            f"{size[1]} x {size[0]}"
        )
    return torch.from_numpy(values < 128)[None, None]


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
        source: the file that it was made from: a JPEG is written with the quality of this one.

    Raises:
        SparseConvValueError: what :func:`check_output` raises.
    """
    check_output(path)
    values = np.round(as_array(image.clamp(0, 1)) * 255).astype(np.uint8)
    options = _quality_of(source) if Path(path).suffix.lower() in JPEG else {}
    needed("PIL.Image", "pillow").fromarray(values).save(path, **options)


def _quality_of(source: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the options that write a JPEG as ``source`` was, or a good one where it is none."""
    if source is not None:
        with needed("PIL.Image", "pillow").open(source) as picture:
            if picture.format == "JPEG":
                sampling = needed("PIL.JpegImagePlugin", "pillow").get_sampling(picture)
                return {"qtables": picture.quantization, "subsampling": sampling}
    return {"quality": 95}


def as_tensor(values: np.ndarray[Any, Any]) -> Tensor:
    """Return ``[H, W]`` or ``[H, W, C]`` as float32 ``[1, C, H, W]``."""
    planes = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
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
    try:
        picture = library.open(path)
        picture.load()
    except library.UnidentifiedImageError as error:
        raise SparseConvValueError(f"image: {Path(path).name} is not an image file") from error
    return needed("PIL.ImageOps", "pillow").exif_transpose(picture)
