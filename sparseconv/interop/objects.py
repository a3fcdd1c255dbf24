"""Objects: sites that hang together."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.errors import SparseConvValueError
from sparseconv.interop.scipy_sparse import neighbours
from sparseconv.tensor import SparseTensor

NONE = -1


def components(
    x: SparseTensor, labels: Tensor | None = None, kernel_size: int = 3, smallest: int = 1
) -> tuple[Tensor, int]:
    """Return which object each site belongs to: sites joined by a chain of neighbours.

    Samples are never joined. Objects are numbered by their first site, in the order of the rows.

    Args:
        x: any sparse tensor.
        labels: ``[N]`` whole numbers, one a site: sites of different labels are never joined, those
            below 0 belong to no object.
        kernel_size: odd: sites are neighbours in a window of this size (3: corners touch).
        smallest: objects of fewer sites are none.

    Returns:
        int64 ``[N]``, -1 for no object, and the number of objects.

    Raises:
        SparseConvError: SciPy is not installed; labels that do not fit; an even kernel.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(4, 1), torch.tensor([[0, 1], [0, 2], [0, 5], [0, 6]]))
        >>> sc.components(x)
        (tensor([0, 0, 1, 1]), 2)
        >>> sc.components(x, torch.tensor([7, 8, 8, -1]))
        (tensor([ 0,  1,  2, -1]), 3)
    """
    adjacency = neighbours(x, kernel_size)
    graph: Any = importlib.import_module("scipy.sparse.csgraph")
    kept = np.ones(x.num_sites, bool)
    if labels is not None:
        kinds = _labels(labels, x.num_sites)
        kept = kinds >= 0
        pairs = adjacency.tocoo()
        rows, columns = pairs.coords
        same = (kinds[rows] == kinds[columns]) & kept[rows]
        shape = adjacency.shape
        adjacency = type(pairs)((pairs.data[same], (rows[same], columns[same])), shape=shape)
    _, found = graph.connected_components(adjacency.tocsr(), directed=False)
    counts = np.bincount(found[kept], minlength=1)
    kept &= counts[found.clip(max=len(counts) - 1)] >= smallest
    names, first, places = np.unique(found[kept], return_index=True, return_inverse=True)
    number = np.empty(len(names), np.int64)
    number[np.argsort(first)] = np.arange(len(names))
    objects = np.full(x.num_sites, NONE, np.int64)
    objects[kept] = number[places.reshape(-1)]
    return torch.from_numpy(objects).to(x.device), len(names)


def _labels(labels: Any, rows: int) -> Any:
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape != (rows,) or values.dtype.kind not in "biu":
        raise SparseConvValueError(
            f"labels: must be whole numbers ({rows},), one a site, got {values.dtype} "
            f"{values.shape}"
        )
    return values.astype(np.int64)
