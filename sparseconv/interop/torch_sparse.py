"""PyTorch's sparse COO tensors, both ways; gradients flow through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import came
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.tensor import SparseTensor


def to_torch_sparse(x: SparseTensor) -> Tensor:
    """Return a coalesced COO tensor of the dense shape ``[B, C, *spatial]``.

    Every channel of every active site has an entry, zeros too: sites are not lost.

    Args:
        x: with an extent (no negative coordinates).

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 2), torch.tensor([[0, 3]]), (4,))
        >>> sc.interop.to_torch_sparse(x).to_dense()
        tensor([[[0., 0., 0., 1.],
                 [0., 0., 0., 1.]]])
    """
    indices, values, shape = entries_of(x)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()


def entries_of(x: SparseTensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Return indices ``[2 + D, N * C]``, values ``[N * C]`` and the dense shape.

    Raises:
        SparseConvValueError: Coordinates are negative: there is no dense shape.
    """
    coords = x.coords.long()
    if len(coords) and int(coords.min()) < 0:
        raise SparseConvValueError("x: has negative coordinates; shift them, or crop it first")
    channels = torch.arange(x.channels, device=coords.device)
    spread = coords.repeat_interleave(x.channels, dim=0)
    columns = [spread[:, 0], channels.repeat(len(coords)), *spread[:, 1:].T]
    return torch.stack(columns), x.features.reshape(-1), tuple(x.shape)


def from_torch_sparse(t: Tensor) -> SparseTensor:
    """Return the sites that have an entry in any channel; absent channels are 0.

    Args:
        t: COO ``[B, C, *spatial]`` with floating point values; entries that come twice are summed.

    Raises:
        SparseConvError: Another layout, dtype or number of axes.

    Example:
        >>> import torch, sparseconv as sc
        >>> t = torch.eye(3)[None, None].to_sparse()
        >>> sc.interop.from_torch_sparse(t).num_sites
        3
    """
    if not isinstance(t, Tensor) or t.layout != torch.sparse_coo:
        layout = f" {t.layout}" if isinstance(t, Tensor) else ""
        raise SparseConvTypeError(f"t: must be a COO tensor, got {came(t)}{layout}")
    if t.dense_dim():
        raise SparseConvValueError(
            f"t: must have no dense axes, got {t.dense_dim()}; t.to_dense().to_sparse() has none"
        )
    if t.ndim < 3:
        raise SparseConvValueError(f"t: must be [B, C, *spatial], got {tuple(t.shape)}")
    t = t.coalesce()
    return from_entries(t.indices(), t.values(), tuple(t.shape))


def from_entries(indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> SparseTensor:
    """Return a tensor of entries ``[2 + D, P]`` (sample, channel, *spatial), each once."""
    places = torch.cat([indices[:1], indices[2:]]).T
    coords, rows = torch.unique(places, dim=0, return_inverse=True)
    zeros = values.new_zeros(len(coords), shape[1])
    features = zeros.index_put((rows, indices[1]), values)
    spatial: Any = shape[2:]
    return SparseTensor(features, coords, spatial, shape[0])
