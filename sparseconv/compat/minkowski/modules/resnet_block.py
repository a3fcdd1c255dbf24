"""The two blocks of residual networks (He et al. 2016)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from sparseconv.compat.minkowski.layers.convolution import MinkowskiConvolution
from sparseconv.compat.minkowski.layers.norm import MinkowskiBatchNorm
from sparseconv.compat.minkowski.layers.values import MinkowskiReLU


class _Block(nn.Module):
    """What the blocks share: convolutions ``conv1..``, norms ``norm1..``, and a way around them."""

    expansion: ClassVar[int]

    def __init__(self, widths: list[int], kernels: list[int], options: dict[str, Any]) -> None:
        """Make the block; the layer with the last kernel above 1 but one has the stride."""
        super().__init__()
        dilation, dimension = options["dilation"], options["dimension"]
        strided = 0 if kernels[0] > 1 else 1
        for number, kernel in enumerate(kernels):
            conv = MinkowskiConvolution(
                widths[number],
                widths[number + 1],
                kernel_size=kernel,
                stride=options["stride"] if number == strided else 1,
                dilation=dilation if kernel > 1 else 1,
                dimension=dimension,
            )
            setattr(self, f"conv{number + 1}", conv)
            norm = MinkowskiBatchNorm(widths[number + 1], momentum=options["bn_momentum"])
            setattr(self, f"norm{number + 1}", norm)
        self.relu = MinkowskiReLU(inplace=True)
        self.downsample = options["downsample"]
        self._last = len(kernels)

    def _around(self, x: Any, out: Any) -> Any:
        """Return what the layers made, plus the input, as it is or through ``downsample``."""
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))

    def _through(self, x: Any) -> Any:
        """Return what the layers make of the input."""
        for number in range(1, self._last + 1):
            x = getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x))
            x = self.relu(x) if number < self._last else x
        return x

    def forward(self, x: Any) -> Any:
        """Return the block's output."""
        return self._around(x, self._through(x))


class BasicBlock(_Block):
    """Two convolutions of 3 cells an axis, and a way around them.

    Args:
        inplanes, planes: channels in and out.
        stride, dilation: of the convolutions; the first has the stride.
        downsample: the way around; the input itself where it is None.
        bn_momentum: of the norms.
        dimension: number of spatial axes.
    """

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ) -> None:
        options = {
            "stride": stride, "dilation": dilation, "downsample": downsample,
            "bn_momentum": bn_momentum, "dimension": dimension,
        }  # fmt: skip
        super().__init__([inplanes, planes, planes], [3, 3], options)


class Bottleneck(_Block):
    """Convolutions of 1, 3 and 1 cells an axis, and a way around them.

    Args:
        inplanes, planes: channels in, and in the middle; the output has four times as many.
        stride, dilation: of the convolution in the middle.
        downsample, bn_momentum, dimension: as of :class:`BasicBlock`.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: Any = 1,
        dilation: Any = 1,
        downsample: nn.Module | None = None,
        bn_momentum: float = 0.1,
        dimension: int = -1,
    ) -> None:
        options = {
            "stride": stride, "dilation": dilation, "downsample": downsample,
            "bn_momentum": bn_momentum, "dimension": dimension,
        }  # fmt: skip
        super().__init__([inplanes, planes, planes, planes * self.expansion], [1, 3, 1], options)


__all__ = ["BasicBlock", "Bottleneck"]
