"""What one writes without a library: sort, search, then gather, ``torch.mm``, ``index_add_``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.peers import Rows
from benchmarks.works import INVERSE, SUBMANIFOLD

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Place:
    """Sites: their coordinates, keys in order, and what was built on them."""

    coords: Tensor
    shape: tuple[int, ...]
    pairs: dict[object, tuple[Place, Pairs]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys, self.order = torch.sort(_pack(self.coords, self.shape))

    def find(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of ``coords`` are sites, and the rows of those."""
        keys = _pack(coords, self.shape)
        at = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        inside = ((coords >= 0) & (coords < coords.new_tensor([2**31, *self.shape]))).all(dim=1)
        found = ((self.keys[at] == keys) & inside).nonzero()[:, 0]
        return found, self.order[at[found]]


def _pack(coords: Tensor, shape: Sequence[int]) -> Tensor:
    key = coords[:, 0]
    for axis, size in enumerate(shape, start=1):
        key = key * size + coords[:, axis]
    return key


class Convolution(nn.Module):
    """One product per kernel cell; ``weight`` is ``[K, C_in, C_out]``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        inward = isinstance(module, INVERSE)
        weight = module.weight.detach().flatten(2).permute(2, *((0, 1) if inward else (1, 0)))
        self.weight = nn.Parameter(weight.contiguous())
        self.bias = None if module.bias is None else nn.Parameter(module.bias.detach().clone())
        self.submanifold, self.inverse = isinstance(module, SUBMANIFOLD), inward
        self.kernel = tuple(module.kernel_size)
        self.stride, self.padding = tuple(module.stride), tuple(module.padding)
        if self.submanifold:
            self.padding = tuple(size // 2 for size in self.kernel)

    def forward(self, x: Rows, like: Rows | None = None) -> Rows:
        """Return the sum over the kernel's cells."""
        place = x.place if like is None else like.place
        target, pairs = self._rulebook(place)
        if self.inverse:
            target, pairs = place, [(rows, sources) for sources, rows in pairs]
        out = x.features.new_zeros(len(target.coords), self.weight.shape[2])
        for weight, (sources, rows) in zip(self.weight, pairs, strict=True):
            out = out.index_add(0, rows, x.features.index_select(0, sources) @ weight)
        return Rows(out if self.bias is None else out + self.bias, target)

    def _rulebook(self, place: Place) -> tuple[Place, Pairs]:
        """Return the output sites, and the rows (in, out) of each kernel cell."""
        key = self.kernel, self.stride, self.padding, self.submanifold
        if key not in place.pairs:
            target = place if self.submanifold else self._reached(place)
            pairs = []
            for cell in itertools.product(*map(range, self.kernel)):
                shift = target.coords.new_tensor([0, *cell])
                first = target.coords * shift.new_tensor([1, *self.stride])
                rows, sources = place.find(first + shift - shift.new_tensor([0, *self.padding]))
                pairs.append((sources, rows))
            place.pairs[key] = target, pairs
        return place.pairs[key]

    def _reached(self, place: Place) -> Place:
        """Return the sites whose window holds one of ``place``."""
        window = zip(place.shape, self.padding, self.kernel, self.stride, strict=True)
        shape = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in window)
        stride = place.coords.new_tensor([1, *self.stride])
        reached = []
        for cell in itertools.product(*map(range, self.kernel)):
            at = (
                place.coords + stride.new_tensor([0, *self.padding]) - stride.new_tensor([0, *cell])
            )
            out = at.div(stride, rounding_mode="floor")
            legal = (out * stride == at) & (out >= 0) & (out < out.new_tensor([2**31, *shape]))
            reached.append(_pack(out[legal.all(dim=1)], shape))
        return Place(_unpack(torch.unique(torch.cat(reached)), shape), shape)


def _unpack(keys: Tensor, shape: Sequence[int]) -> Tensor:
    columns = []
    for size in reversed(shape):
        columns.append(keys % size)
        keys = keys.div(size, rounding_mode="floor")
    return torch.stack([keys, *reversed(columns)], dim=1)


def input(features: Tensor, coords: Tensor, x: sc.SparseTensor, net: nn.Module) -> Rows:
    """Return the sites, sorted by key."""
    return Rows(features, Place(coords.long(), tuple(x.spatial_shape)))


def layer(module: nn.Module) -> nn.Module:
    """Return the layer."""
    return Convolution(module)
