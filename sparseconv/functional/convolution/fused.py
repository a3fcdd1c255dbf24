"""Convolution and what follows it - bias, sum, ReLU - in one pass over the output's rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseconv import engines
from sparseconv.core.dispatch import dispatched, implements
from sparseconv.core.private_torch import followed, version
from sparseconv.engines import Epilogue
from sparseconv.functional.convolution.products import planned
from sparseconv.functional.convolution.table import line_of
from sparseconv.functional.precision import lowered
from sparseconv.tensor import SparseTensor


class PackedWeight:
    """A layer's weight as an engine's products take it, packed once for each state of the weight.

    A copy of it, pickled or deep, starts empty.
    """

    def __init__(self) -> None:
        self._source: Tensor | None = None  # kept, so that no other tensor takes its identity
        self._state: tuple[Any, ...] = ()
        self._packed: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the packed numbers behind: they belong to one engine and one tensor."""
        return PackedWeight, ()

    def get(self, source: Tensor, weight: Tensor) -> Any:
        """Return ``weight``, packed for the engine of its device.

        Args:
            source: the parameter; whether it has changed decides whether to pack again.
            weight: ``[K, G, c_in, c_out]``, made of it.
        """
        name = engines.chosen(weight)
        state = (name, weight.dtype, weight.device, source.data_ptr(), version(source))
        if source is not self._source or state != self._state:
            self._packed = engines.get(name).pack_weight(weight)
            self._source, self._state = source, state
        return self._packed


@dispatched
def fused_conv(
    input: Tensor,
    function: Callable[..., Any],
    weight: Tensor,
    bias: Tensor | None,
    options: dict[str, Any],
    packed: PackedWeight,
    other: Any = None,
    relu: bool = False,
) -> Tensor:
    """Return ``relu(function(input, weight, bias, **options) + other)``.

    On sparse input, where no gradient is asked for, each tile of sums gets its bias, sum and ReLU
    before it leaves the cache. The sites are those of ``function``, or the union with the sites
    of ``other``.

    Args:
        input: ``[B, C_in, *spatial]``, a SparseTensor or dense.
        function: a convolution of PyTorch or of this library, a line of ``CONVOLUTIONS``.
        weight, bias, options: its arguments.
        packed: keeps the packed weight from call to call.
        other: what to add, None for nothing.
        relu: whether negative results become 0.
    """
    result: Tensor = _added(function(input, weight, bias, **options), other, relu)
    return result


@implements(fused_conv)
def _sparse_fused_conv(
    input: SparseTensor,
    function: Callable[..., Any],
    weight: Tensor,
    bias: Tensor | None,
    options: dict[str, Any],
    packed: PackedWeight,
    other: Any = None,
    relu: bool = False,
) -> Any:
    if torch.compiler.is_compiling() or _wants_gradient(input, weight, bias, other):
        y = function(input, weight, bias, **options)
        return _added(y, other, relu)
    like = options.get("like")
    bound = {name: value for name, value in options.items() if name != "like"}
    plan = planned(line_of(function), input, weight, bias, bound, like)
    features, ordered = lowered(input.features), lowered(plan.weight)
    channels = ordered.shape[1] * ordered.shape[3]
    rows = None
    if isinstance(other, SparseTensor) and other.sites is plan.sites:
        fits = other.channels == channels and other.dtype == features.dtype
        rows = other.features.contiguous() if fits else None
    at_once = other is None or rows is not None
    epilogue = Epilogue(None if bias is None else lowered(bias), rows, relu and at_once)
    engine = engines.for_tensor(features)
    out = engine.gather_gemm_epilogue(
        features, packed.get(weight, ordered), plan.rulebook, epilogue
    )
    y = SparseTensor.unchecked(out, plan.sites)
    if at_once:
        return y
    return _added(y, other, relu)


def _wants_gradient(*tensors: Any) -> bool:
    """Return whether any of the tensors takes part in a derivative, or somebody looks on."""
    if followed():
        return True
    return torch.is_grad_enabled() and any(
        getattr(tensor, "requires_grad", False) for tensor in tensors
    )


def _added(y: Any, other: Any, relu: bool) -> Any:
    """Return ``relu(y + other)`` by the functions one after the other, for either kind."""
    y = y if other is None else y + other
    return torch.relu(y) if relu else y
