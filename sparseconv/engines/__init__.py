"""The table of engines and the choice among them.

An engine is a module of this package with the functions of :class:`protocol.Engine`. To add one,
write the module and add its line to ``ENGINES``.

protocol: what an engine must do. torch: the plain engine. numba: the CPU engine. memory: the pool
of results. memory_limit: how much of it there may be. memory_pages: what it gives back while it
grows. processors: how many there are, and what
threads do while they wait. control_groups: what a container may use.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
from torch import Tensor

from sparseconv.core.index import Index as Index
from sparseconv.engines.protocol import Engine as Engine
from sparseconv.engines.protocol import Epilogue as Epilogue
from sparseconv.errors import SparseConvTypeError, SparseConvValueError

ENGINES = {
    "numba": "sparseconv.engines.numba.engine",
    "torch": "sparseconv.engines.torch.engine",
}

_forced: ContextVar[str | None] = ContextVar("sparseconv_engine", default=None)


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Run the block on the named engine.

    Args:
        name: a key of ``ENGINES``.

    Raises:
        SparseConvValueError: no engine has this name.

    Example:
        >>> import torch, sparseconv as sc
        >>> with sc.engine("torch"):
        ...     print(sc.engines.chosen(torch.zeros(1)))
        torch
    """
    token = _forced.set(_checked(name))
    try:
        yield
    finally:
        _forced.reset(token)


def get(name: str) -> Engine:
    """Return the module of the named engine."""
    return _module(ENGINES[_checked(name)])


@functools.cache
def _module(name: str) -> Engine:
    """Return a module; every layer asks for one, and importing takes its time even then."""
    return cast(Engine, importlib.import_module(name))


def chosen(x: Tensor) -> str:
    """Return the name of the engine that runs on tensors like ``x``.

    Raises:
        SparseConvTypeError: the engine that was asked for cannot, or none can; with the reason.
    """
    return _choice(asked_for(), x.device, x.dtype)


def for_tensor(x: Tensor) -> Engine:
    """Return the engine that runs on tensors like ``x``."""
    return _module(ENGINES[_choice(asked_for(), x.device, x.dtype)])


def asked_for() -> str | None:
    """Return the engine that the block or the environment asks for, as it is at this moment."""
    return _forced.get() or os.environ.get("SPARSECONV_ENGINE")


@functools.cache  # every layer asks, and the answer stays
def _choice(forced: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """Return the name of the engine that runs on tensors of a kind."""
    if forced:
        reason = get(forced).why_not(device, dtype)
        if reason is not None:
            raise SparseConvTypeError(f"engine: {forced!r} was asked for, but {reason}")
        return forced
    for name in ENGINES:
        if get(name).why_not(device, dtype) is None:
            return name
    raise SparseConvTypeError(f"engine: none can run this tensor: {_explained(device, dtype)}")


def explain(x: Tensor) -> dict[str, str]:
    """Return, for every engine, "can run" or the reason why it cannot run tensors like ``x``.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.engines.explain(torch.zeros(1))["torch"]
        'can run'
    """
    return _explained(x.device, x.dtype)


def _explained(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    return {name: get(name).why_not(device, dtype) or "can run" for name in ENGINES}


def _checked(name: str) -> str:
    if name not in ENGINES:
        raise SparseConvValueError(f"engine: must be one of {sorted(ENGINES)}, got {name!r}")
    return name
