"""The operators of a compiled graph, each with its fake kernel and its derivative.

They take handles of sites (``tracing/sites.py``), look the objects up and call the engine; the
derivatives of the products are the products again, as on the eager path.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.geometry import decoded
from sparseconv.core.private_torch import dynamic_size
from sparseconv.core.rulebook import Rulebook
from sparseconv.tracing.handles import living, owning_handle


@torch.library.custom_op("sparseconv::output_sites", mutates_args=())
def output_sites(handle: Tensor, rows: Tensor, geometry: list[int]) -> tuple[Tensor, Tensor]:
    """Return the handle and ``[N, 0]`` of the sites that a layer's site law makes active."""
    child, _ = living(handle).convolve(decoded(geometry))
    return owning_handle(child), rows.new_empty(child.num_sites, 0)


@torch.library.custom_op("sparseconv::parent_sites", mutates_args=())
def parent_sites(handle: Tensor, rows: Tensor, geometry: list[int]) -> tuple[Tensor, Tensor]:
    """Return the handle and ``[N, 0]`` of the sites that the layer to undo read."""
    parent, _ = living(handle).inverse(decoded(geometry))
    return owning_handle(parent), rows.new_empty(parent.num_sites, 0)


@output_sites.register_fake
@parent_sites.register_fake
def _unknown_number_of_sites(
    handle: Tensor, rows: Tensor, geometry: list[int]
) -> tuple[Tensor, Tensor]:
    count = dynamic_size()
    return torch.empty_like(handle), rows.new_empty(count, 0)


@torch.library.custom_op("sparseconv::coordinates", mutates_args=())
def coordinates(rows: Tensor, handle: Tensor, columns: int) -> Tensor:
    """Return the coordinates of sites, int64 ``[N, 1 + D]``."""
    return living(handle).coords.to(torch.int64, copy=True)


@coordinates.register_fake
def _(rows, handle, columns):  # type: ignore[no-untyped-def]
    return rows.new_empty(rows.shape[0], columns, dtype=torch.int64)


def _rulebook(source: Tensor, target: Tensor, geometry: list[int], transposed: bool) -> Rulebook:
    _, rulebook = living(source).convolve(decoded(geometry), like=living(target))
    return rulebook.transposed if transposed else rulebook


@torch.library.custom_op("sparseconv::gather_gemm_scatter", mutates_args=())
def gather_gemm_scatter(
    features: Tensor,
    weight: Tensor,
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
) -> Tensor:
    """Return the sparse product over a rulebook, ``[n_out, G * c_out]``."""
    rulebook = _rulebook(source, target, geometry, transposed)
    return engines.for_tensor(features).gather_gemm_scatter(features, weight, rulebook)


@gather_gemm_scatter.register_fake
def _(features, weight, rows, source, target, geometry, transposed):  # type: ignore[no-untyped-def]
    return features.new_empty(rows.shape[0], weight.shape[1] * weight.shape[3])


@torch.library.custom_op("sparseconv::gather_gemm_reduce", mutates_args=())
def gather_gemm_reduce(
    features: Tensor,
    grad: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
    shape: list[int],
) -> Tensor:
    """Return the weight gradient over a rulebook, ``[K, G, c_in, c_out]``."""
    rulebook = _rulebook(source, target, geometry, transposed)
    weight = engines.for_tensor(features).gather_gemm_reduce(features, grad, rulebook, shape[1])
    return weight.contiguous()  # as the graph was told, whatever layout the engine likes


@gather_gemm_reduce.register_fake
def _(features, grad, source, target, geometry, transposed, shape):  # type: ignore[no-untyped-def]
    return features.new_empty(shape)


def _save_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, weight, rows, source, target, ctx.geometry, ctx.transposed = inputs
    ctx.save_for_backward(features, weight, rows, source, target)


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    features, weight, _, source, target = ctx.saved_tensors
    place = source, target, ctx.geometry
    d_features = d_weight = None
    if ctx.needs_input_grad[0]:
        d_features = gather_gemm_scatter(
            grad, weight.transpose(2, 3), _rows(features), *place, not ctx.transposed
        )
    if ctx.needs_input_grad[1]:
        d_weight = gather_gemm_reduce(features, grad, *place, ctx.transposed, list(weight.shape))
    return d_features, d_weight, None, None, None, None, None


