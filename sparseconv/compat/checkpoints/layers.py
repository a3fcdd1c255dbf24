"""What the layout of a layer's weight depends on, whoever wrote the layer.

Between two layouts a weight is ``[*kernel, G, C_in / G, C_out / G]``, for every kind of layer: the
first axis of the kernel is the first spatial axis, and cell 0 reads the lowest coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from sparseconv.core.arguments import Ints, per_axis

_CONVOLUTIONS = ("in_channels", "out_channels", "kernel_size")


@dataclass(frozen=True)
class Layer:
    """What the layout of a weight depends on.

    Attributes:
        c_in, c_out: channels.
        kernel: size along each axis; without axes for a linear layer.
        groups: G.
        transposed: whether it goes back up, so that torch's weight has the inputs first.
        strided: whether it has a stride.
        submanifold: whether its output sites are its input sites.
    """

    c_in: int
    c_out: int
    kernel: Ints
    groups: int = 1
    transposed: bool = False
    strided: bool = False
    submanifold: bool = False

    @property
    def volume(self) -> int:
        """Number of kernel cells."""
        return prod(self.kernel)

    @property
    def matrix(self) -> bool:
        """Whether spconv and others multiply by it as by one matrix, without a rulebook."""
        return self.volume == 1 and (self.submanifold or not self.strided)

    @property
    def shape(self) -> Ints:
        """The shape between two layouts."""
        share = self.c_in // self.groups, self.c_out // self.groups
        return (*self.kernel, self.groups, *share)


def layer_of(module: torch.nn.Module) -> Layer | None:
    """Return the layer that a module is, None where it has no kernel and is not linear."""
    some: Any = module
    if isinstance(module, torch.nn.Linear):
        return Layer(some.in_features, some.out_features, ())
    if not all(hasattr(module, name) for name in _CONVOLUTIONS):
        return None
    axes = getattr(some, "ndim", None) or len(some.kernel_size)
    kernel = per_axis("kernel_size", some.kernel_size, axes)
    stride = per_axis("stride", getattr(some, "stride", 1), axes)
    submanifold = getattr(some, "subm", type(module).__name__.startswith("Subm"))
    back = bool(getattr(some, "transposed", False) or getattr(some, "inverse", False))
    groups = getattr(some, "groups", 1)
    strided = set(stride) != {1}
    return Layer(
        some.in_channels, some.out_channels, kernel, groups, back, strided, bool(submanifold)
    )
