"""The autograd rules: two products, each other's derivatives; sums over segments; windows.

The engine is chosen once, in the forward pass, and used for every derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparseconv import engines, traced
from sparseconv.engines import Engine, Finish
from sparseconv.engines.protocol import wider
from sparseconv.rulebook import Rulebook, Taps
from sparseconv.transforms import transformed


class Rule(torch.autograd.Function):
    """An autograd rule whose call is typed.

    What a backward pass needs is kept by ``setup_context``, as PyTorch's transforms of functions
    (``torch.func.grad``) ask for.
    """

    @classmethod
    def call(cls, *args: Any) -> Tensor:
        """Return the forward result, on autograd's tape where a derivative can follow."""
        result: Tensor = cls.results(*args)
        return result

    @classmethod
    def results(cls, *args: Any) -> Any:
        """Return the same of a rule with several results."""
        if transformed():
            return cls.apply(*args)  # type: ignore[no-untyped-call]  # torch leaves it so
        if derived(*args):
            # the same without PyTorch's look at the signature, which takes longer than all else
            return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]
        return cls.forward(*args)


def derived(*args: Any) -> bool:
    """Return whether a derivative by one of the arguments can follow, of whatever kind."""
    if forward_ad._current_level >= 0 or transformed():
        return True
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(entry, Tensor) and entry.requires_grad for entry in args)


def _own(result: Tensor) -> Tensor:
    """Return the result in its own memory: autograd lets no view of a rule be changed in place."""
    return result.clone() if result._is_view() else result


class _GatherGemmScatter(Rule):
    """``out[o] = sum of features[i] @ weight[k]`` over the pairs ``(k, i, o)``."""

    @staticmethod
    def forward(features: Tensor, weight: Tensor, rulebook: Rulebook, engine: Engine) -> Tensor:
        return _own(engine.gather_gemm_scatter(features, weight, rulebook))

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
        packed = engine.pack(weight)
        if factor is None or factor.shape[1] == 1:
            finish = Finish(bias, factor=factor)
            return _own(engine.finished_product(features, packed, rulebook, finish))
        out = engine.finished_product(features, packed, rulebook, Finish())
        return _own(Finish(bias, factor=factor).apply(out))

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


class _GatherGemmReduce(Rule):
    """``weight[k] = sum of features[i]^T @ grad[o]`` over the pairs ``(k, i, o)``."""

    @staticmethod
    def forward(
        features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int, engine: Engine
    ) -> Tensor:
        return engine.gather_gemm_reduce(features, grad, rulebook, groups)

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


class _SegmentSum(Rule):
    """Sums over segments of rows; its derivative hands each row its segment's gradient."""

    @staticmethod
    def forward(
        values: Tensor, order: Tensor, starts: Tensor, segment: Tensor, engine: Engine
    ) -> Tensor:
        return _own(engine.segment_sum(values, order, starts))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, order, starts, segment, engine = inputs
        ctx.save_for_backward(order, starts, segment)
        ctx.engine = engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        order, starts, segment = ctx.saved_tensors
        spread = _SegmentGather.call(grads[0], order, starts, segment, ctx.engine)
        return spread, None, None, None, None


