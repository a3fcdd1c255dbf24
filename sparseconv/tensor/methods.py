"""The methods of a dense tensor that a SparseTensor has too: each calls the torch function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.dispatch import HANDLERS, REFUSED, handler_of, native_names
from sparseconv.core.foreign_names import TENSOR


def _comparison(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator: as a dense tensor's, it leaves what it cannot compare to Python."""

    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, Number | Tensor | Methods):
            return NotImplemented
        return method(self, other)

    return compare


# asked for by PyTorch where they are there: what a SparseTensor does not have, it must not refuse
_ASKED_FOR = ("is_", "storage", "data_ptr", "untyped_storage")


# of a dense tensor, with a function of their own
_OPERATORS = (
    "__array__",
    *("__iadd__", "__isub__", "__imul__", "__itruediv__"),
    *("__rpow__", "__mod__", "__rmod__", "__floordiv__", "__rfloordiv__"),
)
_NAMED_OPERATORS = {
    "__abs__": "abs",
    "__pow__": "pow",
    "__matmul__": "matmul",
    "__pos__": "positive",
}


def _named(name: str) -> Callable[..., Any]:
    """Return the method ``name`` of a dense tensor, whichever function PyTorch has for it."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._call(_function_of(name), args, kwargs)

    method.__name__ = name
    method.__doc__ = f"Return what ``torch.Tensor.{name}`` is on the active sites, or refuse it."
    return method


@functools.cache
def _function_of(name: str) -> Callable[..., Any]:
    """Return the function behind a method, preferably one with a sparse meaning."""
    found = [getattr(space, name) for space in (torch, F, Tensor) if hasattr(space, name)]
    for table in (HANDLERS, REFUSED):
        for function in found:
            if function in table:
                return function  # type: ignore[no-any-return]
    return found[-1]  # type: ignore[no-any-return]


class Methods:
    """Methods under torch's own names, so that ``x.relu()`` runs on either kind of tensor."""

    is_nested = False  # torch.nn.MultiheadAttention asks before it is refused
    __array_ufunc__ = None  # NumPy's numbers leave `number + x` to x

    __hash__ = object.__hash__

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # those that the loops below make

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what a function does on this tensor, its first argument."""
        return handler_of(function)(self, *args, **native_names(kwargs))

    def contiguous(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the tensor itself: a memory format is of the dense tensor."""
        return self

    def is_contiguous(self, *_args: Any, **_kwargs: Any) -> bool:
        """Return True: :meth:`contiguous` returns the tensor itself."""
        return True

    def pin_memory(self) -> Any:
        """Return the tensor, sites too, in page-locked memory."""
        on_sites = type(self).on_sites  # type: ignore[attr-defined]
        return on_sites(self.features.pin_memory(), self.sites.pinned())

    def share_memory_(self) -> Any:
        """Move features and sites to shared memory, which other processes see; returns itself."""
        for part in (self.features, *self.sites.memory()):
            part.share_memory_()
        return self

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory of features, sites and rulebooks until ``stream`` has used it."""
        for part in (self.features, *self.sites.memory()):
            part.record_stream(stream)

    def element_size(self) -> int:
        """Return the bytes of one feature."""
        size: int = self.features.element_size()
        return size

    def is_pinned(self) -> bool:
        """Return whether the features lie in page-locked memory."""
        pinned: bool = self.features.is_pinned()
        return pinned

    def is_shared(self) -> bool:
        """Return whether the features lie in shared memory."""
        shared: bool = self.features.is_shared()
        return shared


for _name in dir(Tensor):
    _is_new = not _name.startswith(("_", *_ASKED_FOR)) and not hasattr(Methods, _name)
    if _is_new and _name not in TENSOR and callable(getattr(Tensor, _name)):
        setattr(Methods, _name, _named(_name))
for _name in _OPERATORS:
    setattr(Methods, _name, _named(_name))
for _name, _function in _NAMED_OPERATORS.items():
    setattr(Methods, _name, _named(_function))
for _name in ("eq", "ne", "gt", "ge", "lt", "le"):
    setattr(Methods, f"__{_name}__", _comparison(_named(_name)))
