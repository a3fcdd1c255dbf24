"""A convolution for inference: packed once, and all in one pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseconv import functional
from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.private_torch import ConvNd
from sparseconv.errors import SparseConvTypeError
from sparseconv.functional.convolution.fused import PackedWeight, fused_conv
from sparseconv.functional.convolution.table import line_of
from sparseconv.nn.conv import (
    Conv4d,
    InverseConv1d,
    InverseConv2d,
    InverseConv3d,
    InverseConv4d,
    SubmConv1d,
    SubmConv2d,
    SubmConv3d,
    SubmConv4d,
)

# The function that a module calls.
CALLS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Conv1d: torch.conv1d,
    nn.Conv2d: torch.conv2d,
    nn.Conv3d: torch.conv3d,
    Conv4d: functional.conv4d,
    nn.ConvTranspose1d: torch.conv_transpose1d,
    nn.ConvTranspose2d: torch.conv_transpose2d,
    nn.ConvTranspose3d: torch.conv_transpose3d,
    **dict.fromkeys((SubmConv1d, SubmConv2d, SubmConv3d, SubmConv4d), functional.subm_conv),
    **dict.fromkeys(
        (InverseConv1d, InverseConv2d, InverseConv3d, InverseConv4d), functional.inverse_conv
    ),
}


class FusedConvolution(nn.Module):
    """A convolution with a batch normalisation folded in, and a sum and a ReLU behind it.

    ``relu(norm(convolution(x)) + other)``, in evaluation. The weight is packed at the first call
    and again only when it changes.

    Args:
        convolution: one of PyTorch's or of this library; its weights are copied.
        norm: a batch normalisation with running statistics, or None.
        relu: whether a ReLU follows.

    Raises:
        SparseConvTypeError: ``convolution`` is of another kind, or pads with something else than
            zeros.

    Example:
        >>> import torch, sparseconv as sc
        >>> conv, norm = torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.BatchNorm2d(2).eval()
        >>> x = torch.randn(1, 1, 5, 5)
        >>> fast = sc.nn.FusedConvolution(conv, norm, relu=True)
        >>> torch.allclose(fast(x), torch.relu(norm(conv(x))), atol=1e-6)
        True
    """

    @native_keywords
    def __init__(
        self, convolution: nn.Module, norm: nn.Module | None = None, relu: bool = False
    ) -> None:
        super().__init__()
        if not can_fuse(convolution):
            raise SparseConvTypeError(
                f"convolution: must be one of {', '.join(kind.__name__ for kind in CALLS)} that "
                f"pads with zeros, got {convolution}"
            )
        self.convolution = copy.deepcopy(convolution).eval().requires_grad_(False)
        self.relu = relu
        if norm is not None:
            _fold(self.convolution, norm)
        self._packed = PackedWeight()

    def forward(self, input: Any, other: Any = None, like: Any = None) -> Any:
        """Return ``[B, C_out, *output]``, of the input's kind.

        Args:
            input: ``[B, C_in, *spatial]``, a SparseTensor or dense.
            other: what to add before the ReLU.
            like: a tensor on the output sites, for convolutions of this library.
        """
        layer: Any = self.convolution
        function = CALLS[type(layer)]
        names = line_of(function).arguments
        # what a function takes beyond its module, such as sites=, has its default
        options = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
        if like is not None:
            options["like"] = like
        return fused_conv(
            input,
            function,
            layer.weight,
            layer.bias,
            options,
            self._packed,
            other,
            self.relu,
        )

    def extra_repr(self) -> str:
        """Return whether a ReLU follows."""
        return f"relu={self.relu}"


def can_fuse(module: nn.Module) -> bool:
    """Return whether :class:`FusedConvolution` can stand in for ``module``."""
    return type(module) in CALLS and isinstance(module, ConvNd) and module.padding_mode == "zeros"


def _fold(layer: Any, norm: Any) -> None:
    """Multiply the weight by the normalisation's scale; put its shift into the bias.

    In double precision, so that the fold itself rounds once.
    """
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    weight = layer.weight.detach().double()
    if layer.transposed:  # [C_in, C_out / groups, *kernel]: the groups lie along the input axis
        split = weight.unflatten(0, (layer.groups, -1))
        weight = (split * scale.reshape(layer.groups, 1, -1, *(1,) * (weight.ndim - 2))).flatten(
            0, 1
        )
    else:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    layer.weight = _frozen(weight.to(layer.weight.dtype))
    layer.bias = _frozen(shift.to(layer.weight.dtype))


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)
