"""SparseConvNet's CPU form.

It pads nothing, so a grid is made large enough for every stride, and where a network pads its
strided convolutions by 1, coordinates are moved so that the same windows result on every level.
"""

from __future__ import annotations

import sparseconvnet as scn
import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.peers import Rows
from benchmarks.works import INVERSE, SUBMANIFOLD


class Convolution(nn.Module):
    """One of SparseConvNet's layers; where a site is, its metadata knows by the grid's size."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        channels, kernel = (module.in_channels, module.out_channels), module.kernel_size[0]
        weight = module.weight.detach().flatten(2)
        order = (2, 0, 1) if isinstance(module, INVERSE) else (2, 1, 0)
        biased = module.bias is not None
        if kernel == 1:
            self.module = scn.NetworkInNetwork(*channels, biased)
        elif isinstance(module, SUBMANIFOLD):
            self.module = scn.SubmanifoldConvolution(3, *channels, kernel, biased)
        elif isinstance(module, INVERSE):
            self.module = scn.Deconvolution(3, *channels, kernel, module.stride[0], biased)
        else:
            self.module = scn.Convolution(3, *channels, kernel, module.stride[0], biased)
        self.module.weight.data.copy_(weight.permute(order).reshape(self.module.weight.shape))
        if biased:
            self.module.bias.data.copy_(module.bias.detach())

    def forward(self, x: Rows, like: Rows | None = None) -> Rows:
        """Run the convolution."""
        metadata, size = x.place
        out = self.module(scn.SparseConvNetTensor(x.features, metadata, size))
        return Rows(out.features, (out.metadata, out.spatial_size))


def input(features: Tensor, coords: Tensor, x: sc.SparseTensor, net: nn.Module) -> Rows:
    """Return the sites in a hash table per sample."""
    strided = [m for m in net.modules() if isinstance(m, nn.Conv3d) and m.stride[0] == 2]
    step = 2 ** len(strided)
    moved = step - 1 if any(m.padding[0] for m in strided) else 0
    size = torch.tensor(x.spatial_shape) + moved
    size = (size + step - 1) // step * step + moved
    locations = torch.cat([coords[:, 1:].long() + moved, coords[:, :1].long()], dim=1)
    out = scn.InputLayer(3, size, mode=0)([locations, features, x.batch_size])
    return Rows(out.features, (out.metadata, out.spatial_size))


def layer(module: nn.Module) -> nn.Module:
    """Return the layer."""
    return Convolution(module)
