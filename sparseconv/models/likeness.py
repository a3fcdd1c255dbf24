"""Whether a scan is like those that a network learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparseconv.io import Points

LIKE = 1.5  # a scan that differs by this factor is unlike the others
TAILS = (0.02, 0.98)  # shares of the points between which sizes are measured: strays do not count


def sizes_of(points: Points) -> dict[str, float]:
    """Return what a network that was trained on other sizes may not transfer to.

    Args:
        points: with finite positions, one at least.
    """
    low, high = np.quantile(points.xyz.astype(np.float64), TAILS, axis=0)
    across, up = float(max(high[:2] - low[:2])), float(high[2] - low[2])
    return {"extent": across, "height": up}


def spans(scans: Sequence[Points]) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest of each size among scans.

    Args:
        scans: one at least, with finite positions.

    Example:
        >>> import numpy as np, sparseconv as sc
        >>> from sparseconv.models.likeness import spans, unlike
        >>> rooms = [sc.io.Points(np.array([[0.0, 0, 0], [4, 5, 3]]), np.zeros((2, 0)))]
        >>> street = sc.io.Points(np.array([[0.0, 0, 0], [90, 90, 4]]), np.zeros((2, 0)))
        >>> unlike(street, spans(rooms))
        ['extent 86.4, theirs 4.8 to 4.8']
    """
    sizes = [sizes_of(scan) for scan in scans]
    return {name: (min(s[name] for s in sizes), max(s[name] for s in sizes)) for name in sizes[0]}


def unlike(points: Points, seen: Mapping[str, Sequence[float]]) -> list[str]:
    """Return how a scan differs from those that :func:`spans` describes, a phrase each."""
    sizes = sizes_of(points)
    return [
        f"{name} {sizes[name]:.3g}, theirs {low:.3g} to {high:.3g}"
        for name, (low, high) in seen.items()
        if not low / LIKE <= sizes[name] <= high * LIKE
    ]
