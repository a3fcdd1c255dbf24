"""Pooling modules that PyTorch lacks: over four axes, and over all active sites of a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv import functional
from sparseconv.core.arguments import Size
from sparseconv.core.foreign_names import native_keywords
from sparseconv.functional.checks import AnyTensor, Input
from sparseconv.functional.pooling.geometry import check_pooling


class MaxPool4d(torch.nn.Module):
    """Max pooling over four axes; arguments as of ``torch.nn.MaxPool3d``, without indices.

    Takes a SparseTensor (an inactive site counts minus infinity) or a dense tensor
    ``[B, C, T, X, Y, Z]``.

    Raises:
        SparseConvError: an argument that no pooling can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.MaxPool4d(2)(torch.zeros(1, 3, 4, 4, 4, 4)).shape
        torch.Size([1, 3, 2, 2, 2, 2])
    """

    @native_keywords
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        check_pooling(4, kernel_size, stride, padding, dilation)
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, input: AnyTensor) -> AnyTensor:
        """Return :func:`sparseconv.functional.max_pool4d` of ``input``."""
        return functional.max_pool4d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool4d(torch.nn.Module):
    """Average pooling over four axes; arguments as of ``torch.nn.AvgPool3d``.

    Takes a SparseTensor (an inactive site counts as padding does, by ``count_include_pad``) or a
    dense tensor ``[B, C, T, X, Y, Z]``.

    Raises:
        SparseConvError: an argument that no pooling can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.AvgPool4d(2)(torch.zeros(1, 3, 4, 4, 4, 4)).shape
        torch.Size([1, 3, 2, 2, 2, 2])
    """

    @native_keywords
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        check_pooling(4, kernel_size, stride, padding)
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: AnyTensor) -> AnyTensor:
        """Return :func:`sparseconv.functional.avg_pool4d` of ``input``."""
        return functional.avg_pool4d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class GlobalAvgPool(torch.nn.Module):
    """Mean over the active sites of each sample, ``[B, C]``; 0 for a sample without sites.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.GlobalAvgPool()(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """

    def forward(self, input: Input) -> Tensor:
        """Return :func:`sparseconv.functional.global_avg_pool` of ``input``."""
        return functional.global_avg_pool(input)


class GlobalMaxPool(torch.nn.Module):
    """Largest value of the active sites of each sample, ``[B, C]``; 0 for one without sites.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.GlobalMaxPool()(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3])
    """

    def forward(self, input: Input) -> Tensor:
        """Return :func:`sparseconv.functional.global_max_pool` of ``input``."""
        return functional.global_max_pool(input)
