"""What every autograd rule shares: doors into graphs, forward derivatives, maps over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import (
    Arguments,
    Result,
    count_modes,
    derived,
    forward_mode,
    profiled,
    refuse_jit,
    transformed,
)


def traceable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let an operator of :mod:`sparseconv.tracing` run instead while a graph is traced."""
    name = function.__name__

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return DOORS.operators[name](*args, **kwargs)  # type: ignore[no-any-return]
        return function(*args, **kwargs)

    return run


class Rule(torch.autograd.Function):
    """An autograd rule whose call is typed.

    What a backward pass needs is kept by ``setup_context``, as PyTorch's transforms of functions
    (``torch.func.grad``) ask for.

    Attributes:
        factors: the result is linear in each of so many arguments, the first ones. So the
            derivative in a direction is the sum, over these, of the result with that argument
            replaced by the direction.
    """

    factors: ClassVar[int] = 1
    _seen: ClassVar[type[Rule] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Let ``setup_context`` keep the arguments where derivatives are taken forwards."""
        super().__init_subclass__(**options)
        cls._seen = None
        if "setup_context" in cls.__dict__:
            cls.setup_context = staticmethod(_keeping(cls.setup_context))  # type: ignore[method-assign]

    @classmethod
    def call(cls, *args: Any) -> Tensor:
        """Return the forward result (or several), on autograd's tape if a derivative can follow."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            refuse_jit()
        if count_modes() or profiled():
            cls = cls._as_seen()  # noqa: PLW0642 - the same rule, through an operator
        run: Callable[..., Tensor] = cls.forward
        if transformed():
            run = cls.apply
        elif derived(*args):
            # without PyTorch's look at the signature, which takes longer than all else
            run = super(torch.autograd.Function, cls).apply  # type: ignore[misc]
        return run(*args)

    @classmethod
    def _as_seen(cls) -> type[Rule]:
        """Return the rule whose forward pass is one of PyTorch's operators, which others see."""
        if cls._seen is None:
            forward = functools.partial(DOORS.operators["observed"], cls)
            cls._seen = type(cls.__name__, (cls,), {"forward": staticmethod(forward)})
            cls._seen._seen = cls._seen
        return cls._seen

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Any:
        """Return the derivative in the direction of ``tangents``, None for an argument's zero."""
        inputs = kept_inputs(ctx)
        total: Any = None
        for place in range(cls.factors):
            if tangents[place] is not None:
                part = cls.call(*inputs[:place], tangents[place], *inputs[place + 1 :])
                total = part if total is None else total + part
        return total

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """Return the result of each entry of a batch, one after another, and where they lie."""
        results = []
        for entry in range(info.batch_size):
            places = zip(args, in_dims, strict=True)
            results.append(
                cls.call(*(x if axis is None else x.select(axis, entry) for x, axis in places))
            )
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        columns = [torch.stack(column) for column in zip(*results, strict=True)]
        return tuple(columns), (0,) * len(columns)


def kept_inputs(ctx: Any) -> list[Any]:
    """Return the arguments of a rule whose derivative is taken forwards."""
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if entry is Tensor else entry for entry in ctx.kept]


def _keeping(setup: Callable[..., None]) -> Callable[..., None]:
    """Return a ``setup_context`` that keeps all arguments where derivatives are taken forwards."""

    @functools.wraps(setup)
    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup(ctx, inputs, output)
        if forward_mode():
            ctx.save_for_forward(*(entry for entry in inputs if isinstance(entry, Tensor)))
            ctx.kept = [Tensor if isinstance(entry, Tensor) else entry for entry in inputs]

    return keep
