"""The optimized network computes what the network computes, whatever shape its forward has."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import random_sites
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import sparseconv as sc
from sparseconv.nn import FusedConvolution

CONVOLUTIONS = {
    1: [nn.Conv1d, nn.ConvTranspose1d, sc.nn.SubmConv1d],
    2: [nn.Conv2d, nn.ConvTranspose2d, sc.nn.SubmConv2d],
    3: [nn.Conv3d, nn.ConvTranspose3d, sc.nn.SubmConv3d],
    4: [sc.nn.Conv4d, sc.nn.SubmConv4d],
}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, 4: sc.nn.BatchNorm4d}


def learned(norm: nn.Module) -> nn.Module:
    """Give a normalisation statistics and parameters that are not those of a fresh one."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


def fused(model: nn.Module) -> int:
    return sum(isinstance(module, FusedConvolution) for module in model.modules())


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def agree(model: nn.Module, x: object, **options: object) -> None:
    model.eval()
    expected, got = model(x, **options), sc.optimize(model)(x, **options)
    if isinstance(expected, sc.SparseTensor):
        assert got.sites.same_as(expected.sites)
        expected, got = expected.features, got.features
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@settings(deadline=None)
@given(data=st.data())
def test_a_chain_of_convolution_norm_and_relu_is_one_module(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 4))
    kind = data.draw(st.sampled_from(CONVOLUTIONS[dimensions]))
    groups = data.draw(st.sampled_from([1, 2]))
    options = {"groups": groups, "bias": data.draw(st.booleans())}
    if not kind.__name__.startswith("Subm"):
        options |= {"stride": data.draw(st.integers(1, 2)), "padding": data.draw(st.integers(0, 1))}
    torch.manual_seed(data.draw(st.integers(0, 99)))
    chain = [kind(4, 6, 3, **options)]
    if data.draw(st.booleans()):
        norm = NORMS[dimensions](6, affine=data.draw(st.booleans()))
        chain.append(learned(norm))
    relu = data.draw(st.booleans())
    model = nn.Sequential(*chain, *[nn.ReLU(inplace=data.draw(st.booleans()))] * relu).double()
    coords = random_sites(data.draw(st.sampled_from([0, 1, 20])), (4,) * dimensions, batch=2)
    x = sc.SparseTensor(
        torch.randn(len(coords), 4).double(), coords, (4,) * dimensions, batch_size=2
    )
    agree(model, x)
    agree(model, x.dense())
    assert len(list(sc.optimize(model).children())) == 1


class Residual(nn.Module):
    """A residual block with a projection, as networks write them."""

    def __init__(self, add: str) -> None:
        super().__init__()
        self.first, self.second = sc.nn.SubmConv2d(4, 6, 3), sc.nn.SubmConv2d(6, 6, 3)
        self.norms = nn.ModuleList(learned(nn.BatchNorm2d(6)) for _ in range(3))
        self.project = sc.nn.SubmConv2d(4, 6, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.add = add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        shortcut = self.norms[2](self.project(x))
        if self.add == "function":
            y = torch.add(y, shortcut)
        elif self.add == "in place":
            y += shortcut
        elif self.add == "reversed":
            shortcut += y
            y = shortcut
        else:
            y = y + shortcut
        return torch.relu(y)


@pytest.fixture
def x() -> sc.SparseTensor:
    torch.manual_seed(0)
    coords = random_sites(60, (9, 9), batch=2)
    return sc.SparseTensor(torch.randn(len(coords), 4).double(), coords, (9, 9), batch_size=2)


@pytest.mark.parametrize("add", ["operator", "function", "in place", "reversed"])
def test_a_residual_block_is_three_modules(add: str, x: sc.SparseTensor) -> None:
    model = Residual(add).double()
    agree(model, x)
    agree(model, x.dense())
    fast = sc.optimize(model)
    assert fused(fast) == len(list(fast.children())) == 3
    assert norms(fast) == 0


def test_a_sum_over_other_sites_is_their_union(x: sc.SparseTensor) -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide = sc.nn.SubmConv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.wide(x) + self.narrow(x))

    agree(Wider().double(), x)


def test_a_convolution_does_not_move_behind_a_change_of_its_input(x: sc.SparseTensor) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = sc.nn.SubmConv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            z = nn.functional.relu(x, inplace=True)
            return torch.relu(y + z)

    model = Changing().double().eval()
    dense = x.dense()
    expected = model(dense.clone())
    torch.testing.assert_close(sc.optimize(model)(dense.clone()), expected)
    features = x.features.clone()
    expected = model(x).features  # x is changed here
    got = sc.optimize(model)(x.replace(features)).features
    torch.testing.assert_close(got, expected)


