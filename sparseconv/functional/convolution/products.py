"""What convolutions on sparse input share: the check of a call, its plan, and the product."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.autograd.products import gather_gemm_scatter, scaled_gather_gemm_scatter
from sparseconv.core.arguments import Ints, check_device, check_kind
from sparseconv.core.geometry import Geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.checks import Input, check_same, check_shapes, check_tensors
from sparseconv.functional.convolution.table import CONVOLUTIONS, Convolution
from sparseconv.functional.precision import lowered
from sparseconv.sites.borders import MODES
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


class Plan(NamedTuple):
    """What a convolution on sparse input comes down to.

    Attributes:
        sites: the output's.
        rulebook: the pairs of every kernel cell.
        weight: ``[K, G, c_in, c_out]``, the layer's own in the order of the products.
        geometry: of the layer.
    """

    sites: Sites
    rulebook: Rulebook
    weight: Tensor
    geometry: Geometry


def meaning(convolution: Convolution) -> Callable[..., SparseTensor]:
    """Return what a convolution does on sparse input."""

    def convolve(
        input: SparseTensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        like: SparseTensor | None = None,
        **options: Any,
    ) -> SparseTensor:
        if "padding_mode" in options:
            return _with_borders(convolution, input, weight, bias, args, like, options)
        if options or len(args) > len(convolution.arguments):
            bound = convolution.bind(args, options)
        else:
            bound = dict(zip(convolution.arguments, args, strict=False))
        plan = planned(convolution, input, weight, bias, bound, like)
        return convolved(input, bias, plan)

    return convolve


def _with_borders(
    convolution: Convolution,
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    args: Any,
    like: SparseTensor | None,
    options: dict[str, Any],
) -> SparseTensor:
    """Return a submanifold convolution with sites repeated beyond the ends of its axes."""
    mode = options.pop("padding_mode")
    bound = convolution.bind(args, options)
    target = input if like is None else like
    if mode != "zeros":
        geometry, _ = checked(convolution, input, weight, bias, bound)
        padded: Any = F.pad(cast(Any, input), border_pads(geometry, mode), mode=mode)
        input = padded
        convolution = CONVOLUTIONS["conv"]
    return convolved(input, bias, planned(convolution, input, weight, bias, bound, target))


def border_pads(geometry: Geometry, padding_mode: str) -> list[int]:
    """Return the pads of a submanifold window in PyTorch's order, the last axis first."""
    if padding_mode not in MODES:
        raise SparseConvValueError(
            f"padding_mode: must be 'zeros' or one of {MODES}, got {padding_mode!r}"
        )
    return [pad for pad in reversed(geometry.padding) for _ in range(2)]


def planned(
    convolution: Convolution,
    input: SparseTensor,
    weight: Tensor,
    bias: Tensor | None,
    bound: dict[str, Any],
    like: SparseTensor | None = None,
) -> Plan:
    """Return the plan of a call whose arguments fit each other.

    Args:
        convolution: its line of the table.
        input, weight, bias: of the call.
        bound: the arguments behind them, by name.
        like: a tensor on the output sites, None for those of the site law.
    """
    if not isinstance(input, SparseTensor):
        check_tensors(input, weight, bias)
    sites = input.sites
    geometry, groups = _checked(convolution, input.features, sites.dimensions, weight, bias, bound)
    target = target_sites(like, input)
    found = (sites.inverse if convolution.inverse else sites.convolve)(geometry, target)
    return Plan(*found, cells_first(weight, groups, convolution.transposed), geometry)


def target_sites(like: SparseTensor | None, input: SparseTensor) -> Sites | None:
    """Return the sites of ``like``, on which to compute ``input``'s layer; None for None."""
    if like is None:
        return None
    check_kind("like", like, SparseTensor, "a SparseTensor")
    check_device("like", like, input.device)
    return like.sites


def checked(
    convolution: Convolution,
    input: Input,
    weight: Tensor,
    bias: Tensor | None,
    bound: dict[str, Any],
) -> tuple[Geometry, int]:
    """Return the geometry and the number of groups of a call, on dense or sparse input.

    Raises:
        SparseConvTypeError, SparseConvValueError: arguments that do not fit each other.
    """
    check_tensors(input, weight, bias)
    if isinstance(input, SparseTensor):
        rows, axes = input.features, input.sites.dimensions
    else:
        rows, axes = input, input.ndim - 2
    return _checked(convolution, rows, axes, weight, bias, bound)


