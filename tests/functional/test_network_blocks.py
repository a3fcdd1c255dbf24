"""Blocks of well-known networks, as their authors write them, run unchanged on sparse input."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, random_mask, sparse
from torch import Tensor, nn
from torch.nn import functional as F

import sparseconv as sc


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.down, self.up = (
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 8, 1),
        )

    def forward(self, x: Any) -> Any:
        return torch.sigmoid(self.up(F.relu(self.down(self.pool(x))))) * x


class LinearExcitation(nn.Module):
    """Hu et al. 2018, with linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        b, c, _, _ = x.size()
        y = torch.sigmoid(self.fc(self.pool(x).view(b, c))).view(b, c, 1, 1)
        return x * y.expand_as(x)


class EfficientChannelAttention(nn.Module):
    """Wang et al. 2020: a convolution along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.pool(x)
        y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * torch.sigmoid(y).expand_as(x)


class ConvolutionalAttention(nn.Module):
    """CBAM, Woo et al. 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
        self.average, self.largest = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.mlp(self.average(x)) + self.mlp(self.largest(x))
        x = x * torch.sigmoid(y).unsqueeze(2).unsqueeze(3).expand_as(x)
        y = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(self.conv(y))


class ResponseNorm(nn.Module):
    """GRN of ConvNeXt V2, Woo et al. 2023, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.randn(1, 1, 1, channels))

    def forward(self, x: Any) -> Any:
        size = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        share = size / (size.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * share) + self.beta + x


class ConvNeXt(nn.Module):
    """Liu et al. 2022: channels last by permute, layer scale."""

    def __init__(self, grn: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8, eps=1e-6)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.grn = ResponseNorm(16) if grn else nn.Identity()
        self.gamma = nn.Parameter(torch.randn(8))

    def forward(self, input: Any) -> Any:
        x = self.norm(self.conv(input).permute(0, 2, 3, 1))
        x = self.gamma * self.narrow(self.grn(F.gelu(self.wide(x))))
        return input + x.permute(0, 3, 1, 2)


class CoordinateAttention(nn.Module):
    """Hou et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.pool_h, self.pool_w = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.conv, self.norm = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4)
        self.conv_h, self.conv_w = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Any) -> Any:
        _, _, h, w = x.size()
        y = torch.cat([self.pool_h(x), self.pool_w(x).permute(0, 1, 3, 2)], dim=2)
        along_h, along_w = torch.split(F.hardswish(self.norm(self.conv(y))), [h, w], dim=2)
        gate_w = self.conv_w(along_w.permute(0, 1, 3, 2)).sigmoid()
        return x * gate_w * self.conv_h(along_h).sigmoid()


class Outer(nn.Module):
    """Both gates meet each other before they meet the input."""

    def forward(self, x: Any) -> Any:
        return x * (x.mean(2, keepdim=True) * x.mean(3, keepdim=True))


class StochasticDepth(nn.Module):
    def forward(self, x: Any) -> Any:
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.5)
        return x + x * keep.div_(0.5)


