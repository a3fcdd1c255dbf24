"""What every autograd rule shares: its call and its door into graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import Arguments, Result, derived, transformed


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
        """Return the forward result (or several), on autograd's tape if a derivative can follow."""
        run: Callable[..., Tensor] = cls.forward
        if transformed():
            run = cls.apply
        elif derived(*args):
            # without PyTorch's look at the signature, which takes longer than all else
            run = super(torch.autograd.Function, cls).apply  # type: ignore[misc]
        return run(*args)
