"""The peers that are importable here, doing the same work; none is needed and none installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import sparseconv as sc

try:
    import spconv.pytorch as spconv
    from spconv.core import ConvAlgo
except ImportError:
    spconv = None

Contenders = dict[str, Callable[[], object]]


def _tensor(features: torch.Tensor, coords: torch.Tensor, x: sc.SparseTensor) -> Any:
    shape = list(x.spatial_shape)
    return spconv.SparseConvTensor(features, coords.int(), shape, x.batch_size)


def rulebooks(coords: torch.Tensor, x: sc.SparseTensor) -> Contenders:
    """Return the peers' building of index and submanifold rulebook, as they do it by themselves.

    spconv has no call for it: a convolution of one channel is what shows it best.
    """
    if spconv is None:
        return {}
    layer = spconv.SubMConv3d(1, 1, 3, bias=False, algo=ConvAlgo.Native)
    features = torch.ones(coords.shape[0], 1)

    def run() -> object:
        with torch.no_grad():
            return layer(_tensor(features, coords, x))

    return {"spconv": run}
