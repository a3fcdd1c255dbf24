"""What stays outside of PyTorch's transforms of functions (``torch.func.grad`` and its like).

Under a transform every new tensor is wrapped and has no memory of its own, and nothing that was
made there may outlive it. Sites and rulebooks are no function of what is derived, and are cached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def transformed() -> bool:
    """Return whether a transform is at work."""
    return torch._C._are_functorch_transforms_active()


def outside_transforms(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the decorated function run as if no transform were at work; its tensors are plain."""

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not transformed():
            return function(*args, **kwargs)
        with torch._C._DisableFuncTorch():
            return function(*args, **kwargs)

    return wrapper
