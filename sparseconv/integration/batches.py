"""What a ``torch.utils.data.DataLoader`` makes of samples when it is given no ``collate_fn``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseconv.core.private_torch import default_collate_fn_map
from sparseconv.functional.site_sets.batches import collate
from sparseconv.points.point_map import PointMap
from sparseconv.tensor import SparseTensor


def register() -> None:
    """Let the default collate put sparse samples into one batch, in nested containers too."""
    default_collate_fn_map[SparseTensor] = _collated
    default_collate_fn_map[PointMap] = _collated


def _collated(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    return collate(list(batch))
