"""Partial convolution and pooling; the mask comes with each call, and a layer remembers none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseconv import functional
from sparseconv.core.arguments import Size
from sparseconv.core.foreign_names import native_keywords
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.errors import SparseConvTypeError
from sparseconv.functional.checks import Input
from sparseconv.functional.convolution.masked import Masked
from sparseconv.functional.convolution.masks import check_normalize
from sparseconv.nn.conv import _Conv


def _takes_pairs(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a layer's ``forward(input, mask)`` take a pair as its input, and return one for it."""

    @functools.wraps(forward)
    def run(self: Any, input: Any, mask: Tensor | None = None, **options: Any) -> Any:
        if not isinstance(input, tuple):
            return forward(self, input, mask, **options)
        if len(input) != 2 or mask is not None:
            raise SparseConvTypeError(
                f"input: must be a tensor, or a pair (x, mask) and no mask beside it, got a tuple "
                f"of {len(input)}"
            )
        return Masked(*forward(self, *input, **options))

    return run


class _PartialConv(_Conv):
    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        normalize: str = "ratio",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the layer; see the class."""
        check_normalize(normalize)
        window = (kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, device, dtype)
        self.normalize = normalize

    @_takes_pairs
    def forward(self, input: Input, mask: Tensor | None = None, like: Input | None = None) -> Any:
        """Return :func:`sparseconv.functional.partial_conv` of ``input``.

        Args:
            input: ``[B, C_in, *spatial]``, dense or a SparseTensor; or a pair ``(x, mask)``, as a
                chain of layers hands it on.
            mask: bool, dense ``[B, 1 or C_in, *spatial]`` (a batch of 1 is for every sample),
                sparse ``[N, C_in]``; every value is valid where it is left out.
            like: a tensor on whose sites to compute, instead of those of the site law.

        Returns:
            y, or ``(y, mask)`` where a mask was given.
        """
        window = (self.stride, self.padding, self.dilation, self.groups)
        valid = (mask, self.normalize)
        return functional.partial_conv(input, self.weight, self.bias, *window, *valid, like=like)


class PartialConv1d(_PartialConv):
    """Partial convolution over one axis; arguments as of :class:`PartialConv2d`."""

    dimensions = 1


class PartialConv2d(_PartialConv):
    """Partial convolution over two axes: a window's valid values stand in for its missing ones.

    ``layer(x, mask) -> (y, mask)`` on a dense tensor; ``layer(x) -> y`` on a SparseTensor, whose
    sites are the mask, and on a dense tensor without holes (partial convolution as padding: in the
    place of ``torch.nn.Conv2d`` it reweights the border alone). Weights as of
    ``torch.nn.Conv2d``, whose state it loads.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride, padding, dilation: as of ``torch.nn.Conv2d``.
        groups: divides both channel counts.
        bias: whether to learn a bias; it does not reach places without any valid value.
        normalize: ``"ratio"`` or ``"mean"``, see :func:`sparseconv.functional.partial_conv`.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no convolution can have.

    Source:
        Liu et al. 2018, "Image Inpainting for Irregular Holes Using Partial Convolutions".

    Example:
        >>> import torch, sparseconv as sc
        >>> image, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8) < 0.5
        >>> y, mask = sc.nn.PartialConv2d(3, 4, 3, stride=2, padding=1)(image, mask)
        >>> y.shape, mask.shape
        (torch.Size([1, 4, 4, 4]), torch.Size([1, 1, 4, 4]))
    """

    dimensions = 2


class PartialConv3d(_PartialConv):
    """Partial convolution over three axes; arguments as of :class:`PartialConv2d`."""

    dimensions = 3


class _SubmPartialConv(_Conv):
    kind = Kind.SUBMANIFOLD

    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        normalize: str = "ratio",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the layer; see the class."""
        check_normalize(normalize)
        window = (kernel_size, 1, 0, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, device, dtype)
        self.normalize = normalize

    @_takes_pairs
    def forward(self, input: Input, mask: Tensor | None = None, like: Input | None = None) -> Any:
        """Return :func:`sparseconv.functional.subm_partial_conv` of ``input``.

        Args:
            input: ``[B, C_in, *spatial]``, dense or a SparseTensor.
            mask, like: as of :meth:`PartialConv2d.forward`.

        Returns:
            y, or ``(y, mask)`` where a mask was given.
        """
        window, valid = (self.dilation, self.groups), (mask, self.normalize)
        return functional.subm_partial_conv(
            input, self.weight, self.bias, *window, *valid, like=like
        )


class SubmPartialConv1d(_SubmPartialConv):
    """Submanifold partial convolution over one axis; see :class:`SubmPartialConv3d`."""

    dimensions = 1


class SubmPartialConv2d(_SubmPartialConv):
    """Submanifold partial convolution over two axes; see :class:`SubmPartialConv3d`."""

    dimensions = 2


