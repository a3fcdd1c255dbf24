"""Convolutions: submanifold, regular, transposed and inverse, with spconv's weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparseconv.compat.spconv.constants import Activation, ConvAlgo
from sparseconv.compat.spconv.layers.pairs import Pairs, WindowModule, inverse_pairs_of, pairs_of
from sparseconv.compat.spconv.tensor import SparseConvTensor, expand_nd
from sparseconv.core.arguments import Size
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.convolution.products import product

_ACTIVATIONS: dict[Activation, Callable[..., Tensor]] = {
    Activation.ReLU: lambda x, alpha: torch.relu(x),
    Activation.Sigmoid: lambda x, alpha: torch.sigmoid(x),
    Activation.LeakyReLU: nn.functional.leaky_relu,
}


class SparseConvolution(WindowModule):
    """Base of all convolutions of spconv.

    The weight is ``[C_out, *kernel, C_in]``, as in spconv 2.2 and later. A window of one cell and
    stride 1 reads it as the matrix ``[C_in, C_out]`` of the same memory, as spconv does.

    Args:
        ndim: number of spatial axes, 1 to 4.
        in_channels, out_channels: channel counts.
        kernel_size, stride, padding, dilation, output_padding: int or one per axis.
        groups: must be 1.
        bias: whether to learn a bias.
        subm: output on the input's sites; stride and padding are then without effect.
        transposed: every site that an input reaches.
        inverse: back to the sites that the layer with the same ``indice_key`` read.
        indice_key: under which later layers find this one's sites; checked when it is used again.
        algo, fp32_accum, large_kernel_fast_algo: taken without effect.
        record_voxel_count: whether to keep the largest number of output sites in a buffer.
        act_type, act_alpha, act_beta: an activation behind the layer.
        name: in messages.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no layer can have.
    """

    checkpoint_layout: ClassVar[str] = "spconv"  # as sparseconv.load_checkpoint names it

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        subm: bool = False,
        output_padding: Size = 0,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        act_type: Activation = Activation.None_,
        act_alpha: float = 0,
        act_beta: float = 0,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(name)
        if groups != 1:
            raise SparseConvValueError(
                f"groups: must be 1, as in spconv, got {groups}; torch.nn.Conv3d has groups, on "
                f"x.sparse"
            )
        self.ndim, self.in_channels, self.out_channels = ndim, in_channels, out_channels
        self.kernel_size = expand_nd(ndim, kernel_size)
        self.stride = expand_nd(ndim, stride)
        self.padding = expand_nd(ndim, padding)
        self.dilation = expand_nd(ndim, dilation)
        self.output_padding = expand_nd(ndim, output_padding)
        self.groups, self.subm, self.transposed, self.inverse = groups, subm, transposed, inverse
        self.indice_key, self.algo, self.fp32_accum = indice_key, algo, fp32_accum
        self.act_type, self.act_alpha, self.act_beta = act_type, act_alpha, act_beta
        self.conv1x1 = math.prod(self.kernel_size) == 1 and (subm or math.prod(self.stride) == 1)
        if self.conv1x1 and not subm and any(self.padding):
            raise SparseConvValueError(
                f"padding: must be 0 with kernel_size 1 and stride 1, got {self.padding}"
            )
        self.record_voxels(record_voxel_count and not subm and not inverse, device)
        self.weight_shape = self._weight_shape()
        self.weight = nn.Parameter(torch.empty(self.weight_shape, device=device, dtype=dtype))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        _ = self.geometry  # checks it
        self.reset_parameters()

    def _weight_shape(self) -> list[int]:
        return [self.out_channels, *self.kernel_size, self.in_channels]

    def _weight_cells(self) -> Tensor:
        """Return the weight as ``[K, 1, C_in, C_out]``, a view."""
        cells = self.weight.reshape(self.out_channels, -1, self.in_channels)
        return cells.permute(1, 2, 0)[:, None]

    def _weight_matrix(self) -> Tensor:
        """Return the weight of a window of one cell as ``[C_in, C_out]``."""
        return self.weight.reshape(self.in_channels, self.out_channels)

    def reset_parameters(self) -> None:
        """Draw weight and bias as spconv does, the same numbers from the same seed."""
        fan_in = self.in_channels * math.prod(self.kernel_size)
        gain = nn.init.calculate_gain("leaky_relu", math.sqrt(5))
        bound = math.sqrt(3.0) * (gain / math.sqrt(fan_in))
        with torch.no_grad():
            self.weight.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def is_inverseable(self) -> bool:
        """Return whether an inverse layer can find this one."""
        return self.indice_key is not None and not self.subm

    def forward(
        self, input: SparseConvTensor, add_input: SparseConvTensor | None = None
    ) -> SparseConvTensor:
        """Return the convolution of ``input``, plus ``add_input`` where that is given.

        Raises:
            SparseConvError: channels or dtypes that do not fit; indices that repeat a site or lie
                outside of the shape; a key that was used for another geometry.
        """
        if torch.compiler.is_compiling():  # what a key finds is no part of a graph
            outside: SparseConvTensor = torch.compiler.disable(self.forward)(input, add_input)
            return outside
        features = input.features
        if features.shape[1] != self.in_channels:
            raise SparseConvValueError(
                f"features: must have {self.in_channels} channels, got {features.shape[1]}"
            )
        if self.conv1x1:
            bias = self.bias
            rows = nn.functional.linear(features, self._weight_matrix().T, bias)
            return self._finished(input.replace_feature(rows), add_input)
        pairs = self._pairs(input)
        rows = product(features, self._weight_cells(), self.bias, pairs.rulebook)
        return self._finished(self.output(input, rows, pairs), add_input)

    def _pairs(self, input: SparseConvTensor) -> Pairs:
        if self.inverse:
            return inverse_pairs_of(self, input, tuple(self.kernel_size))
        return pairs_of(self, input, self.geometry, self.subm)

    def _finished(
        self, out: SparseConvTensor, add_input: SparseConvTensor | None
    ) -> SparseConvTensor:
        """Return the output with what is behind the layer: a sum, an activation."""
        if add_input is not None:
            out = out + add_input
        if self.act_type == Activation.None_:
            return out
        return out.replace_feature(_ACTIVATIONS[self.act_type](out.features, self.act_alpha))

    def extra_repr(self) -> str:
        """Return the arguments that are not at their defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        for name, default in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if any(entry != default for entry in getattr(self, name)):
                text += f", {name}={getattr(self, name)}"
        if self.bias is None:
            text += ", bias=False"
        if self.indice_key is not None:
            text += f", indice_key={self.indice_key!r}"
        return text


def is_sparse_conv(module: nn.Module) -> bool:
    """Return whether a module is one of spconv's convolutions."""
    return isinstance(module, SparseConvolution)


SparseConvolutionBase = SparseConvolution

__all__ = ["SparseConvolution", "SparseConvolutionBase", "is_sparse_conv"]
