"""Modules that act on each value alone, or on the channels of each row."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from sparseconv.compat.minkowski.base import Tensor
from sparseconv.core.arguments import check_kind


class MinkowskiModuleBase(nn.Module):
    """Base of the modules."""


class MinkowskiNonlinearityBase(MinkowskiModuleBase):
    """A module of PyTorch's on the features; see ``MODULE`` for its arguments."""

    MODULE: ClassVar[Any] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = self.MODULE(*args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Return the same kind as ``input``."""
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        return input.with_features(self.module(input.F))

    def __repr__(self) -> str:
        """Return the name, as MinkowskiEngine does."""
        return f"{type(self).__name__}()"


_NAMES = [
    "ELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardtanh",
    "Hardswish",
    "LeakyReLU",
    "LogSigmoid",
    "PReLU",
    "ReLU",
    "ReLU6",
    "RReLU",
    "SELU",
    "CELU",
    "GELU",
    "Sigmoid",
    "SiLU",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Softmin",
    "Softmax",
    "LogSoftmax",
    "Dropout",
    "AlphaDropout",
]


def _wrapped(name: str) -> type[MinkowskiNonlinearityBase]:
    """Return the module of a name of ``torch.nn``."""
    members = {
        "MODULE": getattr(nn, name),
        "__doc__": f"``torch.nn.{name}`` on the features; arguments as there.",
        "__module__": __name__,
    }
    return type(f"Minkowski{name}", (MinkowskiNonlinearityBase,), members)


_WRAPPED = {f"Minkowski{name}": _wrapped(name) for name in _NAMES}
globals().update(_WRAPPED)


def __getattr__(name: str) -> Any:
    """Raise for what is not here; type checkers take it for the names above."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class MinkowskiLinear(MinkowskiModuleBase):
    """``torch.nn.Linear`` on the features."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the same kind as ``input``."""
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        return input.with_features(self.linear(input.F))


class MinkowskiSinusoidal(MinkowskiModuleBase):
    """``sin(x @ kernel + bias) * coef`` on the features."""

    def __init__(self, in_channel: int, out_channel: int) -> None:
        super().__init__()
        self.in_channel, self.out_channel = in_channel, out_channel
        self.kernel = nn.Parameter(torch.rand(in_channel, out_channel))
        self.bias = nn.Parameter(torch.rand(1, out_channel))
        self.coef = nn.Parameter(torch.rand(1, out_channel))

    def forward(self, input: Tensor) -> Tensor:
        """Return the same kind as ``input``."""
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        return input.with_features(torch.sin(input.F @ self.kernel + self.bias) * self.coef)


class MinkowskiNetwork(nn.Module):
    """Base of networks that know their number of spatial axes."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.D = D


__all__ = [
    "MinkowskiLinear",
    "MinkowskiModuleBase",
    "MinkowskiNetwork",
    "MinkowskiNonlinearityBase",
    "MinkowskiSinusoidal",
]
__all__ += list(_WRAPPED)
