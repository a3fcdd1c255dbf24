"""A tensor without data that knows, axis by axis, which inputs each of its positions reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.private_torch import DisableTorchFunctionSubclass, tree_leaves, tree_map
from sparseconv.errors import SparseConvNotImplementedError
from sparseconv.tools.fields.intervals import Field


@dataclass(frozen=True)
class Axis:
    """One spatial axis of the model's input, as a tensor inside the model shows it.

    Attributes:
        dim: the tensor's dimension that runs along it; None where it has been reduced to a number.
        field: what the positions read.
        size: number of positions.
        merged: whether ``dim`` holds other axes or channels too (after ``flatten``).
    """

    dim: int | None
    field: Field
    size: int
    merged: bool = False

    def everywhere(self) -> Axis:
        """Return the axis of values that each read all its positions."""
        return Axis(None, self.field.everywhere(self.size), 1)


Axes = tuple[Axis, ...]
Rule = Callable[["Call"], Sequence[Axes]]

# what moves or converts a tensor leaves a stand-in as it is
UNCHANGED = {"to", "cpu", "cuda", "type", "type_as", "float", "half", "double", "bfloat16"} | {
    "_to_dense",
    "_to_sites",
}
# functions that take a tensor's shape alone
CONSTANT = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"}


@dataclass
class Trace:
    """Where a stand-in is on its way through a model, and the windows that it met.

    Attributes:
        rule: works out the axes of a call's results.
        names: qualified names of the modules being run, the innermost last.
        leaf: whether the innermost has no children.
        windows: name and axes behind each window so far.
    """

    rule: Rule
    names: list[str] = field(default_factory=list)
    leaf: list[bool] = field(default_factory=list)
    windows: list[tuple[str, Axes]] = field(default_factory=list)

    def record(self, function: str, axes: Axes) -> None:
        """Note a window: by its module's name, with the function's inside a larger module."""
        name = self.names[-1] if self.names else ""
        if not (self.leaf and self.leaf[-1]):
            name = f"{name}.{function}" if name else function
        self.windows.append((name, axes))


@dataclass(frozen=True)
class Call:
    """One call of a function with stand-ins among its arguments.

    Attributes:
        name: the function's, without the underscore of in-place ones.
        args, kwargs: its arguments, stand-ins included.
        inputs: the stand-ins.
        results: the tensors that it returned, on the meta device.
        repeat: calls it again on other meta tensors in the place of the first.
    """

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    inputs: list[StandIn]
    results: list[Tensor]
    repeat: Callable[[Tensor], Any]

    def bind(self, *names: str) -> dict[str, Any]:
        """Return the arguments by name, those given by position included."""
        return dict(zip(names, self.args, strict=False)) | self.kwargs


class StandIn(torch.Tensor):
    """A tensor of a shape and no data; PyTorch's functions take it as any other."""

    axes: Axes
    history: Trace

    @classmethod
    def of(cls, t: Tensor, axes: Axes, trace: Trace) -> StandIn:
        """Return the stand-in for a tensor on the meta device."""
        result = t.as_subclass(cls)
        sized = tuple(
            axis if axis.dim is None or axis.merged else replace(axis, size=t.shape[axis.dim])
            for axis in axes
        )
        result.axes, result.history = sized, trace
        return result

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function without data, and work out what its results read."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, StandIn)]
        written = getattr(function, "__name__", repr(function))
        if written in UNCHANGED:
            return inputs[0]
        plain_args, plain_kwargs = _plain((args, kwargs))
        with DisableTorchFunctionSubclass():
            result = _run(written, function, plain_args, plain_kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not results or written in CONSTANT or written.startswith("new_"):
            return result

        def repeat(t: Tensor) -> Any:
            with DisableTorchFunctionSubclass():
                return function(t, *plain_args[1:], **plain_kwargs)

        call = Call(_spoken(written), args, kwargs, inputs, results, repeat)
        trace = inputs[0].history
        remaining = iter(trace.rule(call))
        wrapped = tree_map(
            lambda leaf: cls.of(leaf, next(remaining), trace) if isinstance(leaf, Tensor) else leaf,
            result,
        )
        if written.endswith("_") and not written.endswith("__") and isinstance(args[0], StandIn):
            args[0].axes = wrapped.axes  # an in-place function's result is its first argument
        return wrapped


def _plain(tree: Any) -> Any:
    """Return the arguments with every tensor on the meta device."""

    def plain(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        with DisableTorchFunctionSubclass():
            return leaf.detach().as_subclass(torch.Tensor).to("meta")

    return tree_map(plain, tree)


def _run(name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call the function on tensors without data."""
    try:
        return function(*args, **kwargs)
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
        raise SparseConvNotImplementedError(
            f"receptive_field: {name} needs the data of a tensor, which a stand-in does not have"
        ) from error


def _spoken(name: str) -> str:
    """Return the name of a function without what marks operators and in-place variants."""
    if name.startswith("__") and name.endswith("__"):
        bare = name.strip("_")
        names = {"iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "truediv": "div"}
        names |= {"radd": "add", "rsub": "sub", "rmul": "mul", "rtruediv": "div", "rpow": "pow"}
        return names.get(bare, bare)
    return name.rstrip("_")


def meet(inputs: Sequence[StandIn], ndim: int) -> Axes:
    """Return the axes of an elementwise result: what the inputs read together."""
    if len(inputs) == 1:
        grown = ndim - inputs[0].ndim
        return tuple(
            axis if axis.dim is None else replace(axis, dim=axis.dim + grown)
            for axis in inputs[0].axes
        )
    return tuple(
        meeting([axes[number] for axes in _aligned(inputs, ndim)])
        for number in range(len(inputs[0].axes))
    )


def _aligned(inputs: Sequence[StandIn], ndim: int) -> list[Axes]:
    """Return the axes with dimensions counted as in the result, which has the most."""
    return [meet([entry], ndim) for entry in inputs]


def meeting(axes: Sequence[Axis]) -> Axis:
    """Return one axis of an elementwise result; where sizes differ, one of them broadcasts."""
    size = max(axis.size for axis in axes)
    longest = next((a for a in axes if a.size == size and a.dim is not None), axes[0])
    field = longest.field if longest.dim is not None else longest.field.everywhere()
    for axis in axes:
        differs = axis.dim != longest.dim or axis.size != size
        field = field.union(axis.field.everywhere(axis.size) if differs else axis.field, size)
    return replace(longest, field=field)
