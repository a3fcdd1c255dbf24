"""Handwritten digits as 32 by 32 images: scikit-learn's own, or MNIST from IDX files."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

import sparseconv as sc

SIDE = 32
INK = 0.2  # a pixel at least as dark is ink, where paper is 0 and the darkest pixel 1


class Digits(NamedTuple):
    """Images ``[N, 1, 32, 32]`` from 0 (paper) to 1, and their labels ``[N]``."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Digits:  # type: ignore[override]
        return Digits(self.images[rows], self.labels[rows])


def bundled(seed: int) -> tuple[Digits, Digits]:
    """Return scikit-learn's 1797 digits, upscaled from 8 by 8: 80 % to train on, 20 % to judge.

    Args:
        seed: of the split, which keeps the share of every class.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16
    known = Digits(upscaled(images), torch.from_numpy(labels).long())
    splits = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels,
                              random_state=seed)  # fmt: skip
    train, test = (known[torch.from_numpy(rows)] for rows in splits)
    return train, test


def mnist(folder: Path) -> tuple[Digits, Digits]:
    """Return MNIST's 60,000 digits to train on and 10,000 to judge.

    Args:
        folder: with the four IDX files under their usual names, gzipped or not.
    """
    train, test = (
        Digits(upscaled(read_idx(folder, f"{part}-images-idx3-ubyte")[:, None].float() / 255),
               read_idx(folder, f"{part}-labels-idx1-ubyte").long())
        for part in ("train", "t10k")
    )  # fmt: skip
    return train, test


def read_idx(folder: Path, name: str) -> Tensor:
    """Return the bytes of an IDX file as a uint8 tensor of the shape that its header tells."""
    path = folder / name
    if path.exists():
        content = path.read_bytes()
    else:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
    zeros, kind, axes = struct.unpack(">HBB", content[:4])
    if (zeros, kind) != (0, 8):
        raise ValueError(f"{path}: must be an IDX file of bytes, begins with {content[:4].hex()}")
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    values = np.frombuffer(content, np.uint8, math.prod(shape), 4 + 4 * axes)
    return torch.from_numpy(values.reshape(shape).copy())


def upscaled(images: Tensor) -> Tensor:
    """Return 32 by 32 images: 28 by 28 ones get a border, others are interpolated to 28 first."""
    if images.shape[-1] != SIDE - 4:
        size = (SIDE - 4, SIDE - 4)
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
    return F.pad(images, (2, 2, 2, 2))


def ink(images: Tensor) -> sc.SparseTensor:
    """Return the ink pixels alone: about a third of all."""
    return sc.SparseTensor.from_dense(images, images >= INK)


def jittered(images: Tensor, generator: torch.Generator, turn: float = 12.0) -> Tensor:
    """Return each image turned, scaled, slanted and moved a little, in its own way.

    Args:
        images: ``[N, 1, 32, 32]``.
        generator: source of random numbers.
        turn: largest angle, degrees.
    """
    rolls = 2 * torch.rand(6, len(images), generator=generator) - 1
    angle = math.radians(turn) * rolls[0]
    wide, high = 1 + 0.12 * rolls[1], 1 + 0.12 * rolls[2]
    slant = 0.15 * rolls[3]
    cosine, sine = angle.cos(), angle.sin()
    rows = [
        torch.stack([wide * cosine, slant - sine, 0.12 * rolls[4]], dim=1),
        torch.stack([sine, high * cosine, 0.12 * rolls[5]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
