"""The one fork between dense and sparse: a table from functions to their sparse meaning."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function, resolve_name

from sparseconv.core.foreign_names import no_keyword
from sparseconv.errors import SparseConvNotImplementedError

Function = TypeVar("Function", bound=Callable[..., Any])
Options = ParamSpec("Options")
Kind = TypeVar("Kind")


class Meaning(NamedTuple):
    """One line of the table of functions: what a function does on sparse input, and by which law.

    Attributes:
        meaning: what it computes.
        law: the rule of DESIGN that it follows, and what is particular about it.
    """

    meaning: str
    law: str


HANDLERS: dict[Callable[..., Any], Callable[..., Any]] = {}
MEANINGS: dict[Callable[..., Any], Meaning] = {}
REFUSED: dict[Callable[..., Any], str] = {}


# NumPy's names of keyword arguments, which PyTorch takes beside its own; NumPy's functions also
# pass out=None on to the methods that they call
NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "out": "out"}


def native_names(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments by PyTorch's own names, without an ``out`` that is None.

    >>> native_names({"axis": 1, "out": None})
    {'dim': 1}
    """
    return {
        NUMPY_NAMES.get(name, name): value
        for name, value in kwargs.items()
        if not (name == "out" and value is None)
    }


def implements(
    *functions: Callable[..., Any], meaning: str = "", law: str = ""
) -> Callable[[Function], Function]:
    """Register the decorated function as the sparse meaning of ``functions``.

    Args:
        functions: PyTorch's or ours.
        meaning, law: their line in the table of functions; PyTorch's need one.
    """

    def register(handler: Function) -> Function:
        for function in functions:
            HANDLERS[function] = handler
        return handler

    if meaning:
        describe(*functions, meaning=meaning, law=law)
    return register


def describe(*functions: Callable[..., Any], meaning: str, law: str) -> None:
    """Give ``functions`` their line in the table of functions."""
    for function in functions:
        MEANINGS[function] = Meaning(meaning, law)


def refuse(*functions: Callable[..., Any], instead: str) -> None:
    """Register ``functions`` as having no sparse meaning.

    Args:
        functions: PyTorch's.
        instead: what to use, the end of a sentence: "use ...".
    """
    for function in functions:
        REFUSED[function] = instead


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
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def wrapper(input: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise no_keyword(name, known)
        if has_torch_function((input,)):
            return handle_torch_function(wrapper, (input,), input, *args, **kwargs)
        return function(input, *args, **kwargs)

    return cast(Dispatched[Options], wrapper)


def handler_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the sparse meaning of ``function``.

    Raises:
        SparseConvNotImplementedError: it has none.
    """
    handler = HANDLERS.get(function)
    if handler is None:
        name = resolve_name(function) or getattr(function, "__name__", repr(function))
        raise SparseConvNotImplementedError(
            f"{name} has no sparse meaning here; {_remedy(function)}"
        )
    return handler


def _remedy(function: Callable[..., Any]) -> str:
    if type(function).__name__ in ("ScriptMethod", "ScriptFunction"):
        return "what torch.jit made takes dense tensors alone; call the module itself"
    if function in REFUSED:
        return f"{REFUSED[function]}; or run it on the dense tensor, x.dense()"
    name = getattr(function, "__name__", "function")
    if name.endswith("_") and not name.endswith("__"):
        return f"use {name[:-1]}, which returns a new tensor, or {name} on x.features"
    return "use it on the dense tensor, x.dense(), or on x.features, a row per active site"
