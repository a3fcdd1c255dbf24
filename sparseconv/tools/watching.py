"""Watch a model run: which function each layer calls, and through which pairs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparseconv.core.rulebook import Rulebook
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution.table import CONVOLUTIONS, Convolution
from sparseconv.functional.pooling.geometry import pool_geometry
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


@dataclass
class Observed:
    """One layer's run.

    Attributes:
        name: the module's qualified name; with the function's behind it outside a leaf module.
        kind: the class or function.
        input, output: what went in and came out, sparse or dense.
        flops, dense_flops: of its products, on the active sites and on the whole grid.
        rulebooks: the pairs that it went through.
        parameters: number of its parameters.
    """

    name: str
    kind: str
    input: Input
    output: Input
    flops: int = 0
    dense_flops: int = 0
    rulebooks: list[Rulebook] = field(default_factory=list)
    parameters: int = 0


class _Watch(TorchFunctionMode):
    """Sees the functions that are called on sparse or dense tensors, outermost calls only."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.layers: list[Observed] = []
        self.open: Observed | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function and note what it did."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, list | tuple) and x:
            x = x[0]
        if isinstance(x, Tensor | SparseTensor) and isinstance(result, Tensor | SparseTensor):
            self._note(getattr(func, "__name__", "function"), x, result, args, kwargs)
        return result

    def _note(
        self, name: str, x: Input, result: Input, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        cost = _cost(name, x, result, args, kwargs)
        layer = self.open
        if layer is None:
            if cost is None and _sites(result) is _sites(x):
                return
            where = self.names[-1] if self.names else ""
            layer = Observed(f"{where}.{name}" if where else name, name, x, result)
            self.layers.append(layer)
        if cost is not None:
            layer.flops += cost[0]
            layer.dense_flops += cost[1]
            layer.rulebooks += cost[2]


@contextmanager
def running_in_eval(
    model: torch.nn.Module,
    enter: Callable[[str, torch.nn.Module, tuple[Any, ...]], None],
    leave: Callable[[Any], None],
) -> Iterator[None]:
    """Let a model run in eval mode, and leave it as it was.

    Args:
        model: whose modules are followed.
        enter: called before each module with its qualified name, itself and its arguments.
        leave: called behind it with its output.
    """
    modes = {module: module.training for module in model.modules()}
    handles = []
    for name, module in model.named_modules():
        before = functools.partial(enter, name)
        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(lambda _, args, output: leave(output)))
    try:
        model.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training


def is_leaf(module: torch.nn.Module) -> bool:
    """Return whether the module has no children."""
    return not any(True for _ in module.children())


@contextmanager
def watching(model: torch.nn.Module) -> Iterator[list[Observed]]:
    """Run a model in eval mode, and list its layers as they run."""
    watch = _Watch()

    def enter(name: str, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        watch.names.append(name)
        if is_leaf(module) and args:
            count = sum(p.numel() for p in module.parameters())
            kind = type(module).__name__
            watch.open = Observed(name or kind, kind, args[0], args[0], parameters=count)
            watch.layers.append(watch.open)

    def leave(output: Any) -> None:
        watch.names.pop()
        if watch.open is not None:
            watch.open.output = output
            watch.open = None

    with running_in_eval(model, enter, leave), torch.no_grad(), watch:
        yield watch.layers


def _cost(
    name: str, x: Input, result: Input, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[int, int, list[Rulebook]] | None:
    """Return a function's FLOPs, those of the dense run, and its pairs; None if it has none."""
    if name == "linear":
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        dense = 2 * math.prod(x.shape) * weight.shape[0]
        return 2 * _values(x) * weight.shape[0], dense, []
    if name in CONVOLUTIONS:
        return _product(CONVOLUTIONS[name], x, result, (args, kwargs))
    if isinstance(x, SparseTensor) and name[:-2] in ("max_pool", "avg_pool", "lp_pool"):
        return 0, 0, [_pool_rulebook(name, x, args, kwargs)]
    return None


def _sites(x: Input) -> Sites | None:
    return x.sites if isinstance(x, SparseTensor) else None


def _values(x: Input) -> int:
    return x.features.numel() if isinstance(x, SparseTensor) else math.prod(x.shape)


def _product(
    line: Convolution, x: Input, result: Input, call: tuple[Sequence[Any], dict[str, Any]]
) -> tuple[int, int, list[Rulebook]]:
    """Return the cost of a convolution of some kind."""
    args, kwargs = call
    bound = dict(zip(("input", "weight", "bias", *line.arguments), args, strict=False)) | kwargs
    weight = bound["weight"]
    grid = x if line.transposed else result
    cells = grid.shape[0] * math.prod(grid.shape[2:])
    dense = 2 * cells * weight.numel()
    if not isinstance(x, SparseTensor):
        return dense, dense, []
    like = bound.get("like")
    route = x.sites.inverse if line.inverse else x.sites.convolve
    geometry = line.geometry(weight.shape[2:], bound)
    _, rulebook = route(geometry, None if like is None else like.sites)
    per_pair = weight.shape[0] * weight.shape[1]
    return 2 * rulebook.num_pairs * per_pair, dense, [rulebook]


def _pool_rulebook(
    name: str, x: SparseTensor, args: Sequence[Any], kwargs: dict[str, Any]
) -> Rulebook:
    """Return the pairs of a pooling over windows."""
    names = {
        "max_pool": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
        "avg_pool": ("kernel_size", "stride", "padding", "ceil_mode"),
        "lp_pool": ("norm_type", "kernel_size", "stride", "ceil_mode"),
    }[name[:-2]]
    bound = dict(zip(("input", *names), args, strict=False)) | kwargs
    window = {key: bound[key] for key in names if key in bound and key != "norm_type"}
    geometry = pool_geometry(tuple(x.shape), x.ndim - 2, **window)
    return x.sites.convolve(geometry)[1]
