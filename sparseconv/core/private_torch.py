"""PyTorch's private names, looked up at start-up: what lacks one is named with its version."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _private(holder: Any, name: str) -> Any:
    """Return a private name of PyTorch's.

    Raises:
        ImportError: this version of PyTorch lacks it.
    """
    try:
        return getattr(holder, name)
    except AttributeError:
        raise ImportError(
            f"torch: version {torch.__version__} has no {holder.__name__}.{name}, which sparseconv "
            f"needs; use a version that the documentation lists"
        ) from None


# whether one of PyTorch's transforms of functions (``torch.func.grad`` and its like) is at work
transformed: Callable[[], bool] = _private(torch._C, "_are_functorch_transforms_active")
_without_transforms: Callable[[], Any] = _private(torch._C, "_DisableFuncTorch")


def outside_transforms(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the decorated function run as if no transform were at work; its tensors are plain.

    Under a transform every new tensor is wrapped and has no memory of its own.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not transformed():
            return function(*args, **kwargs)
        with _without_transforms():
            return function(*args, **kwargs)

    return wrapper


def dynamic_size() -> Any:
    """Return a size that a graph learns when it runs; called by a fake kernel.

    ``new_dynamic_size`` refuses where ``torch.compile`` was not asked for one graph, though a size
    of that kind is no obstacle; PyTorch's own operators of device meshes go the same way. Where the
    names are missing, plain ``torch.compile`` makes several graphs and all else is the same.
    """
    context = torch.library.get_ctx()
    shapes = getattr(context, "_shape_env", None)
    allocate = getattr(torch._library.fake_impl, "allocate_size", None)
    if shapes is None or allocate is None:
        return context.new_dynamic_size()
    return allocate(shapes)
