"""What TorchSparse 1.4 and 2.0 have in another way than 2.1.

Coordinates have the sample in the last column, and are multiples of the stride; `Conv3d` has no
padding; weights of interpolation are ``[8, N]``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.torchsparse import tensor
from sparseconv.compat.torchsparse.caches import TensorCache
from sparseconv.compat.torchsparse.functional import points
from sparseconv.compat.torchsparse.functional.conv import convolved
from sparseconv.compat.torchsparse.functional.levels import next_sites
from sparseconv.compat.torchsparse.layers.convolution import ConvBase
from sparseconv.compat.torchsparse.level import AXES, coords_of
from sparseconv.compat.torchsparse.sizes import make_ntuple
from sparseconv.core.arguments import Ints


class SparseTensor(tensor.SparseTensor):
    """Features and integer coordinates, under the names of TorchSparse 1.4.

    Args:
        feats: ``[N, C]``.
        coords: ``[N, 4]``: three axes, multiples of the stride, then the sample.
        stride: int or one per axis.
    """

    BATCH_LAST = True

    def __init__(self, feats: Any, coords: Any, stride: Any = 1) -> None:
        super().__init__(feats, coords, stride)

    def _shared(self) -> TensorCache:
        new = TensorCache()
        new.__dict__.update(self._caches.__dict__)
        return new

    @property
    def cmaps(self) -> dict[Any, Any]:
        """The coordinates of each stride that a tensor of this input has had."""
        return self._caches.cmaps

    @cmaps.setter
    def cmaps(self, cmaps: dict[Any, Any]) -> None:
        self._caches.cmaps = cmaps

    @property
    def kmaps(self) -> dict[Any, Any]:
        """The pairs of each layer."""
        return self._caches.kmaps

    @kmaps.setter
    def kmaps(self, kmaps: dict[Any, Any]) -> None:
        self._caches.kmaps = kmaps


class Conv3d(ConvBase):
    """Convolution over three axes, of TorchSparse 1.4.

    Args:
        in_channels, out_channels: channel counts.
        kernel_size, stride, dilation: int or one per axis.
        bias: whether to learn a bias.
        transposed: back to the coordinates that the layer of this stride read.
        config: without effect.

    Raises:
        SparseConvError: an argument that no layer can have.
    """

    padding = (0,) * AXES

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any = 3,
        stride: Any = 1,
        dilation: Any = 1,
        bias: bool = False,
        transposed: bool = False,
        config: Any = None,
    ) -> None:
        sizes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        super().__init__((in_channels, out_channels), sizes, bias, matrix=True)
        self.transposed = transposed
        self.reset_parameters()


def conv3d(
    input: SparseTensor,
    weight: Tensor,
    kernel_size: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    dilation: Any = 1,
    transposed: bool = False,
    **config: Any,
) -> tensor.SparseTensor:
    """Return the convolution of ``input``.

    Cell ``(k - 1) // 2`` of the kernel lies on the site. With a stride the sites are those of the
    stride that hold an input, where the kernel is as wide as the stride; else all whose windows
    hold one, from the first input on.

    Args:
        input: ``[N, C_in]``.
        weight: ``[K, C_in, C_out]``, the first axis of its cells fastest where K is odd, else the
            last; ``[C_in, C_out]`` for one cell.
        kernel_size, stride, dilation: int or one per axis.
        bias: ``[C_out]`` or None.
        transposed: back to the coordinates that the layer of this stride read.
        config: choices of TorchSparse 2.0, without effect.
    """
    kernel, steps, dilations = (make_ntuple(n, AXES) for n in (kernel_size, stride, dilation))
    sizes: tuple[Ints, ...] = (kernel, steps, (0,) * AXES, dilations)
    direction = "transposed" if transposed else ""
    return convolved(input, weight, bias, sizes, direction, "spconv")


def spdownsample(
    coords: Tensor, stride: Any = 2, kernel_size: Any = 2, tensor_stride: Any = 1
) -> Tensor:
    """Return the coordinates of a strided layer's output, int32 ``[M, 4]``, ascending.

    Args:
        coords: integer ``[N, 4]``, the sample last, multiples of ``tensor_stride``.
        stride, kernel_size, tensor_stride: int or one per axis.
    """
    kernel, steps, level = (make_ntuple(n, AXES) for n in (kernel_size, stride, tensor_stride))
    x = SparseTensor(coords[:, :0], coords, level)
    sizes = (kernel, steps, (0,) * AXES, (1,) * AXES)
    sites = next_sites(x, x.sites, sizes, "spconv", None)
    new = tuple(a * b for a, b in zip(level, steps, strict=True))
    found = coords_of(sites.shared_coords, new, True)
    ascending: Tensor = torch.unique(found[:, [3, 0, 1, 2]], dim=0)
    return ascending[:, [1, 2, 3, 0]]


def calc_ti_weights(coords: Tensor, idx_query: Tensor, scale: float = 1) -> Tensor:
    """Return the trilinear weights of the eight voxels around each point, ``[8, N]``.

    Args:
        coords: floating point ``[N, 4]``, the sample last.
        idx_query: integer ``[8, N]``, the last axis fastest; voxels of -1 weigh 0.
        scale: edge of a voxel.
    """
    return points.calc_ti_weights(coords, idx_query.T, scale).T.contiguous()


__all__ = ["Conv3d", "SparseTensor", "calc_ti_weights", "conv3d", "spdownsample"]