def _checked(
    convolution: Convolution,
    rows: Tensor,
    axes: int,
    weight: Tensor,
    bias: Tensor | None,
    bound: dict[str, Any],
) -> tuple[Geometry, int]:
    """Return the same for an input of so many axes, or its rows; checks what may be wrong alone."""
    if not (isinstance(weight, Tensor) and isinstance(bias, _TENSOR_OR_NONE)):
        check_tensors(rows, weight, bias)
    shapes = (
        axes,
        rows.shape[1] if rows.ndim > 1 else 0,
        weight.shape,
        None if bias is None else bias.shape,
    )
    values = tuple(bound.items())
    fitting = _remembered if _are_exact(bound.values()) else _fitting
    found = fitting(convolution, *shapes, values)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and (
            parameter.dtype != rows.dtype or parameter.device != rows.device
        ):
            check_same(name, parameter, rows)
    return found


def check_extent(geometry: Geometry, input: Tensor, like: Input | None) -> Ints:
    """Return the extent of a dense output; raise unless ``like`` lies on the output's grid."""
    shape = geometry.output_shape(tuple(input.shape[2:]))
    if like is not None and (like.shape[0], *like.shape[2:]) != (input.shape[0], *shape):
        raise SparseConvValueError(
            f"like: shape {tuple(like.shape)} is not on the output's grid, batch {input.shape[0]} "
            f"and spatial shape {shape}"
        )
    return shape


def _are_exact(values: Iterable[Any]) -> bool:
    """Return whether equal values are the same in a call, as True and 1.0 are not the same as 1."""
    for value in values:
        entries = value if type(value) is tuple else (value,)
        if not _EXACT.issuperset(map(type, entries)):
            return False
    return True


_EXACT = frozenset((int, str))
_TENSOR_OR_NONE = (Tensor, type(None))


def _fitting(
    convolution: Convolution,
    axes: int,
    channels: int,
    weight: Ints,
    bias: Ints | None,
    values: tuple[tuple[str, Any], ...],
) -> tuple[Geometry, int]:
    """Return geometry and groups, after a look at everything that depends on shapes alone."""
    bound = dict(values)
    groups = check_shapes(
        (axes, channels), weight, bias, bound.get("groups", 1), convolution.axes,
        transposed=convolution.transposed,
    )  # fmt: skip
    return convolution.geometry(weight[2:], bound), groups


# a network makes the same few calls again and again
_remembered = functools.lru_cache(maxsize=512)(_fitting)


def convolved(input: SparseTensor, bias: Tensor | None, plan: Plan) -> SparseTensor:
    """Return the product over the plan's rulebook plus bias, on the plan's sites."""
    out = product(input.features, plan.weight, bias, plan.rulebook)
    return SparseTensor.unchecked(out, plan.sites)


def product(features: Tensor, weight: Tensor, bias: Tensor | None, rulebook: Rulebook) -> Tensor:
    """Return the product over the rulebook plus bias, in autocast's dtype where that is on.

    Args:
        features: ``[n_in, G * c_in]``.
        weight: ``[K, G, c_in, c_out]``, of the same dtype.
        bias: ``[G * c_out]`` or None.
        rulebook: the pairs of each kernel cell.

    Returns:
        ``[n_out, G * c_out]``.
    """
    if torch.is_autocast_enabled(features.device.type):
        features, weight = lowered(features), lowered(weight)
        bias = None if bias is None else lowered(bias)
    if bias is None:
        return gather_gemm_scatter(features, weight, rulebook)
    return scaled_gather_gemm_scatter(features, weight, None, bias, rulebook)


def cells_first(weight: Tensor, groups: int, transposed: bool = False) -> Tensor:
    """Return a weight in torch's layout as ``[K, G, c_in, c_out]``.

    Args:
        weight: ``[G * c_out, c_in, *kernel]``, transposed ``[G * c_in, c_out, *kernel]``.
        groups: G.
        transposed: which of the two.
    """
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.permute(3, 0, 1, 2) if transposed else split.permute(3, 0, 2, 1)
