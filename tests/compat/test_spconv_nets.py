"""Networks in the manner of the code bases that use spconv: every row order, both modes, a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import assert_close, random_mask
from spconv_cases import tensor_of
from torch import Tensor, nn

from benchmarks.spconv_nets import SecondMiddle, SparseUNet, VoxelBackbone
from sparseconv.compat.spconv import pytorch as spconv

SIZE = (41, 16, 16)


class NextBackbone(nn.Module):
    """In the manner of VoxelNeXt: indices scaled in place, levels joined, duplicates summed."""

    def __init__(self) -> None:
        super().__init__()
        subm = {"padding": 1, "bias": False, "indice_key": "subm"}
        self.first = spconv.SparseSequential(
            spconv.SubMConv3d(4, 6, 3, **subm), nn.BatchNorm1d(6), nn.ReLU()
        )
        self.down = spconv.SparseConv3d(6, 6, 3, 2, padding=1, bias=False, indice_key="down")
        self.head = spconv.SparseConv2d(6, 5, 3, stride=1, padding=1, bias=False)

    def forward(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Tensor:
        x = self.first(spconv.SparseConvTensor(features, indices.int(), shape, batch))
        y = self.down(x)
        y.indices[:, 1:] *= 2
        x = x.replace_feature(torch.cat([x.features, y.features]))
        x.indices = torch.cat([x.indices, y.indices])
        flat = x.indices[:, [0, 2, 3]]
        places, rows = torch.unique(flat, dim=0, return_inverse=True)
        summed = x.features.new_zeros(len(places), x.features.shape[1])
        summed = summed.index_add(0, rows, x.features)
        bev = spconv.SparseConvTensor(summed, places.int(), x.spatial_shape[1:], x.batch_size)
        return self.head(bev).dense()


class Rebuilding(nn.Module):
    """In the manner of SoftGroup and TRELLIS: tensors made anew on the indices of others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.conv = spconv.SubMConv3d(4, 4, 3, padding=1, bias=False, indice_key="subm1")
        self.down = spconv.SparseConv3d(4, 6, 2, stride=2, bias=False, indice_key="spconv1")
        self.up = spconv.SparseInverseConv3d(6, 4, 2, bias=False, indice_key="spconv1")
        self.tail = spconv.SubMConv3d(8, 3, 3, padding=1, indice_key="subm1")

    def forward(self, features: Tensor, indices: Tensor, shape: Any, batch: int) -> Tensor:
        x = spconv.SparseConvTensor(features, indices.int(), shape, torch.tensor(batch))
        identity = spconv.SparseConvTensor(x.features, x.indices, x.spatial_shape, x.batch_size)
        x = self.conv(x.replace_feature(torch.relu(self.norm(x.features))))
        low = self.down(x)
        order = low.indices[:, 0].argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        low = low.replace_feature((low.features[order] * 2)[back])
        up = self.up(low)
        x = up.replace_feature(torch.cat((identity.features, up.features), dim=1))
        return self.tail(x).dense()


NETS: dict[str, Any] = {
    "VoxelBackbone": lambda: VoxelBackbone(spconv, widths=(4, 4, 6, 6)),
    "SecondMiddle": lambda: SecondMiddle(spconv, widths=(4, 4, 6)),
    "NextBackbone": NextBackbone,
    "Rebuilding": Rebuilding,
}


def scan_of(seed: int, dtype: torch.dtype, order: int = 0) -> tuple[Tensor, Tensor, list[int], int]:
    """Return three samples of very different size, the one in the middle empty, rows shuffled."""
    mask = random_mask(3, SIZE, 0.02, seed, empty_sample=True)
    mask[2] &= torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) < 0.1
    t = torch.randn(3, 4, *SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = tensor_of(t, mask, order)
    return x.features, x.indices, list(SIZE), 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_rows_in_any_order_give_the_same_in_both_modes(name: str, dtype: torch.dtype) -> None:
    net = NETS[name]().to(dtype)
    for train in (True, False):
        net.train(train)
        one, other = (net(*scan_of(1, dtype, order)) for order in (0, 5))
        assert one.dtype == dtype
        assert_close(one, other)


@pytest.mark.parametrize("name", NETS)
def test_a_step_lowers_the_loss(name: str) -> None:
    net = NETS[name]()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = (net(*scan_of(2, torch.float32)) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_segmentation_network_follows_its_rows() -> None:
    net = SparseUNet(spconv, widths=(4, 4, 6, 6, 4), depths=(1, 1, 1, 1)).double()
    features, indices, *rest = scan_of(3, torch.float64)
    order = torch.randperm(len(indices))
    assert_close(net(features[order], indices[order], *rest), net(features, indices, *rest)[order])


@pytest.mark.parametrize("name", ["VoxelBackbone", "Rebuilding"])
def test_compiled_networks_compute_the_same(name: str) -> None:
    net = NETS[name]().double().eval()
    scan = scan_of(4, torch.float64)
    torch.compiler.reset()
    with torch.no_grad():
        assert_close(torch.compile(net, backend="eager")(*scan), net(*scan))
