"""The one fork between dense and sparse: a table from functions to their sparse meaning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, resolve_name

from sparseconv.errors import SparseConvNotImplementedError

Function = TypeVar("Function", bound=Callable[..., Any])
Options = ParamSpec("Options")
Kind = TypeVar("Kind")

HANDLERS: dict[Callable[..., Any], Callable[..., Any]] = {}


def implements(*functions: Callable[..., Any]) -> Callable[[Function], Function]:
    """Register the decorated function as the sparse meaning of ``functions``."""

    def register(handler: Function) -> Function:
        for function in functions:
            HANDLERS[function] = handler
        return handler

    return register


class Dispatched(Protocol[Options]):
    """A function that returns the kind of tensor that it is given, dense or sparse."""

    def __call__(self, input: Kind, *args: Options.args, **kwargs: Options.kwargs) -> Kind:
        """Call the function."""


def dispatched(
    function: Callable[Concatenate[Tensor, Options], Tensor],
) -> Dispatched[Options]:
    """Let the first argument of ``function`` choose: a sparse tensor goes to its handler.

    The decorated body sees dense tensors only, as the bodies of ``torch.nn.functional`` do.
    """

    @functools.wraps(function)
    def wrapper(input: Any, *args: Any, **kwargs: Any) -> Any:
        if has_torch_function((input,)):
            return handle_torch_function(wrapper, (input,), input, *args, **kwargs)
        return function(input, *args, **kwargs)

    return cast(Dispatched[Options], wrapper)


def dispatch(function: Callable[..., Any], args: Any, kwargs: dict[str, Any] | None) -> Any:
    """Call the sparse meaning of ``function``.

    Raises:
        SparseConvNotImplementedError: it has none.
    """
    handler = HANDLERS.get(function)
    if handler is None:
        name = resolve_name(function) or getattr(function, "__name__", repr(function))
        raise SparseConvNotImplementedError(
            f"{name} has no sparse meaning here; use x.dense() to run it on the dense tensor, or "
            f"x.replace({name.rpartition('.')[2]}(x.features)) to run it on the rows of the "
            f"active sites"
        )
    return handler(*args, **(kwargs or {}))
