"""Parts of PyTorch that ask no argument for its meaning, and must for a SparseTensor.

PyTorch's functions ask each argument for ``__torch_function__``; three methods behind
``torch.nn.Module`` and ``torch.utils.checkpoint`` look for dense tensors alone and pass all else by
without a word. Each is put into a shell that acts on a SparseTensor among the arguments and on
nothing else; there is no other place from which a network of PyTorch's own layers can be reached.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function

from sparseconv import nn
from sparseconv.core.private_torch import BackwardHook, CheckpointFunction, tree_leaves
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.tensor import SparseTensor


def register() -> None:
    """Put the three methods into their shells, once."""
    # what a module with a backward hook says of all that is no tensor; it is not so here
    warnings.filterwarnings("ignore", f".*but received {re.escape(str(SparseTensor))}")
    for holder, name, shell in (
        (torch.nn.SyncBatchNorm, "forward", _asking),
        (BackwardHook, "_apply_on_tensors", _with_features),
        (CheckpointFunction, "forward", _refusing),
    ):
        method = getattr(holder, name)
        if not hasattr(method, "__wrapped__"):
            made: Any = functools.wraps(method)(shell(method))
            setattr(holder, name, staticmethod(made) if shell is _refusing else made)
    for name in dir(nn):
        layer = getattr(nn, name)
        if isinstance(layer, type) and issubclass(layer, torch.nn.Module):
            layer.__prepare_scriptable__ = _no_script  # type: ignore[attr-defined]


def _no_script(module: torch.nn.Module) -> None:
    """Refuse ``torch.jit.script``, which asks each module for what to compile.

    Raises:
        SparseConvNotImplementedError: always.
    """
    raise SparseConvNotImplementedError(
        f"torch.jit.script: knows dense tensors alone, {type(module).__name__} takes sparse ones; "
        f"use torch.export.export on a forward that takes (features, coords)"
    )


def _asking(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a module's ``forward`` that asks its input for the meaning first."""

    def asked(self: Any, input: Any) -> Any:
        if has_torch_function((input,)):
            return handle_torch_function(forward, (input,), self, input)
        return forward(self, input)

    return asked


def _with_features(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Return what puts a backward hook's node behind tensors, for features too."""

    def applied(self: Any, fn: Callable[..., Any], args: Any) -> Any:
        if not any(isinstance(entry, SparseTensor) for entry in args):
            return apply(self, fn, args)
        bare = tuple(x.features if isinstance(x, SparseTensor) else x for x in args)
        found, places = apply(self, fn, bare)
        if places is None:
            return args, None
        pairs = zip(args, found, strict=True)
        full = [x.replace(new) if isinstance(x, SparseTensor) else new for x, new in pairs]
        return tuple(full) if type(args) is tuple else type(args)(*full), places

    return applied


def _refusing(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the old checkpoint's ``forward``, which refuses what it would cut off."""

    def refused(ctx: Any, run_function: Any, preserve_rng_state: Any, *args: Any) -> Any:
        _refuse(args)
        outputs = forward(ctx, run_function, preserve_rng_state, *args)
        _refuse(outputs)
        return outputs

    return refused


def _refuse(tree: Any) -> None:
    """Raise where a tree holds a SparseTensor.

    Raises:
        SparseConvNotImplementedError: the old checkpoint sees dense tensors only.
    """
    if any(
        isinstance(x, SparseTensor) for x in tree_leaves(tree, lambda x: type(x) is SparseTensor)
    ):
        raise SparseConvNotImplementedError(
            "torch.utils.checkpoint: use_reentrant=True loses the gradients of a SparseTensor and "
            "of all parameters behind it; give use_reentrant=False"
        )