class SubmPartialConv3d(_SubmPartialConv):
    """Submanifold partial convolution over three axes: the output sites are the input sites.

    A submanifold convolution whose sums do not depend on how many neighbours happen to be there.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size: int or one per axis, odd.
        dilation: int or one per axis.
        groups: divides both channel counts.
        bias: whether to learn a bias.
        normalize: ``"ratio"`` or ``"mean"``, see :func:`sparseconv.functional.partial_conv`.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an even kernel, groups that do not divide the channels.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 4), torch.tensor([[0, 1, 1, 1], [0, 5, 5, 5]]))
        >>> sc.nn.SubmPartialConv3d(4, 8, 3)(x).sites is x.sites
        True
    """

    dimensions = 3


class _PartialConvTranspose(_Conv):
    transposed_weight = True

    @native_keywords
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        normalize: str = "ratio",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the layer; see the class."""
        check_normalize(normalize)
        window = (kernel_size, stride, padding, dilation)
        super().__init__(in_channels, out_channels, *window, groups, bias, device, dtype)
        self.output_padding = make_geometry(
            self.kernel_size,
            stride=stride,
            dilation=dilation,
            output_padding=output_padding,
            kind=Kind.TRANSPOSED,
        ).output_padding
        self.normalize = normalize

    @_takes_pairs
    def forward(self, input: Input, mask: Tensor | None = None, like: Input | None = None) -> Any:
        """Return :func:`sparseconv.functional.partial_conv_transpose` of ``input``.

        Args:
            input: ``[B, C_in, *spatial]``, dense or a SparseTensor.
            mask, like: as of :meth:`PartialConv2d.forward`.

        Returns:
            y, or ``(y, mask)`` where a mask was given.
        """
        padding: Any = self.padding  # torch's type allows names that only its convolution takes
        window = (self.stride, padding, self.output_padding, self.groups, self.dilation)
        valid = (mask, self.normalize)
        return functional.partial_conv_transpose(
            input, self.weight, self.bias, *window, *valid, like=like
        )


class PartialConvTranspose1d(_PartialConvTranspose):
    """Partial transposed convolution over one axis; see :class:`PartialConvTranspose2d`."""

    dimensions = 1


class PartialConvTranspose2d(_PartialConvTranspose):
    """Partial transposed convolution over two axes; arguments as of ``torch.nn.ConvTranspose2d``.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride, padding, output_padding, groups, bias, dilation: as of torch's.
        normalize: ``"ratio"`` or ``"mean"``.
        device, dtype: of the parameters.

    Raises:
        SparseConvError: an argument that no transposed convolution can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> image, mask = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8) < 0.5
        >>> y, mask = sc.nn.PartialConvTranspose2d(3, 4, 2, stride=2)(image, mask)
        >>> y.shape, mask.shape
        (torch.Size([1, 4, 16, 16]), torch.Size([1, 1, 16, 16]))
    """

    dimensions = 2


class PartialConvTranspose3d(_PartialConvTranspose):
    """Partial transposed convolution over three axes; see :class:`PartialConvTranspose2d`."""

    dimensions = 3


class PartialMaxPool(torch.nn.Module):
    """Max pooling over valid values, 1 to 3 axes; the mask is max-pooled.

    Args:
        kernel_size, stride, padding, dilation: as of ``torch.nn.MaxPool2d``.

    Example:
        >>> import torch, sparseconv as sc
        >>> y, mask = sc.nn.PartialMaxPool(2)(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8) > 0)
        >>> y.shape, mask.shape
        (torch.Size([1, 3, 4, 4]), torch.Size([1, 1, 4, 4]))
    """

    @native_keywords
    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation

    @_takes_pairs
    def forward(self, input: Input, mask: Tensor | None = None) -> Any:
        """Return :func:`sparseconv.functional.partial_max_pool` of ``input``."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return functional.partial_max_pool(input, *window, mask)


class PartialAvgPool(torch.nn.Module):
    """Mean over valid values, 1 to 3 axes; the mask is max-pooled.

    Args:
        kernel_size, stride, padding: as of ``torch.nn.AvgPool2d``.

    Example:
        >>> import torch, sparseconv as sc
        >>> y, mask = sc.nn.PartialAvgPool(2)(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8) > 0)
        >>> y.shape, mask.shape
        (torch.Size([1, 3, 4, 4]), torch.Size([1, 1, 4, 4]))
    """

    @native_keywords
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    @_takes_pairs
    def forward(self, input: Input, mask: Tensor | None = None) -> Any:
        """Return :func:`sparseconv.functional.partial_avg_pool` of ``input``."""
        window = (self.kernel_size, self.stride, self.padding)
        return functional.partial_avg_pool(input, *window, mask)
