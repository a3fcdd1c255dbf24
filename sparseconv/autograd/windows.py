"""The rules of sums and largest values over windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparseconv import engines
from sparseconv.autograd.rule import Rule, kept_inputs, traceable
from sparseconv.core.private_torch import derived, not_a_view
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines import Engine


class _WindowSum(Rule):
    """Sums over windows by a number; the derivative is the same over the swapped rulebook."""

    @staticmethod
    def forward(features: Tensor, rulebook: Rulebook, divisor: float, engine: Engine) -> Tensor:
        return not_a_view(engine.window_sum(features, rulebook, divisor))

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
        return not_a_view(values), chosen

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

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return what each window chose of the tangent."""
        features, rulebook, engine = kept_inputs(ctx)
        chosen = cls.call(features, rulebook, engine)[1]
        return _WindowPick.call(tangents[0], chosen, rulebook, engine), None


class _WindowPick(Rule):
    """What each window chose, 0 where it holds no row."""

    @staticmethod
    def forward(features: Tensor, chosen: Tensor, rulebook: Rulebook, engine: Engine) -> Tensor:
        return not_a_view(engine.window_pick(features, chosen, rulebook))

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


@traceable
def window_sum(features: Tensor, rulebook: Rulebook, divisor: float = 1) -> Tensor:
    """Return the sums ``[n_out, C]`` of ``features`` ``[n_in, C]`` over windows, by ``divisor``."""
    return _WindowSum.call(features, rulebook, divisor, engines.for_tensor(features))


@traceable
def window_max(features: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the largest value ``[n_out, C]`` of each window, 0 where a window holds no row.

    Of equal values the first, in the order of the kernel cells, gets the gradient, and NaN wins,
    both as in torch's max pooling.
    """
    engine = engines.for_tensor(features)
    if not derived(features):
        return not_a_view(engine.window_max(features, rulebook))
    values: Tensor = _WindowMax.call(features, rulebook, engine)[0]
    return values
