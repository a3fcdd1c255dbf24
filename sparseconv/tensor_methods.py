"""The methods of a dense tensor that a SparseTensor has too: each calls the torch function."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.dispatch import HANDLERS, REFUSED, handler_of
from sparseconv.core.foreign_names import TENSOR
from sparseconv.errors import SparseConvNotImplementedError


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that runs the sparse meaning of ``function``."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return handler_of(function)(self, *args, **kwargs)

    method.__doc__ = (
        f"Return ``torch.{function.__name__}`` of this tensor; arguments as of torch's."
    )
    return method


def _comparison(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator: as a dense tensor's, it leaves what it cannot compare to Python."""

    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, Number | Tensor | Methods):
            return NotImplemented
        return method(self, other)

    return compare


# asked for by PyTorch where they are there: what a SparseTensor does not have, it must not refuse
_ASKED_FOR = ("is_", "pin_memory", "share_memory_", "storage", "data_ptr", "untyped_storage")


def _named(name: str) -> Callable[..., Any]:
    """Return the method ``name`` of a dense tensor, whichever function PyTorch has for it."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return handler_of(_function_of(name))(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Return what ``torch.Tensor.{name}`` is on the active sites, or refuse it."
    return method


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

    abs = _method(torch.abs)
    neg = _method(torch.neg)
    sign = _method(torch.sign)
    square = _method(torch.square)
    sqrt = _method(torch.sqrt)
    rsqrt = _method(torch.rsqrt)
    reciprocal = _method(torch.reciprocal)
    exp = _method(torch.exp)
    log = _method(torch.log)
    log1p = _method(torch.log1p)
    round = _method(torch.round)
    floor = _method(torch.floor)
    ceil = _method(torch.ceil)
    clone = _method(torch.clone)
    relu = _method(torch.relu)
    relu_ = _method(torch.relu_)
    sigmoid = _method(torch.sigmoid)
    tanh = _method(torch.tanh)
    softmax = _method(F.softmax)
    log_softmax = _method(F.log_softmax)

    pow = _method(torch.pow)
    clamp = _method(torch.clamp)
    maximum = _method(torch.maximum)
    minimum = _method(torch.minimum)
    add = _method(torch.add)
    sub = _method(torch.sub)
    mul = _method(torch.mul)
    div = _method(torch.div)
    eq = _method(torch.eq)
    ne = _method(torch.ne)
    gt = _method(torch.gt)
    ge = _method(torch.ge)
    lt = _method(torch.lt)
    le = _method(torch.le)
    isnan = _method(torch.isnan)
    isfinite = _method(torch.isfinite)

    sum = _method(torch.sum)
    mean = _method(torch.mean)
    amax = _method(torch.amax)
    amin = _method(torch.amin)
    max = _method(torch.max)
    min = _method(torch.min)
    var = _method(torch.var)
    std = _method(torch.std)
    norm = _method(torch.norm)
    flatten = _method(torch.flatten)

    # refused, each with a word on what to use instead
    reshape = _method(torch.reshape)
    view = _method(torch.Tensor.view)
    permute = _method(torch.permute)
    transpose = _method(torch.transpose)
    squeeze = _method(torch.squeeze)
    unsqueeze = _method(torch.unsqueeze)
    unflatten = _method(torch.unflatten)
    movedim = _method(torch.movedim)
    prod = _method(torch.prod)
    median = _method(torch.median)
    argmax = _method(torch.argmax)
    argmin = _method(torch.argmin)
    sort = _method(torch.sort)
    topk = _method(torch.topk)
    matmul = _method(torch.matmul)
    new = _method(torch.Tensor.new)
    numpy = _method(torch.Tensor.numpy)
    item = _method(torch.Tensor.item)
    tolist = _method(torch.Tensor.tolist)
    __array__ = _method(torch.Tensor.__array__)

    __abs__ = abs
    __pow__ = pow
    __rpow__ = _method(torch.Tensor.__rpow__)
    __mod__ = _method(torch.Tensor.__mod__)
    __rmod__ = _method(torch.Tensor.__rmod__)
    __floordiv__ = _method(torch.Tensor.__floordiv__)
    __rfloordiv__ = _method(torch.Tensor.__rfloordiv__)
    __matmul__ = _method(torch.matmul)
    __pos__ = _method(torch.positive)
    __iadd__ = _method(torch.Tensor.__iadd__)
    __isub__ = _method(torch.Tensor.__isub__)
    __imul__ = _method(torch.Tensor.__imul__)
    __itruediv__ = _method(torch.Tensor.__itruediv__)
    __gt__ = _comparison(gt)
    __ge__ = _comparison(ge)
    __lt__ = _comparison(lt)
    __le__ = _comparison(le)
    __eq__ = _comparison(eq)
    __ne__ = _comparison(ne)
    __hash__ = object.__hash__

    def contiguous(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the tensor itself: a memory format is of the dense tensor."""
        return self

    def is_contiguous(self, *_args: Any, **_kwargs: Any) -> bool:
        """Refuse: only ``torch.nn.SyncBatchNorm`` over several processes asks a network's input.

        Raises:
            SparseConvNotImplementedError: always.
        """
        raise SparseConvNotImplementedError(
            "torch.nn.SyncBatchNorm over several processes has no sparse meaning here; use "
            "torch.nn.BatchNorm (statistics of each process) or torch.nn.GroupNorm (of each sample)"
        )


for _name in dir(Tensor):
    _is_new = not _name.startswith(("_", *_ASKED_FOR)) and not hasattr(Methods, _name)
    if _is_new and _name not in TENSOR and callable(getattr(Tensor, _name)):
        setattr(Methods, _name, _named(_name))
