"""What is inside a SparseTensor: the features, for all that walks through containers of tensors.

PyTorch's wrappers look for tensors in what a module takes and returns: distributed training to find
the gradients that it has to sum, checkpoints to find what to keep, transforms of functions to find
what to differentiate. Two kinds of walk are known: trees of nodes (``torch.utils._pytree``) and
dataclasses. A SparseTensor is a node with one leaf, its features, and looks like a dataclass of
``features`` and ``sites``, so that each walk finds the features and keeps the sites.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.private_torch import GetAttrKey, register_pytree_node
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@dataclasses.dataclass
class _Face:
    """The fields that a SparseTensor shows; its constructor takes them by these names.

    The sites come first: who looks for the batch size takes the first size that it finds.
    """

    sites: Any
    features: Any


def register() -> None:
    """Tell PyTorch what is inside."""
    SparseTensor.__dataclass_fields__ = _Face.__dataclass_fields__  # type: ignore[attr-defined]
    register_pytree_node(
        SparseTensor,
        _flatten,
        _unflatten,
        serialized_type_name="sparseconv.SparseTensor",
        flatten_with_keys_fn=_flatten_with_keys,
    )


def _flatten(x: SparseTensor) -> tuple[list[Any], Sites]:
    return [x.features], x.sites


def _flatten_with_keys(x: SparseTensor) -> tuple[list[tuple[Any, Any]], Sites]:
    return [(GetAttrKey("features"), x.features)], x.sites


def _unflatten(leaves: Any, sites: Sites) -> SparseTensor:
    """Return the node with another leaf, which may be anything: a shape, an axis, None.

    Raises:
        SparseConvValueError: a matrix that has not one row for each site.
    """
    (features,) = leaves
    if isinstance(features, Tensor) and not torch.compiler.is_compiling():
        if features.ndim == 2 and features.shape[0] != sites.num_sites:
            raise SparseConvValueError(
                f"features: must have one row per site, got {features.shape[0]} rows for "
                f"{sites.num_sites} sites"
            )
        sites = sites.to(features.device)
    return SparseTensor.unchecked(features, sites)
