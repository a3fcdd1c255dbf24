"""Sites repeated beyond the ends of an axis, as pads other than zeros do around a dense tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError

Pads = tuple[tuple[int, int], ...]
MODES = ("circular", "reflect", "replicate")


def check_pads(shape: Ints, pads: Pads, mode: str) -> None:
    """Raise unless a dense tensor could be padded so: PyTorch repeats an axis once at most.

    Raises:
        SparseConvValueError: a pad that is too wide for its axis.
    """
    for axis, (length, (low, high)) in enumerate(zip(shape, pads, strict=True)):
        most = {"circular": length, "reflect": length - 1}.get(mode, max(low, high))
        if length > 0 and max(low, high) > most:
            raise SparseConvValueError(
                f"pad: must be at most {most} in mode {mode!r} on axis {2 + axis} of extent "
                f"{length}, got {(low, high)}"
            )


def with_borders(coords: Tensor, shape: Ints, pads: Pads, mode: str) -> tuple[Tensor, Tensor]:
    """Return coordinates in a padded box, those that the borders repeat too, and their rows.

    Args:
        coords: int64 ``[N, 1 + D]``.
        shape: extent per axis.
        pads: cells at the low and at the high end, per axis.
        mode: one of :data:`MODES`.

    Returns:
        ``[M, 1 + D]`` with the padded box's corner at 0, and int64 ``[M]``.
    """
    rows = torch.arange(coords.shape[0], device=coords.device)
    for axis, (length, pad) in enumerate(zip(shape, pads, strict=True)):
        if not any(pad) or length == 0:
            continue
        column = coords[:, 1 + axis]
        places, chosen = [], []
        for here, place in _copies(column, length, pad, mode):
            kept = torch.nonzero(here)[:, 0]
            chosen.append(kept)
            places.append(place[kept] + pad[0])
        which = torch.cat(chosen)
        coords, rows = coords[which], rows[which]
        coords[:, 1 + axis] = torch.cat(places)
    return coords, rows


def _copies(
    column: Tensor, length: int, pad: Sequence[int], mode: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield where sites of an axis are repeated: which ones, and their places from the old 0."""
    low, high = pad
    yield torch.ones_like(column, dtype=torch.bool), column
    if mode == "circular":
        for turn in range(low // -length, 0):
            yield column + turn * length >= -low, column + turn * length
        for turn in range(1, -(high // -length) + 1):
            yield column + turn * length < length + high, column + turn * length
    elif mode == "reflect":
        yield (column > 0) & (column <= low), -column
        last = length - 1
        yield (column < last) & (column >= last - high), 2 * last - column
    else:
        for step in range(1, low + 1):
            yield column == 0, column - step
        for step in range(1, high + 1):
            yield column == length - 1, column + step
