"""Which sites are there: pruning, union, and values between sites."""

from __future__ import annotations

from typing import Any

from torch import Tensor as TorchTensor

from sparseconv.autograd.segments import place_rows
from sparseconv.compat.minkowski.keys import CoordinateMapKey
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_bools, check_kind
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.sets import prune


class MinkowskiPruning(MinkowskiModuleBase):
    """The rows that a mask keeps, on coordinates of their own."""

    def forward(self, input: SparseTensor, mask: TorchTensor) -> SparseTensor:
        """Return the rows of ``input`` where ``mask``, bool ``[N]``, is True."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        check_bools("mask", mask)
        kept = prune(input.on_sites, mask)
        key = input.coordinate_manager.insert(kept.sites, input.key.key[0], "pruned")
        return input.at(kept.features, key)

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return "MinkowskiPruning()"


class MinkowskiUnion(MinkowskiModuleBase):
    """The sum of several tensors, on the union of their coordinates."""

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        """Return the sum; absent rows count 0."""
        if len(inputs) < 2:  # one is no union
            raise SparseConvValueError(f"inputs: must be at least 2 tensors, got {len(inputs)}")
        first = inputs[0]
        for x in inputs:
            check_kind("inputs", x, SparseTensor, "SparseTensors")
            first.check_manager(x)
        out, manager = CoordinateMapKey(1 + first.D), first.coordinate_manager
        maps = manager.union_map([x.key for x in inputs], out)
        zeros = first.F.new_zeros(manager.size(out), first.shape[1])
        parts = [place_rows(x.F, rows, zeros) for x, (_, rows) in zip(inputs, maps, strict=True)]
        return first.at(sum(parts[1:], parts[0]), out)

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return "MinkowskiUnion()"


class MinkowskiInterpolation(MinkowskiModuleBase):
    """N-linear interpolation at points; an absent site counts 0.

    Args:
        return_kernel_map: whether to return the rows of sites and points that meet, too.
        return_weights: whether to return their weights, too.
    """

    def __init__(self, return_kernel_map: bool = False, return_weights: bool = False) -> None:
        super().__init__()
        self.return_kernel_map, self.return_weights = return_kernel_map, return_weights

    def forward(self, input: SparseTensor, tfield: TorchTensor) -> Any:
        """Return the features at ``tfield``, floating point ``[M, 1 + D]``, batch first."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        found: tuple[Any, ...] = (input.features_at_coordinates(tfield),)
        if self.return_kernel_map or self.return_weights:
            rows, points, weights = input.coordinate_manager.interpolation_map_weight(
                input.key, tfield
            )
            found += ((rows, points),) * self.return_kernel_map + (weights,) * self.return_weights
        return found if len(found) > 1 else found[0]

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return "MinkowskiInterpolation()"


__all__ = ["MinkowskiInterpolation", "MinkowskiPruning", "MinkowskiUnion"]
