"""What every autograd rule shares: its call, its door into graphs, whether it is derived."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import Arguments, Result, transformed


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


def not_a_view(result: Tensor) -> Tensor:
    """Return the result in its own memory: autograd lets no view of a rule be changed in place."""
    return result.clone() if result._is_view() else result
