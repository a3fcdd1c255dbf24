"""Functions that give a plain tensor beside a sparse one, for what is multiplied with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError
from sparseconv.functional.site_sets.broadcast import repeated, repeats
from sparseconv.functional.site_sets.permuted import PermutedTensor, held
from sparseconv.functional.site_sets.shapes import shape_function
from sparseconv.tensor import SparseTensor


def _register_new(name: str) -> None:
    method = getattr(Tensor, name)

    @shape_function(
        method,
        meaning="a plain tensor of the features' dtype and device",
        law="as of a dense tensor",
    )
    def new(input: Any, *args: Any, **kwargs: Any) -> Tensor:
        result: Tensor = method(held(input)[0].features, *args, **kwargs)
        return result


for _name in ("new_empty", "new_zeros", "new_ones", "new_full", "new_tensor"):
    _register_new(_name)


@shape_function(
    Tensor.expand_as,
    meaning="a smaller operand brought to another tensor: dense ones stay dense, a sparse one "
    "repeats at the other's sites",
    law="dense law; a SparseTensor of extent 1 has the other's sites, 0 where it has none itself",
)
def _expand_as(input: Any, other: Any) -> Any:
    if isinstance(input, Tensor):
        return input.expand(other.shape)
    small, large = (
        entry.channels_first() if isinstance(entry, PermutedTensor) else entry
        for entry in (input, other)
    )
    if not isinstance(large, SparseTensor) or not isinstance(small, SparseTensor):
        return _expand(input, *other.shape)
    found = repeats(small.sites, large.sites)
    if small.sites.dense_extent != large.sites.dense_extent and (
        found is None or any(found.second)
    ):
        raise SparseConvValueError(
            f"other: shape {tuple(input.shape)} does not repeat to {tuple(other.shape)}"
        )
    return large.replace(repeated(small, large.sites).expand(-1, large.channels))


@shape_function(
    Tensor.expand,
    torch.broadcast_to,
    meaning="the tensor itself, where the shape is its own",
    law="a SparseTensor repeats by itself when it meets a larger one",
)
def _expand(input: Any, *sizes: Any) -> Any:
    wanted = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(wanted) != input.ndim or any(
        size not in (-1, own) for size, own in zip(wanted, input.shape, strict=True)
    ):
        raise SparseConvNotImplementedError(
            f"sizes: leave expand or broadcast_to out, a SparseTensor of shape "
            f"{tuple(input.shape)} repeats by itself when it meets a larger one; or use expand_as"
        )
    return input
