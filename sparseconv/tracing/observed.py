"""Autograd rules as operators, for those who watch operators: profilers, counters, tracers.

An engine works on memory, which no dispatcher sees. So while a profiler or a mode of dispatch runs,
each rule runs inside an operator of its own: its public name and the shapes of its tensors appear,
and a tracer (``torch.func.linearize``, ``make_fx``) notes a call in place of a constant. Next to a
product runs a product of PyTorch's of as many multiplications on tensors without memory (the device
``meta``): that is what counters of FLOPs know.
"""

from __future__ import annotations

import functools
import itertools
import re
import weakref
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.private_torch import get_proxy_mode
from sparseconv.core.rulebook import Rulebook, Taps
from sparseconv.tracing.handles import owner_of

_PUBLIC = {
    "gather_gemm_scatter": "convolution",
    "scaled_gather_gemm_scatter": "convolution",
    "gather_gemm_reduce": "convolution_weight_gradient",
    "sample_gemm": "deformable_convolution",
    "sample_gemm_grads": "deformable_convolution_gradients",
}


class _Call:
    """A rule, and its arguments that are no tensors."""

    def __init__(self, rule: Any, args: tuple[Any, ...]) -> None:
        self.rule = rule
        self.pattern = [Tensor if isinstance(entry, Tensor) else entry for entry in args]

    def run(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the results of the rule's forward pass."""
        given = iter(tensors)
        found = self.rule.forward(
            *(next(given) if entry is Tensor else entry for entry in self.pattern)
        )
        return [found] if isinstance(found, Tensor) else list(found)


_CALLS: weakref.WeakValueDictionary[int, _Call] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def observed(rule: Any, *args: Any) -> Any:
    """Return ``rule.forward(*args)`` by an operator."""
    call, number = _Call(rule, args), next(_numbers)
    _CALLS[number] = call
    tensors = [entry for entry in args if isinstance(entry, Tensor)]
    found = _operator(_name_of(rule))(tensors, owner_of(call, number))
    if get_proxy_mode() is None:
        _count(_name_of(rule), tensors, call.pattern)
    return found[0] if len(found) == 1 else tuple(found)


def _name_of(rule: Any) -> str:
    """Return the public name of a rule: that of its class, in small letters."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", rule.__name__.removeprefix("_")).lower()
    return _PUBLIC.get(name, f"eager_{name}")


@functools.cache
def _operator(name: str) -> Any:
    """Return the operator ``sparseconv::name``."""

    def run(tensors: list[Tensor], handle: Tensor) -> list[Tensor]:
        inputs = {entry.data_ptr() for entry in tensors}
        results = _CALLS[int(handle)].run(tensors)
        return [entry.clone() if entry.data_ptr() in inputs else entry for entry in results]

    schema = "(Tensor[] tensors, Tensor handle) -> Tensor[]"
    return torch.library.custom_op(f"sparseconv::{name}", run, mutates_args=(), schema=schema)


def _count(name: str, tensors: list[Tensor], pattern: list[Any]) -> None:
    """Run a product without memory that has the multiplications of a rule's products."""
    if name not in _PUBLIC.values():
        return
    (pairs,) = [entry for entry in pattern if isinstance(entry, Rulebook | Taps)]
    sizes: tuple[int, Any]
    if isinstance(pairs, Taps):
        weight, rows = tensors[2], pairs.rows
        sizes = rows.shape[1] * rows.shape[3], weight.shape[1:]
    elif name == "convolution":
        sizes = pairs.num_pairs, tensors[1].shape[1:]
    else:
        groups = next(entry for entry in pattern if type(entry) is int)
        channels = tensors[0].shape[1] // groups, tensors[1].shape[1] // groups
        sizes = pairs.num_pairs, (groups, *channels)
    count, (groups, c_in, c_out) = sizes
    left = torch.empty(groups, count, c_in, device="meta")
    torch.bmm(left, torch.empty(groups, c_in, c_out, device="meta"))
