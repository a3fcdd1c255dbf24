"""The operators of deformable convolution in a compiled graph; see ``tracing/operators.py``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.geometry import decoded
from sparseconv.core.private_torch import dynamic_size
from sparseconv.core.rulebook import Taps
from sparseconv.tracing.handles import living


@torch.library.custom_op("sparseconv::row_order", mutates_args=())
def row_order(rows: Tensor, handle: Tensor) -> Tensor:
    """Return the rows in ascending order of their sites, int64 ``[N]``."""
    order = living(handle).index.order
    return torch.arange(rows.shape[0], device=rows.device) if order is None else order.clone()


@row_order.register_fake
def _(rows, handle):  # type: ignore[no-untyped-def]
    return rows.new_empty(rows.shape[0], dtype=torch.int64)


@torch.library.custom_op("sparseconv::tap_rows", mutates_args=())
def tap_rows(
    cells: Tensor, source: Tensor, target: Tensor, guides: list[Tensor], geometry: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the rows that each sample position lies between, and where each sample's begin.

    Int32 ``[H, K, Q, n_out]`` and int64 ``[B + 1]``.
    """
    sites = living(target)
    guiding = [living(guide) for guide in guides]
    taps = living(source).taps(cells, decoded(geometry), sites, guiding)
    return taps.rows, cells.new_tensor(taps.splits, dtype=torch.int64)


@tap_rows.register_fake
def _(cells, source, target, guides, geometry):  # type: ignore[no-untyped-def]
    groups, kernel, axes, count = cells.shape
    samples = dynamic_size()
    rows = cells.new_empty(groups, kernel, 2**axes, count, dtype=torch.int32)
    return rows, cells.new_empty(samples, dtype=torch.int64)


def _taps(features: Tensor, rows: Tensor, splits: Tensor) -> Taps:
    return Taps(rows, tuple(splits.tolist()), features.shape[0])


@torch.library.custom_op("sparseconv::sample_gemm", mutates_args=())
def sample_gemm(
    features: Tensor, shares: Tensor, weight: Tensor, rows: Tensor, splits: Tensor
) -> Tensor:
    """Return the deformable product, ``[n_out, G * c_out]``."""
    taps = _taps(features, rows, splits)
    return engines.for_tensor(features).sample_gemm(features, shares, weight, taps)


@sample_gemm.register_fake
def _(features, shares, weight, rows, splits):  # type: ignore[no-untyped-def]
    return features.new_empty(rows.shape[3], weight.shape[1] * weight.shape[3])


@torch.library.custom_op("sparseconv::sample_gemm_grads", mutates_args=())
def sample_gemm_grads(
    features: Tensor,
    shares: Tensor,
    weight: Tensor,
    grad: Tensor,
    rows: Tensor,
    splits: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the product by its three factors."""
    taps = _taps(features, rows, splits)
    engine = engines.for_tensor(features)
    by_features, by_shares, by_weight = engine.sample_gemm_grads(
        features, shares, weight, grad, taps
    )
    return by_features.contiguous(), by_shares.contiguous(), by_weight.contiguous()


@sample_gemm_grads.register_fake
def _(features, shares, weight, grad, rows, splits):  # type: ignore[no-untyped-def]
    by_features, by_shares, by_weight = (t.new_empty(t.shape) for t in (features, shares, weight))
    return by_features, by_shares, by_weight


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *factors, rows, splits = ctx.saved_tensors
    return *sample_gemm_grads(*factors, grad, rows, splits), None, None


sample_gemm.register_autograd(_backward, setup_context=_save)
