"""PermutedTensor: a sparse tensor whose channels are not axis 1, as after ``permute(0, 2, 3, 1)``.

Coordinates know nothing of channels, so only the place where they are shown is kept. Functions of
single values, and those over the channels, act on the features as they lie. For every other
function the values move: what is axis 1 then becomes the channels, as in a dense tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparseconv.core.arguments import is_int, plain
from sparseconv.core.dispatch import handler_of, native_names
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.functional.site_sets.axes import axes_to_channels, channels_to_axes, permuted_axes
from sparseconv.tensor import SparseTensor
from sparseconv.tensor.methods import Methods

Meaning = TypeVar("Meaning", bound=Callable[..., Any])
ON_PERMUTED: dict[Callable[..., Any], Callable[..., Any]] = {}

_SAME_AXES = (
    *("to", "cpu", "cuda", "half", "bfloat16", "float", "double", "type_as", "detach"),
    "requires_grad_",
)


def on_permuted(*functions: Callable[..., Any]) -> Callable[[Meaning], Meaning]:
    """Register the decorated function as what ``functions`` do with a permuted tensor among them.

    It is called as ``meaning(function, args, kwargs)``.
    """

    def register(meaning: Meaning) -> Meaning:
        for function in functions:
            ON_PERMUTED[function] = meaning
        return meaning

    return register


class PermutedTensor(Methods):
    """A SparseTensor shown with its channels at another axis, or without them.

    Made by ``permute``, ``transpose``, ``movedim`` and ``unsqueeze(1)``, and, without an axis of
    channels, by ``squeeze(1)`` and reductions over ``dim=1``.

    Attributes:
        values: the tensor, channels first, spatial axes in the order in which they are shown.
        channel_dim: the axis that shows the channels, at least 2; None where none does.
    """

    def __init__(self, values: SparseTensor, channel_dim: int | None) -> None:
        """Show the channels of ``values`` at ``channel_dim``."""
        self.values = values
        self.channel_dim = channel_dim

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense tensor."""
        shape = self.values.shape
        return torch.Size(shape[axis] for axis in self.axes)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def axes(self) -> list[int]:
        """Which axis of ``values`` each axis is."""
        return shown_axes(self.values.ndim, self.channel_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.values.device

    @property
    def requires_grad(self) -> bool:
        """Whether autograd follows the values."""
        return self.values.requires_grad

    def is_floating_point(self) -> bool:
        """Return True: values always are."""
        return True

    def dim(self) -> int:
        """Return the number of axes."""
        return self.ndim

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return the shape, or one entry of it."""
        return self.shape if dim is None else self.shape[dim]

    def dense(self, fill: float = 0) -> Tensor:
        """Return the dense tensor, ``fill`` at inactive sites."""
        dense = self.values.dense(fill)
        return dense[:, 0] if self.channel_dim is None else dense.movedim(1, self.channel_dim)

    def channels_first(self) -> SparseTensor | Tensor:
        """Return the same tensor as one whose channels are axis 1: the first of its spatial axes.

        Dense where no other axis would be left.
        """
        axis_of_channels = self.channel_dim
        features, sites = axes_to_channels(self.values, 1, 0)
        if axis_of_channels is None:
            return features if sites is None else SparseTensor.on_sites(features, sites)
        count = self.values.channels
        # one channel for each cell of the first axis, then for each channel, which become an axis
        if sites is None:
            return SparseTensor.from_dense(
                features.unflatten(1, (-1, count)), _every_cell(self.values, count)
            )
        spread = channels_to_axes(SparseTensor.on_sites(features, sites), (count,))
        order = list(range(1, spread.ndim - 2))
        order.insert(axis_of_channels - 2, 0)
        return permuted_axes(spread, order)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.values.batch_size

    def __repr__(self) -> str:
        """Return the shape, where the channels are, and the number of sites."""
        return (
            f"PermutedTensor(shape={tuple(self.shape)}, channel_dim={self.channel_dim}, "
            f"num_sites={self.values.num_sites}, dtype={self.values.dtype}, "
            f"device={self.values.device})"
        )

    def __neg__(self) -> PermutedTensor:
        """Return ``-self``."""
        return PermutedTensor(-self.values, self.channel_dim)

    def _call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        return run(function, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run what a function does on permuted tensors, or on what they are channels first."""
        return run(function, args, kwargs or {})


def run(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Return what a function does where one of its operands is a permuted tensor."""
    meaning: Callable[..., Any] = ON_PERMUTED.get(function) or run_channels_first
    return meaning(function, args, native_names(kwargs))


def run_channels_first(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    """Return a function of tensors whose channels have become axis 1."""
    args = [_channels_first(operand) for operand in args]
    kwargs = {name: _channels_first(operand) for name, operand in kwargs.items()}
    operands = [*args, *kwargs.values()]
    operands += [entry for operand in operands if isinstance(operand, list) for entry in operand]
    if any(isinstance(operand, SparseTensor) for operand in operands):
        return handler_of(function)(*args, **kwargs)
    return function(*args, **kwargs)


def _channels_first(operand: Any) -> Any:
    if isinstance(operand, list | tuple):
        return [_channels_first(entry) for entry in operand]
    return operand.channels_first() if isinstance(operand, PermutedTensor) else operand


def shown(values: Any, channel_dim: int | None) -> Any:
    """Return a SparseTensor with its channels shown at an axis: itself where that is axis 1."""
    return values if channel_dim == 1 else PermutedTensor(values, channel_dim)


def held(input: Any) -> tuple[SparseTensor, int | None]:
    """Return the values of a tensor of either kind, channels first, and where they are shown."""
    if isinstance(input, PermutedTensor):
        return input.values, input.channel_dim
    return input, 1


def shown_axes(ndim: int, channel_dim: int | None) -> list[int]:
    """Return which axis of a tensor of ``ndim`` axes, channels first, each shown axis is."""
    axes = [0, *range(2, ndim)]
    if channel_dim is not None:
        axes.insert(channel_dim, 1)
    return axes


def axis_number(name: str, axis: Any, count: int) -> int:
    """Return an axis counted from 0; raise unless it is one of ``count``."""
    number = plain(axis)
    if not is_int(number):
        raise SparseConvTypeError(f"{name}: must be an int, got {axis!r}")
    if not -count <= number < count:
        raise SparseConvValueError(f"{name}: must lie in {-count} to {count - 1}, got {number}")
    # by comparison: to a graph whose integers are symbols the place of an axis is a number
    return next(axis for axis in range(count) if axis == number % count)


def _every_cell(x: SparseTensor, length: int) -> Tensor:
    """Return the mask ``[B, length]`` of samples with sites: there every channel is a site."""
    return (x.sites.samples.counts > 0)[:, None].expand(-1, length)


def _same_axes(name: str) -> Callable[..., PermutedTensor]:
    def method(self: PermutedTensor, *args: Any, **kwargs: Any) -> PermutedTensor:
        args = tuple(held(entry)[0] if isinstance(entry, PermutedTensor) else entry
                     for entry in args)  # fmt: skip
        return PermutedTensor(getattr(self.values, name)(*args, **kwargs), self.channel_dim)

    method.__name__, method.__doc__ = name, f"Return ``{name}`` of the values, on the same axes."
    return method


def _operator(function: Callable[..., Any], turned: bool) -> Callable[..., Any]:
    def operate(self: PermutedTensor, other: Any) -> Any:
        operands = (other, self) if turned else (self, other)
        return run(function, operands, {})

    operate.__doc__ = f"Return ``torch.{function.__name__}`` of both."
    return operate


for _name in ("add", "sub", "mul", "truediv"):
    _function = torch.div if _name == "truediv" else getattr(torch, _name)
    setattr(PermutedTensor, f"__{_name}__", _operator(_function, False))
    setattr(PermutedTensor, f"__r{_name}__", _operator(_function, True))
for _name in _SAME_AXES:
    setattr(PermutedTensor, _name, _same_axes(_name))
