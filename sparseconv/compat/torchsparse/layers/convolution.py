"""The convolution module, with TorchSparse's weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import nn

from sparseconv.compat.torchsparse.functional.config import mode_of
from sparseconv.compat.torchsparse.functional.conv import convolved
from sparseconv.compat.torchsparse.level import AXES
from sparseconv.compat.torchsparse.sizes import make_ntuple
from sparseconv.compat.torchsparse.tensor import SparseTensor
from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvValueError


class ConvBase(nn.Module):
    """What the convolutions of both versions share.

    The kernel is ``[K, C_in, C_out]``, the first axis of its cells fastest where K is odd, else the
    last; ``[C_in, C_out]`` where it has one cell and stride 1.
    """

    checkpoint_layout: ClassVar[str] = "torchsparse"  # as sparseconv.load_checkpoint names it

    def __init__(
        self, channels: tuple[int, int], sizes: dict[str, Any], bias: bool, matrix: bool
    ) -> None:
        """Make the layer.

        Args:
            channels: in and out.
            sizes: kernel size, stride and dilation.
            bias: whether to learn a bias.
            matrix: whether a kernel of one cell is a matrix with a stride, too.
        """
        super().__init__()
        self.in_channels, self.out_channels = channels
        for name, value in zip(("in_channels", "out_channels"), channels, strict=True):
            check_int(name, value, least=1)
        self.kernel_size = make_ntuple(sizes["kernel_size"], AXES)
        self.stride = make_ntuple(sizes["stride"], AXES)
        self.dilation = sizes["dilation"]
        for name in ("kernel_size", "stride"):
            if min(getattr(self, name)) < 1:
                raise SparseConvValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        self.kernel_volume = math.prod(self.kernel_size)
        cells = (
            ()
            if self.kernel_volume == 1 and (matrix or set(self.stride) == {1})
            else (self.kernel_volume,)
        )
        self.kernel = nn.Parameter(torch.zeros(*cells, *channels))
        self.bias: nn.Parameter | None
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_channels))
        else:
            self.register_parameter("bias", None)

    transposed: bool
    generative: bool = False
    padding: tuple[int, ...]

    def reset_parameters(self) -> None:
        """Draw kernel and bias as TorchSparse does, the same numbers from the same seed."""
        channels = self.out_channels if self.transposed else self.in_channels
        bound = 1 / math.sqrt(channels * self.kernel_volume)
        with torch.no_grad():
            self.kernel.uniform_(-bound, bound)
            if self.bias is not None:
                self.bias.uniform_(-bound, bound)

    def mode(self) -> str:
        """Return which sites a strided layer makes."""
        return mode_of(None)

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the convolution of ``input``; see :func:`conv3d`."""
        if torch.compiler.is_compiling():  # what caches hold is no part of a graph
            outside: SparseTensor = torch.compiler.disable(self.forward)(input)
            return outside
        sizes = (
            self.kernel_size, self.stride, self.padding, make_ntuple(self.dilation, AXES),
        )  # fmt: skip
        out = ("generative" if self.generative else "transposed") if self.transposed else ""
        return convolved(input, self.kernel, self.bias, sizes, out, self.mode())

    def extra_repr(self) -> str:
        """Return the arguments that are not at their defaults."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        defaults = {"stride": (1,) * AXES, "dilation": 1, "transposed": False, "generative": False}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else f"{text}, bias=False"


class Conv3d(ConvBase):
    """Convolution over three axes, of TorchSparse 2.1.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride: int or one per axis.
        padding: the same; without effect where the kernel is odd and the stride 1.
        dilation: int or one per axis.
        bias: whether to learn a bias.
        transposed: back to the coordinates that the layer of this stride read.
        generative: to every site around an input; with ``transposed`` only.
        config: choices, of which ``downsample_mode`` counts.

    Raises:
        SparseConvError: an argument that no layer can have.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        bias: bool = False,
        transposed: bool = False,
        generative: bool = False,
        config: Any = None,
    ) -> None:
        sizes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        super().__init__((in_channels, out_channels), sizes, bias, matrix=False)
        if generative and not transposed:
            raise SparseConvValueError("generative: must come with transposed=True")
        pads = zip(make_ntuple(padding, AXES), self.kernel_size, self.stride, strict=True)
        self.padding = tuple((k - 1) // 2 if k % 2 and s == 1 else pad for pad, k, s in pads)
        self.transposed, self.generative, self._config = transposed, generative, config
        self.reset_parameters()

    def mode(self) -> str:
        """Return which sites a strided layer makes."""
        return mode_of(self._config)


__all__ = ["Conv3d"]
