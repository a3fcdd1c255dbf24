"""What is inside a SparseTensor: the features, for all that walks through containers of tensors.

PyTorch's wrappers look for tensors in what a module takes and returns: distributed training to find
the gradients that it has to sum, checkpoints to find what to keep, transforms of functions to find
what to differentiate. Two kinds of walk are known: trees of nodes (``torch.utils._pytree``) and
dataclasses. A SparseTensor is a node with one leaf, its features, and looks like a dataclass of
``features`` and ``sites``, so that each walk finds the features and keeps the sites.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.core.private_torch import GetAttrKey, register_pytree_node
from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@dataclasses.dataclass
class _Face:
    """The fields that a SparseTensor shows; its constructor takes them by these names.

    The sites come first: who looks for the batch size takes the first size that it finds.
    """

    sites: Any
    features: Any


@dataclasses.dataclass(frozen=True, eq=False)
class _Placed:
    """Where the features of a node lie; equal where the sites are the same, row for row."""

    sites: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Placed) and bool(self.sites.same_as(other.sites))

    def __hash__(self) -> int:
        return hash((self.sites.num_sites, self.sites.dimensions))


class _Fixed(_Placed):
    """Where the features of an argument of an exported program lie, which is for these sites."""

    def __eq__(self, other: object) -> bool:
        """Return True; a program that went on with other sites would compute on its own.

        Raises:
            SparseConvValueError: other sites.
        """
        if isinstance(other, _Placed) and not super().__eq__(other):
            raise SparseConvValueError(
                f"input: the exported program is for the {self.sites.num_sites} sites of its "
                f"example, got a SparseTensor on other sites ({other.sites.num_sites}); export a "
                f"forward that takes (features, coords) for any number of sites"
            )
        return isinstance(other, _Placed)

    __hash__ = _Placed.__hash__


class _Made(NamedTuple):
    """What an exported program returns beside features and coordinates."""

    spatial_shape: tuple[int, ...] | None
    batch_size: int | None


def register() -> None:
    """Tell PyTorch what is inside."""
    SparseTensor.__dataclass_fields__ = _Face.__dataclass_fields__  # type: ignore[attr-defined]
    register_pytree_node(
        SparseTensor,
        _flatten,
        _unflatten,
        serialized_type_name="sparseconv.SparseTensor",
        to_dumpable_context=_dumped,
        from_dumpable_context=_loaded,
        flatten_with_keys_fn=_flatten_with_keys,
    )


def _flatten(x: SparseTensor) -> tuple[list[Any], _Placed | _Made]:
    """Return the leaves, and what else the tensor is made of.

    An exported program has no sites to return: its coordinates are a second leaf then.
    """
    if not torch.compiler.is_exporting():
        return [x.features], _Placed(x.sites)
    if type(x._sites) is Sites:
        return [x.features], _Fixed(x._sites)
    box = x._sites.box
    return [x.features, x._sites.coords], _Made(box.spatial_shape, box.batch_size)


def _flatten_with_keys(x: SparseTensor) -> tuple[list[tuple[Any, Any]], _Placed | _Made]:
    leaves, context = _flatten(x)
    names = [GetAttrKey(name) for name in ("features", "coords")]
    return list(zip(names, leaves, strict=False)), context


def _unflatten(leaves: Any, context: _Placed | _Made) -> SparseTensor:
    """Return the node with other leaves, which may be anything: a shape, an axis, None.

    Raises:
        SparseConvValueError: a matrix that has not one row for each site.
    """
    features, *coords = leaves
    if isinstance(context, _Made):
        return SparseTensor(features, coords[0], context.spatial_shape, context.batch_size)
    sites = context.sites
    if torch.compiler.is_exporting() and isinstance(features, Tensor):
        _check_static(features)
    if isinstance(features, Tensor) and not torch.compiler.is_compiling():
        if features.ndim == 2 and features.shape[0] != sites.num_sites:
            raise SparseConvValueError(
                f"features: must have one row per site, got {features.shape[0]} rows for "
                f"{sites.num_sites} sites"
            )
        sites = sites.to(features.device)
    return SparseTensor.unchecked(features, sites)


def _check_static(features: Tensor) -> None:
    """Raise where an export asks for any number of rows on the sites of its example.

    Raises:
        SparseConvNotImplementedError: a number of rows that is no number.
    """
    if features.ndim == 2 and not isinstance(features.shape[0], int):
        raise SparseConvNotImplementedError(
            "dynamic_shapes: a program that takes a SparseTensor is for the sites of its example; "
            "export a forward that takes (features, coords) for any number of sites"
        )


def _dumped(context: _Placed | _Made) -> Any:
    """Return the context in numbers, for a program's file."""
    if isinstance(context, _Made):
        return [context.spatial_shape, context.batch_size]
    sites = context.sites
    place = [sites.spatial_shape, sites.batch_size, sites.lower]
    return [*place, sites.shared_coords.tolist(), str(sites.shared_coords.dtype)]


def _loaded(numbers: Any) -> _Placed | _Made:
    shape, batch_size, *rest = numbers
    shape = None if shape is None else tuple(shape)
    if not rest:
        return _Made(shape, batch_size)
    lower, rows, dtype = rest
    coords = torch.tensor(rows, dtype=getattr(torch, dtype.removeprefix("torch.")))
    coords = coords.reshape(-1, 1 + len(lower))
    return _Fixed(sites_from_coords(coords, shape, batch_size, tuple(lower)))
