"""The rules of the deformable product: linear in the features, the shares and the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, kept_inputs, traceable
from sparseconv.core.private_torch import not_a_view
from sparseconv.core.rulebook import Taps
from sparseconv.engines import Engine


class _SampleGemm(Rule):
    """``out[o] = sum of shares[h, k, q, o] * features[i] @ weight[k]``, i the row of each tap."""

    factors = 3

    @staticmethod
    def forward(
        features: Tensor, shares: Tensor, weight: Tensor, taps: Taps, engine: Engine
    ) -> Tensor:
        return not_a_view(engine.sample_gemm(features, shares, weight, taps))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, shares, weight, taps, engine = inputs
        ctx.save_for_backward(features, shares, weight)
        ctx.taps, ctx.engine = taps, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = _SampleGemmGrads.call(*ctx.saved_tensors, grads[0], ctx.taps, ctx.engine)
        return *parts, None, None


class _SampleGemmGrads(Rule):
    """The three gradients of the product above.

    The product is linear in each of its three factors. So the derivative of its gradients in a
    direction is the sum, over the factors, of the gradients with that factor replaced by the
    direction, and these two rules give derivatives of any order.
    """

    @staticmethod
    def forward(
        features: Tensor,
        shares: Tensor,
        weight: Tensor,
        grad: Tensor,
        taps: Taps,
        engine: Engine,
    ) -> tuple[Tensor, ...]:
        return engine.sample_gemm_grads(features, shares, weight, grad, taps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, shares, weight, grad, taps, engine = inputs
        ctx.save_for_backward(features, shares, weight, grad)
        ctx.taps, ctx.engine = taps, engine
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *factors, grad = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * 4
        for place, direction in enumerate(grads):
            if direction is None:
                continue
            moved = [*factors[:place], direction, *factors[place + 1 :]]
            parts = [
                *_SampleGemmGrads.call(*moved, grad, ctx.taps, ctx.engine),
                _SampleGemm.call(*moved, ctx.taps, ctx.engine),
            ]
            for other, part in enumerate(parts):
                if other != place:
                    known = totals[other]
                    totals[other] = part if known is None else known + part
        return *totals, None, None

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the derivatives of the three gradients."""
        inputs = kept_inputs(ctx)
        totals = [torch.zeros_like(entry) for entry in inputs[:3]]
        for place, tangent in enumerate(tangents[:4]):
            if tangent is None:
                continue
            parts = cls.call(*inputs[:place], tangent, *inputs[place + 1 :])
            for other in range(3):
                if other != place:  # a gradient does not depend on its own factor
                    totals[other] = totals[other] + parts[other]
        return tuple(totals)


@traceable
def equal_taps(rows: Tensor, samples: int, outputs: int, n_in: int) -> Taps:
    """Return the taps of a batch whose samples have so many outputs each."""
    return Taps(rows, tuple(outputs * sample for sample in range(samples + 1)), n_in)


@traceable
def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product, differentiable any number of times.

    Args:
        features: ``[n_in, G * c_in]``.
        shares: ``[H, K, Q, n_out]``, what each tap contributes.
        weight: ``[K, G, c_in, c_out]``.
        taps: the rows that are read.

    Returns:
        ``[n_out, G * c_out]``.
    """
    return _SampleGemm.call(features, shares, weight, taps, engines.for_tensor(features))