def _save_reduce(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, grad, source, target, ctx.geometry, ctx.transposed, _ = inputs
    ctx.save_for_backward(features, grad, source, target)


def _reduce_backward(ctx: Any, d_weight: Tensor) -> tuple[Any, ...]:
    features, grad, source, target = ctx.saved_tensors
    place = source, target, ctx.geometry
    d_features = d_grad = None
    if ctx.needs_input_grad[0]:
        swapped = d_weight.transpose(2, 3)
        d_features = gather_gemm_scatter(grad, swapped, _rows(features), *place, not ctx.transposed)
    if ctx.needs_input_grad[1]:
        d_grad = gather_gemm_scatter(features, d_weight, _rows(grad), *place, ctx.transposed)
    return d_features, d_grad, None, None, None, None, None


def _rows(features: Tensor) -> Tensor:
    """Return ``[N, 0]``, which carries the number of rows of ``features``."""
    return features.detach()[:, :0]


gather_gemm_scatter.register_autograd(_scatter_backward, setup_context=_save_scatter)
gather_gemm_reduce.register_autograd(_reduce_backward, setup_context=_save_reduce)


@torch.library.custom_op("sparseconv::united_sites", mutates_args=())
def united_sites(
    rows: Tensor, other_rows: Tensor, handle: Tensor, other: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return handle and ``[N, 0]`` of a union, and where each set's rows went."""
    union = living(handle).unite(living(other))
    count = union.sites.num_sites
    return (
        owning_handle(union.sites),
        rows.new_empty(count, 0),
        union.rows.clone(),
        union.other_rows.clone(),
    )


@united_sites.register_fake
def _(rows, other_rows, handle, other):  # type: ignore[no-untyped-def]
    count = dynamic_size()
    places = [side.new_empty(side.shape[0], dtype=torch.int64) for side in (rows, other_rows)]
    return torch.empty_like(handle), rows.new_empty(count, 0), *places


@torch.library.custom_op("sparseconv::padded_cells", mutates_args=())
def padded_cells(rows: Tensor, source: Tensor, target: Tensor, geometry: list[int]) -> Tensor:
    """Return how many cells of each window lie in the padded grid, int64 ``[n_out]``."""
    return living(source).padded_cells(living(target), decoded(geometry))


@padded_cells.register_fake
def _(rows, source, target, geometry):  # type: ignore[no-untyped-def]
    return rows.new_empty(rows.shape[0], dtype=torch.int64)


@torch.library.custom_op("sparseconv::window_sum", mutates_args=())
def window_sum(
    features: Tensor,
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
) -> Tensor:
    """Return the sums over windows, ``[n_out, C]``."""
    rulebook = _rulebook(source, target, geometry, transposed)
    return engines.for_tensor(features).window_sum(features, rulebook, 1)


@torch.library.custom_op("sparseconv::window_argmax", mutates_args=())
def window_argmax(
    features: Tensor,
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
) -> Tensor:
    """Return the kernel cell of each window's first largest value, ``[n_out, C]``."""
    rulebook = _rulebook(source, target, geometry, transposed)
    return engines.for_tensor(features).window_argmax(features, rulebook)[1].long()


@torch.library.custom_op("sparseconv::window_scatter", mutates_args=())
def window_scatter(
    values: Tensor,
    chosen: Tensor,
    rows: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
) -> Tensor:
    """Return each window's value at the row that it chose, ``[n_in, C]``."""
    rulebook = _rulebook(source, target, geometry, transposed)
    return engines.for_tensor(values).window_scatter(values, chosen, rulebook)


@torch.library.custom_op("sparseconv::window_pick", mutates_args=())
def window_pick(
    features: Tensor,
    chosen: Tensor,
    source: Tensor,
    target: Tensor,
    geometry: list[int],
    transposed: bool,
) -> Tensor:
    """Return the value that each window chose, ``[n_out, C]``, 0 in an empty window."""
    rulebook = _rulebook(source, target, geometry, transposed)
    return engines.for_tensor(features).window_pick(features, chosen, rulebook)


@window_sum.register_fake
def _(features, rows, source, target, geometry, transposed):  # type: ignore[no-untyped-def]
    return features.new_empty(rows.shape[0], features.shape[1])


@window_argmax.register_fake
def _(features, rows, source, target, geometry, transposed):  # type: ignore[no-untyped-def]
    return features.new_empty(rows.shape[0], features.shape[1], dtype=torch.int64)


@window_scatter.register_fake
def _(values, chosen, rows, source, target, geometry, transposed):  # type: ignore[no-untyped-def]
    return values.new_empty(rows.shape[0], values.shape[1])


@window_pick.register_fake
def _(features, chosen, source, target, geometry, transposed):  # type: ignore[no-untyped-def]
    return features.new_empty(chosen.shape)


def _save_window_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, _, source, target, ctx.geometry, ctx.transposed = inputs
    ctx.save_for_backward(_rows(features), source, target)


def _window_sum_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rows, source, target = ctx.saved_tensors
    back = window_sum(grad, rows, source, target, ctx.geometry, not ctx.transposed)
    return back, None, None, None, None, None


def _save_window_pick(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, chosen, source, target, ctx.geometry, ctx.transposed = inputs
    ctx.save_for_backward(_rows(features), chosen, source, target)


def _window_pick_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rows, chosen, source, target = ctx.saved_tensors
    back = window_scatter(grad, chosen, rows, source, target, ctx.geometry, ctx.transposed)
    return back, None, None, None, None, None


def _save_window_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, chosen, _, source, target, ctx.geometry, ctx.transposed = inputs
    ctx.save_for_backward(chosen, source, target)


def _window_scatter_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    chosen, source, target = ctx.saved_tensors
    back = window_pick(grad, chosen, source, target, ctx.geometry, ctx.transposed)
    return back, None, None, None, None, None, None


window_sum.register_autograd(_window_sum_backward, setup_context=_save_window_sum)
window_pick.register_autograd(_window_pick_backward, setup_context=_save_window_pick)
window_scatter.register_autograd(_window_scatter_backward, setup_context=_save_window_scatter)