class _SegmentGather(Rule):
    """``out[n] = values[segment[n]]``, 0 where the segment is -1; derivative: the sums above."""

    @staticmethod
    def forward(
        values: Tensor,
        order: Tensor,
        starts: Tensor,
        segment: Tensor,
        engine: Engine,
    ) -> Tensor:
        if values.shape[0] == 0:
            return values.new_zeros(segment.numel(), values.shape[1])
        return values[segment].masked_fill_((segment < 0)[:, None], 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, order, starts, segment, engine = inputs
        ctx.save_for_backward(order, starts, segment)
        ctx.engine = engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        order, starts, segment = ctx.saved_tensors
        total = _SegmentSum.call(grads[0], order, starts, segment, ctx.engine)
        return total, None, None, None, None


class _WindowSum(Rule):
    """Sums over windows by a number; the derivative is the same over the swapped rulebook."""

    @staticmethod
    def forward(features: Tensor, rulebook: Rulebook, divisor: float, engine: Engine) -> Tensor:
        return _own(engine.window_sum(features, rulebook, divisor))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, rulebook, divisor, engine = inputs
        ctx.rulebook, ctx.divisor, ctx.engine = rulebook, divisor, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        back = _WindowSum.call(grads[0], ctx.rulebook.transposed, ctx.divisor, ctx.engine)
        return back, None, None, None


class _WindowMax(Rule):
    """The largest value of each window, whose gradient goes to the row that holds it."""

    @staticmethod
    def forward(features: Tensor, rulebook: Rulebook, engine: Engine) -> tuple[Tensor, Tensor]:
        values, chosen = engine.window_argmax(features, rulebook)
        return _own(values), chosen

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.rulebook, ctx.engine = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # it would be a gradient of zeros for what was chosen
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (chosen,) = ctx.saved_tensors
        if grads[0] is None:
            return None, None, None
        return _WindowScatter.call(grads[0], chosen, ctx.rulebook, ctx.engine), None, None


class _WindowPick(Rule):
    """What each window chose, 0 where it holds no row."""

    @staticmethod
    def forward(features: Tensor, chosen: Tensor, rulebook: Rulebook, engine: Engine) -> Tensor:
        return _own(engine.window_pick(features, chosen, rulebook))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, chosen, rulebook, engine = inputs
        ctx.save_for_backward(chosen)
        ctx.rulebook, ctx.engine = rulebook, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (chosen,) = ctx.saved_tensors
        return _WindowScatter.call(grads[0], chosen, ctx.rulebook, ctx.engine), None, None, None


class _WindowScatter(Rule):
    """The adjoint of the pick: each window's value goes to the row that the window chose."""

    @staticmethod
    def forward(values: Tensor, chosen: Tensor, rulebook: Rulebook, engine: Engine) -> Tensor:
        return engine.window_scatter(values, chosen, rulebook)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, chosen, rulebook, engine = inputs
        ctx.save_for_backward(chosen)
        ctx.rulebook, ctx.engine = rulebook, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (chosen,) = ctx.saved_tensors
        return _WindowPick.call(grads[0], chosen, ctx.rulebook, ctx.engine), None, None, None


class _SampleGemm(Rule):
    """``out[o] = sum of shares[h, k, q, o] * features[i] @ weight[k]``, i the row of each tap."""

    @staticmethod
    def forward(
        features: Tensor, shares: Tensor, weight: Tensor, taps: Taps, engine: Engine
    ) -> Tensor:
        return _own(engine.sample_gemm(features, shares, weight, taps))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        features, shares, weight, taps, engine = inputs
        ctx.save_for_backward(features, shares, weight)
        ctx.taps, ctx.engine = taps, engine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        parts = _SampleGemmGrads.results(*ctx.saved_tensors, grads[0], ctx.taps, ctx.engine)
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
                *_SampleGemmGrads.results(*moved, grad, ctx.taps, ctx.engine),
                _SampleGemm.call(*moved, ctx.taps, ctx.engine),
            ]
            for other, part in enumerate(parts):
                if other != place:
                    known = totals[other]
                    totals[other] = part if known is None else known + part
        return *totals, None, None


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the sparse product, differentiable any number of times.

    Args:
        features: ``[n_in, G * c_in]``.
        weight: ``[K, G, c_in, c_out]``.
        rulebook: the pairs of each kernel cell.

    Returns:
        ``[n_out, G * c_out]``.
    """
    if isinstance(rulebook, traced.TracedRulebook):
        return traced.gather_gemm_scatter(features, weight, rulebook)
    engine = engines.for_tensor(features)
    return _GatherGemmScatter.call(features, weight, rulebook, engine)


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
    if isinstance(rulebook, traced.TracedRulebook):
        scaled = traced.gather_gemm_scatter(features, weight, rulebook)
        scaled = scaled if factor is None else scaled * factor
        return (scaled if bias is None else scaled + bias).to(features.dtype)
    engine = engines.for_tensor(features)
    return _ScaledGatherGemmScatter.call(features, weight, factor, bias, rulebook, engine)


def segment_sum(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return the sums ``[S, C]`` of ``values`` ``[N, C]`` over segments, in a fixed order.

    Args:
        values: ``[N, C]``.
        order: rows, those of one segment side by side.
        starts: int64 ``[S + 1]``, where each segment begins in ``order``.
        segment: int64 ``[N]``, the segment of each row, -1 for none.
    """
    return _SegmentSum.call(values, order, starts, segment, engines.for_tensor(values))


def segment_gather(values: Tensor, order: Tensor, starts: Tensor, segment: Tensor) -> Tensor:
    """Return ``values[segment]`` ``[N, C]``, zero where ``segment`` is -1: the sum's adjoint."""
    engine = engines.for_tensor(values)
    return _SegmentGather.call(values, order, starts, segment, engine)


def segment_argmax(values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Return int64 ``[S, C]``: the row of each segment's first largest value, per column."""
    # the values of a transform have no memory that another engine could read
    engine = engines.get("torch") if transformed() else engines.for_tensor(values)
    return engine.segment_argmax(values.detach(), order, starts)


def window_sum(features: Tensor, rulebook: Rulebook, divisor: float = 1) -> Tensor:
    """Return the sums ``[n_out, C]`` of ``features`` ``[n_in, C]`` over windows, by ``divisor``."""
    if isinstance(rulebook, traced.TracedRulebook):
        wide = features.to(wider(features.dtype))
        return (traced.window_sum(wide, rulebook) / divisor).to(features.dtype)
    return _WindowSum.call(features, rulebook, divisor, engines.for_tensor(features))


def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the largest value ``[n_out, C]`` of each window, 0 where a window holds no row.

    Of equal values the first, in the order of the kernel cells, gets the gradient, and NaN wins,
    both as in torch's max pooling.
    """
    if isinstance(rulebook, traced.TracedRulebook):
        return traced.window_max(features, rulebook)
    engine = engines.for_tensor(features)
    if not derived(features):
        return _own(engine.window_max(features, rulebook))
    values: Tensor = _WindowMax.results(features, rulebook, engine)[0]
    return values


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
    if isinstance(taps, traced.TracedTaps):
        return traced.sample_gemm(features, shares, weight, taps)
    return _SampleGemm.call(features, shares, weight, taps, engines.for_tensor(features))
