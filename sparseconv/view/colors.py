"""Colours for classes and for values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Colors = npt.NDArray[np.uint8]

# Tableau's twenty, dark ones first, told apart by most colour-blind people when few are used.
CLASSES: Colors = np.array(
    [
        *((196, 196, 190), (230, 150, 70), (33, 145, 190), (90, 170, 105), (215, 45, 140)),
        *((125, 85, 190), (214, 69, 65), (140, 86, 75), (188, 189, 34), (23, 190, 207)),
        *((255, 187, 120), (152, 223, 138), (255, 152, 150), (197, 176, 213), (174, 199, 232)),
        *((196, 156, 148), (247, 182, 210), (219, 219, 141), (158, 218, 229), (120, 120, 120)),
    ],
    np.uint8,
)
# viridis at nine places: its lightness rises evenly
SCALE: Colors = np.array(
    [
        *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
        *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
    ],
    np.uint8,
)
UNKNOWN: Colors = np.array((150, 150, 150), np.uint8)
RIGHT: Colors = np.array((205, 203, 197), np.uint8)
WRONG: Colors = np.array((214, 40, 40), np.uint8)


def of_classes(labels: npt.NDArray[Any]) -> Colors:
    """Return the colour ``[N, 3]`` of each label; grey below 0."""
    colors: Colors = CLASSES[labels % len(CLASSES)]
    colors[labels < 0] = UNKNOWN
    return colors


def of_values(values: npt.NDArray[Any]) -> tuple[Colors, tuple[float, float]]:
    """Return the colour ``[N, 3]`` of each value, and the values at the ends of the scale.

    The ends are where 1 % of the values lie outside: single large ones would leave no contrast.
    """
    numbers = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(numbers, (0.01, 0.99)).tolist() if numbers.size else (0.0, 1.0)
    if high <= low:
        low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
    share = (values - low) / (high - low) if high > low else np.zeros(len(values))
    place = np.clip(np.nan_to_num(share), 0, 1) * (len(SCALE) - 1)
    first = np.minimum(place.astype(np.int64), len(SCALE) - 2)
    rest = (place - first)[:, None]
    mixed = SCALE[first] * (1 - rest) + SCALE[first + 1] * rest
    colors = np.round(mixed).astype(np.uint8)
    colors[~np.isfinite(values)] = UNKNOWN
    return colors, (low, high)