class Attention(nn.Module):
    """Tokens of a whole grid through a linear map and a norm of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24)

    def forward(self, x: Any) -> Any:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        return (tokens + q * k + v).transpose(1, 2).unflatten(2, x.shape[2:])


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "squeeze-excitation": SqueezeExcitation,
    "squeeze-excitation, linear": LinearExcitation,
    "ECA": EfficientChannelAttention,
    "CBAM": ConvolutionalAttention,
    "GRN": lambda: ConvNeXt(grn=True),
    "ConvNeXt": ConvNeXt,
    "coordinate attention": CoordinateAttention,
    "two gates": Outer,
    "stochastic depth": StochasticDepth,
    "tokens": Attention,
}


def whole(*shape: int) -> sc.SparseTensor:
    """Return a tensor whose every site is active."""
    t = torch.randn(*shape, dtype=torch.float64)
    return sc.SparseTensor.from_dense(t, torch.ones(shape[0], *shape[2:], dtype=torch.bool))


def check(block: nn.Module, *shape: int) -> None:
    """Compare a block with itself on the dense tensor: values, and gradients of all parameters."""
    x, grads, outputs = whole(*shape).requires_grad_(), [], []
    for input in (x, x.dense()):
        torch.manual_seed(1)
        y = block(input)
        y = y if isinstance(y, Tensor) else y.dense()
        outputs.append(y)
        block.zero_grad()
        (y * torch.linspace(0, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        grads.append([p.grad.clone() for p in block.parameters() if p.grad is not None])
    assert_close(*outputs)
    assert len(grads[0]) == len(grads[1])
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_the_dense_one_where_every_site_is_active(engine: str, name: str) -> None:
    check(BLOCKS[name]().double(), 2, 8, 5, 6)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_keeps_samples_apart_and_rows_in_any_order(engine: str, name: str) -> None:
    block = BLOCKS[name]().double().eval()
    mask = random_mask(3, (5, 6), 0.4, 2, empty_sample=True)
    x = sparse(torch.randn(3, 8, 5, 6, dtype=torch.float64), mask, 5)
    torch.manual_seed(1)
    y = block(x)
    if name == "stochastic depth":
        return
    for number, sample in enumerate(x.split()):
        assert_close(block(sample).dense(), y[number].dense())


ONE_GRAPH = ("squeeze-excitation", "squeeze-excitation, linear", "GRN", "ConvNeXt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own affairs
@pytest.mark.parametrize("name", ONE_GRAPH)
def test_a_block_compiles_into_one_graph_for_all_scans(name: str) -> None:
    torch._dynamo.reset()
    block = BLOCKS[name]().double()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=True)
    for seed in range(2):
        mask = random_mask(3, (5, 6), 0.3 + 0.3 * seed, seed, empty_sample=seed == 0)
        x = sparse(torch.randn(3, 8, 5, 6, dtype=torch.float64), mask, seed).requires_grad_()
        grads = []
        for run in (block, compiled):
            x.features.grad = None
            block.zero_grad()
            y = run(x)
            y.features.square().sum().backward()
            grads.append(
                [y.features.detach(), x.features.grad, *(p.grad for p in block.parameters())]
            )
        for mine, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_a_gate_that_lacks_a_site_counts_0_there(engine: str) -> None:
    x = whole(2, 3, 4, 5)
    gate = sc.SparseTensor(torch.ones(1, 3).double(), torch.tensor([[1, 0, 0]]), (1, 1), 2)
    for y in (x * gate, gate * x, torch.mul(x, gate), gate.expand_as(x) * x):
        assert torch.equal(y.dense(), x.dense() * gate.dense())
        assert y.sites is x.sites
    assert torch.equal((x + gate).dense(), x.dense() + gate.dense())
    assert torch.equal(torch.maximum(gate, x).dense(), torch.maximum(gate.dense(), x.dense()))
    with pytest.raises(sc.SparseConvValueError, match="lives on a grid"):
        x * x.narrow(2, 0, 2)


def test_blocks_of_torchvision(engine: str) -> None:
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    video = importlib.import_module("torchvision.models.video.resnet")
    s3d = importlib.import_module("torchvision.models.video.s3d")
    convnext = importlib.import_module("torchvision.models.convnext")
    blocks = [
        (torchvision.ops.SqueezeExcitation(8, 4), (2, 8, 5, 6)),
        (torchvision.ops.StochasticDepth(0.5, "row"), (2, 8, 5, 6)),
        (convnext.CNBlock(8, 0.5, 0.5), (2, 8, 5, 6)),
        (convnext.LayerNorm2d(8), (2, 8, 5, 6)),
        (video.BasicBlock(8, 8, video.Conv3DSimple), (2, 8, 3, 4, 5)),
        (video.BasicBlock(8, 8, video.Conv2Plus1D), (2, 8, 3, 4, 5)),
        (s3d.SepInceptionBlock3D(8, 4, 4, 4, 4, 4, 4, nn.BatchNorm3d), (2, 8, 3, 4, 5)),
    ]
    for block, shape in blocks:
        check(block.double(), *shape)


TIMM = ("SEModule", "EffectiveSEModule", "EcaModule", "CecaModule", "LayerNorm2d", "RmsNorm2d",
        "LayerScale2d", "SplitAttn", "ConvMlp", "GlobalResponseNormMlp", "CbamModule",
        "LightCbamModule", "CoordAttn", "SimpleCoordAttn", "StripAttn")  # fmt: skip
HOMES = ("timm.layers", "timm.layers.cbam", "timm.layers.coord_attn")


@pytest.mark.parametrize("name", TIMM)
def test_blocks_of_timm(engine: str, name: str) -> None:
    pytest.importorskip("timm.layers", exc_type=ImportError)
    found = [getattr(importlib.import_module(home), name, None) for home in HOMES]
    kind = next((entry for entry in found if entry is not None), None)
    if kind is None:
        pytest.skip(f"this timm has no {name}")
    options = {"use_conv": True} if name == "GlobalResponseNormMlp" else {}
    check(kind(8, **options).double(), 2, 8, 5, 6)
