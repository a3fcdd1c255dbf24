"""spconv 2.3's CPU form; its backward asks for a CUDA stream, and is told that there is none."""

from __future__ import annotations

import spconv.pytorch as spconv
from spconv.core import ConvAlgo
from spconv.pytorch import ops
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.peers import Rows
from benchmarks.works import INVERSE, SUBMANIFOLD

ops.get_current_stream = lambda: 0


class Convolution(nn.Module):
    """A convolution that names its pairs by the grid they begin on, as users of spconv do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        channels = module.in_channels, module.out_channels, module.kernel_size
        options = {"bias": module.bias is not None, "algo": ConvAlgo.Native}
        weight, self.kind = module.weight.detach().movedim(1, -1), "down"
        if isinstance(module, SUBMANIFOLD):
            self.kind = "subm"
            self.module = spconv.SubMConv3d(*channels, indice_key="-", **options)
        elif isinstance(module, INVERSE):
            self.kind = "inverse"
            self.module = spconv.SparseInverseConv3d(*channels, indice_key="-", **options)
            weight = weight.movedim(-1, 0).movedim(1, -1)
        else:
            window = module.stride, module.padding
            self.module = spconv.SparseConv3d(*channels, *window, indice_key="-", **options)
        if set(module.kernel_size) == {1}:  # which spconv reads as (in, out), whatever its shape
            weight = weight.reshape(channels[1], channels[0]).t().reshape(weight.shape)
        self.module.weight.data.copy_(weight)
        if module.bias is not None:
            self.module.bias.data.copy_(module.bias.detach())

    def forward(self, x: Rows, like: Rows | None = None) -> Rows:
        """Run the convolution."""
        fine = (x if like is None else like).place
        kind = "subm" if self.kind == "subm" else "down"
        self.module.indice_key = f"{kind}{self.module.kernel_size}{fine.spatial_shape}"
        out = self.module(x.place.replace_feature(x.features))
        return Rows(out.features, out)


def input(features: Tensor, coords: Tensor, x: sc.SparseTensor, net: nn.Module) -> Rows:
    """Return the tensor; nothing is sorted or indexed yet."""
    shape = list(x.spatial_shape)
    return Rows(features, spconv.SparseConvTensor(features, coords.int(), shape, x.batch_size))


def layer(module: nn.Module) -> nn.Module:
    """Return the layer."""
    return Convolution(module)