def test_an_inverse_layer_finds_its_way_back(x: sc.SparseTensor) -> None:
    class Back(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(4, 6, 2, stride=2)
            self.up = sc.nn.InverseConv2d(6, 4, 2, stride=2)
            self.norm = learned(nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.norm(self.up(self.down(x), like=x)) + x)

    agree(Back().double(), x)
    assert fused(sc.optimize(Back())) == 2


def test_a_result_with_two_readers_stays(x: sc.SparseTensor) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = sc.nn.SubmConv2d(4, 4, 3)
            self.norm = learned(nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            return torch.cat([self.norm(y), y + y], dim=1)

    agree(Two().double(), x)
    assert norms(sc.optimize(Two())) == 1


@pytest.mark.parametrize("way", ["data", "option", "question"])
def test_what_cannot_be_traced_is_optimized_module_by_module(way: str, x: sc.SparseTensor) -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(sc.nn.SubmConv2d(4, 4, 3), learned(nn.BatchNorm2d(4)))

        if way == "data":

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.body(x) if x.sum() > 1e9 else -self.body(x)

        elif way == "option":

            def forward(self, x: torch.Tensor, factor: float | None = None) -> torch.Tensor:
                return self.body(x) if factor is None else factor * self.body(x)

        else:

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.body(x) * (2.0 if isinstance(x, sc.SparseTensor) else 3.0)

    model = nn.Sequential(Choosing(), nn.ReLU()).double()
    agree(model, x)
    agree(model, x.dense())
    agree(model[0], x, **({"factor": 3.0} if way == "option" else {}))
    fast = sc.optimize(model)
    assert fused(fast) == 1
    assert norms(fast) == 0


def test_modules_that_someone_listens_to_stay(x: sc.SparseTensor) -> None:
    model = nn.Sequential(sc.nn.SubmConv2d(4, 4, 3), learned(nn.BatchNorm2d(4)), nn.ReLU())
    model = model.double().eval()
    heard = []
    model[0].register_forward_hook(lambda *_: heard.append(1))
    agree(model, x)
    assert len(heard) == 2
    assert fused(sc.optimize(model)) == 0


def test_parametrized_and_padded_convolutions_stay(x: sc.SparseTensor) -> None:
    weighted = parametrizations.weight_norm(sc.nn.SubmConv2d(4, 4, 3))
    assert fused(sc.optimize(nn.Sequential(weighted))) == 0
    agree(nn.Sequential(weighted).double(), x)
    reflecting = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
    agree(nn.Sequential(reflecting).double(), x.dense())
    with pytest.raises(sc.SparseConvTypeError, match="convolution: must be one of"):
        FusedConvolution(reflecting)


def test_the_model_stays_as_it_is(x: sc.SparseTensor) -> None:
    model = nn.Sequential(sc.nn.SubmConv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double()
    before = copy.deepcopy(model.state_dict())
    fast = sc.optimize(model)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_gradients_of_the_input_pass(x: sc.SparseTensor) -> None:
    model = Residual("operator").double().eval()
    grads = []
    for net in (model, sc.optimize(model)):
        leaf = x.features.clone().requires_grad_()
        net(x.replace(leaf)).features.square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-10)


def test_a_changed_weight_is_packed_anew(x: sc.SparseTensor) -> None:
    fast = sc.optimize(nn.Sequential(sc.nn.SubmConv2d(4, 4, 3, bias=False)).double())
    with torch.no_grad():
        first = fast(x).features
        for parameter in fast.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(fast(x).features, 2 * first)
        fast.load_state_dict({k: v / 2 for k, v in fast.state_dict().items()})
        torch.testing.assert_close(fast(x).features, first)
        single = fast.float()(x.float()).features
    torch.testing.assert_close(single, first.float(), rtol=1e-5, atol=1e-5)


def test_another_weight_is_packed_anew(x: sc.SparseTensor) -> None:
    layer = FusedConvolution(sc.nn.SubmConv2d(4, 4, 3, bias=False).double())
    for _ in range(5):  # a freed weight's memory is handed out again
        layer.convolution.weight = None
        layer.convolution.weight = nn.Parameter(torch.randn(4, 4, 3, 3).double())
        wanted = sc.functional.subm_conv(x, layer.convolution.weight).features
        with torch.no_grad():
            torch.testing.assert_close(layer(x).features, wanted)


def test_it_pickles_and_copies_without_the_packed_weight(x: sc.SparseTensor) -> None:
    layer = FusedConvolution(sc.nn.SubmConv2d(4, 4, 3).double(), relu=True)
    expected = layer(x).features
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert again._packed._packed is None
        assert torch.equal(again(x).features, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype, x: sc.SparseTensor, engine: str) -> None:
    model = Residual("operator").eval()
    expected = model.double()(x).features
    got = sc.optimize(model.to(dtype))(x.to(dtype)).features
    assert got.dtype == dtype
    bound = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}[dtype]
    assert (got.double() - expected).abs().max() < bound * expected.abs().max()


def test_it_follows_autocast(x: sc.SparseTensor) -> None:
    model = Residual("operator").float().eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected, got = model(x.float()), sc.optimize(model)(x.float())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.features.float(), expected.features.float(), rtol=0.1, atol=0.1)


def test_a_model_must_be_a_module() -> None:
    with pytest.raises(sc.SparseConvTypeError, match="model: must be a torch"):
        sc.optimize(torch.relu)


def test_an_optimized_unet_pickles() -> None:
    """Its forward has annotations, which torch.fx would name as if they were classes."""
    coords = random_sites(60, (8, 8, 8))
    x = sc.SparseTensor(torch.randn(len(coords), 2), coords, (8, 8, 8))
    fast = sc.optimize(sc.models.UNet(2, 3, widths=(4, 8)))
    again = pickle.loads(pickle.dumps(fast))
    assert torch.equal(again(x).features, fast(x).features)
