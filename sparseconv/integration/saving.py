"""What ``torch.load`` may make at its default, ``weights_only=True``."""

from __future__ import annotations

from fractions import Fraction

import torch

from sparseconv.core.grid import Grid
from sparseconv.core.index import Groups
from sparseconv.points.point_map import PointMap
from sparseconv.sites.sites import Sites, rebuilt_sites
from sparseconv.tensor import tensor_on_sites


def register() -> None:
    """Name what our pickles call: functions that check what they get, and plain values.

    ``Sites`` are named because they take a state, which they check, too.
    """
    values = [PointMap, Groups, Grid, Fraction]
    torch.serialization.add_safe_globals([tensor_on_sites, rebuilt_sites, Sites, *values])
