"""The rules of the two products, each other's derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, kept_inputs, traceable
from sparseconv.core.private_torch import not_a_view
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines import Engine, Epilogue
from sparseconv.errors import SparseConvTypeError


class _GatherGemmScatter(Rule):
    """``out[o] = sum of features[i] @ weight[k]`` over the pairs ``(k, i, o)``."""

    factors = 2

    @staticmethod
    def forward(features: Tensor, weight: Tensor, rulebook: Rulebook, engine: Engine) -> Tensor:
        return not_a_view(engine.gather_gemm_scatter(features, weight, rulebook))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, weight, rulebook, engine = inputs
        ctx.save_for_backward(features, weight)
        ctx.rulebook, ctx.engine = rulebook, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        d_features = d_weight = None
        if ctx.needs_input_grad[0]:
            d_features = _GatherGemmScatter.call(
                grads[0], weight.transpose(2, 3), ctx.rulebook.transposed, ctx.engine
            )
        if ctx.needs_input_grad[1]:
            d_weight = _GatherGemmReduce.call(
                features, grads[0], ctx.rulebook, weight.shape[1], ctx.engine
            )
        return d_features, d_weight, None, None


class _ScaledGatherGemmScatter(Rule):
    """``out[o] = factor[o] * (sum of features[i] @ weight[k]) + bias`` over the pairs.

    The product is multiplied while it is in the cache, and the gradient is multiplied where it is
    summed for the bias: a factor costs no pass that a bias alone does not. None is 1.
    """

    @staticmethod
    def forward(
        features: Tensor,
        weight: Tensor,
        factor: Tensor | None,
        bias: Tensor | None,
        rulebook: Rulebook,
        engine: Engine,
    ) -> Tensor:
        packed = engine.pack_weight(weight)
        if factor is None or factor.shape[1] == 1:
            epilogue = Epilogue(bias, factor=factor)
            return not_a_view(engine.gather_gemm_epilogue(features, packed, rulebook, epilogue))
        out = engine.gather_gemm_epilogue(features, packed, rulebook, Epilogue())
        return not_a_view(Epilogue(bias, factor=factor).apply(out))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, weight, factor, _, rulebook, engine = inputs
        ctx.save_for_backward(features, weight, factor)
        ctx.rulebook, ctx.engine = rulebook, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, factor = ctx.saved_tensors
        d_features = d_weight = d_bias = None
        # torch's own operators go onto the tape
        engine = engines.get("torch") if torch.is_grad_enabled() else ctx.engine
        if factor is not None:
            scaled, total = engine.scaled_rows(grads[0], factor)
        else:
            scaled = grads[0]
            total = engine.column_sum(scaled) if ctx.needs_input_grad[3] else None
        if ctx.needs_input_grad[0]:
            d_features = _GatherGemmScatter.call(
                scaled, weight.transpose(2, 3), ctx.rulebook.transposed, ctx.engine
            )
        if ctx.needs_input_grad[1]:
            d_weight = _GatherGemmReduce.call(
                features, scaled, ctx.rulebook, weight.shape[1], ctx.engine
            )
        if ctx.needs_input_grad[3]:
            d_bias = total
        return d_features, d_weight, None, d_bias, None, None

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the derivative: the product's, and the tangent of the bias."""
        features, weight, factor, _, rulebook, engine = kept_inputs(ctx)
        parts = []
        if tangents[0] is not None:
            parts.append(cls.call(tangents[0], weight, factor, None, rulebook, engine))
        if tangents[1] is not None:
            parts.append(cls.call(features, tangents[1], factor, None, rulebook, engine))
        total = sum(parts[1:], parts[0]) if parts else None
        if tangents[3] is None:
            return total
        if total is None:
            return tangents[3].expand(rulebook.n_out, -1).clone()
        return total + tangents[3]


class _GatherGemmReduce(Rule):
    """``weight[k] = sum of features[i]^T @ grad[o]`` over the pairs ``(k, i, o)``."""

    factors = 2

    @staticmethod
    def forward(
        features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int, engine: Engine
    ) -> Tensor:
        return not_a_view(engine.gather_gemm_reduce(features, grad, rulebook, groups))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, grad, rulebook, _, engine = inputs
        ctx.save_for_backward(features, grad)
        ctx.rulebook, ctx.engine = rulebook, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, grad = ctx.saved_tensors
        d_features = d_grad = None
        if ctx.needs_input_grad[0]:
            d_features = _GatherGemmScatter.call(
                grad, grads[0].transpose(2, 3), ctx.rulebook.transposed, ctx.engine
            )
        if ctx.needs_input_grad[1]:
            d_grad = _GatherGemmScatter.call(features, grads[0], ctx.rulebook, ctx.engine)
        return d_features, d_grad, None, None, None


@traceable
def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the sparse product, differentiable any number of times.

    Args:
        features: ``[n_in, G * c_in]``.
        weight: ``[K, G, c_in, c_out]``.
        rulebook: the pairs of each kernel cell.

    Returns:
        ``[n_out, G * c_out]``.
    """
    _check_dtypes(features, weight)
    engine = engines.for_tensor(features)
    return _GatherGemmScatter.call(features, weight, rulebook, engine)


@traceable
def scaled_gather_gemm_scatter(
    features: Tensor, weight: Tensor, factor: Tensor | None, bias: Tensor | None, rulebook: Rulebook
) -> Tensor:
    """Return ``factor * product + bias``, differentiable any number of times but by the factor.

    Args:
        features, weight, rulebook: as of :func:`gather_gemm_scatter`.
        factor: ``[n_out, 1]`` or ``[n_out, G * c_out]``, float32 for half precisions; None for 1.
        bias: ``[G * c_out]`` or None.

    Returns:
        ``[n_out, G * c_out]``.
    """
    _check_dtypes(features, weight)
    engine = engines.for_tensor(features)
    return _ScaledGatherGemmScatter.call(features, weight, factor, bias, rulebook, engine)


def _check_dtypes(features: Tensor, weight: Tensor) -> None:
    """Raise where kernels would read the one's numbers as the other's."""
    if features.dtype != weight.dtype:
        raise SparseConvTypeError(
            f"weight: must be {features.dtype} as the features are, got {weight.dtype}; convert "
            f"one of them"
        )
