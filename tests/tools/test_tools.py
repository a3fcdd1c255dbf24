"""``submanifold`` and ``summary``."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from cases import assert_close, dense_conv, generator, random_input, random_mask, sparse
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import sparseconv as sc

NORMED = [
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
]


def network() -> nn.Sequential:
    """Return layers to be turned and layers to be left."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 4, (3, 5), padding="same", dilation=(2, 1), groups=2)),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Conv2d(4, 4, 2, stride=2),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
    ).double()


def test_the_right_layers_turn() -> None:
    kinds = [type(module).__name__ for module in sc.submanifold(network()).modules()]
    assert kinds == ["Sequential", "SubmConv2d", "BatchNorm2d", "ReLU", "Sequential", "SubmConv2d",
                     "SubmConv2d", "Conv2d", "ConvTranspose2d"]  # fmt: skip
    left = [
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(1, 1, 3, padding=(1, 0)),
        nn.Conv2d(1, 1, 3, padding=1, dilation=2),
        nn.Conv2d(1, 1, 3, stride=(1, 2), padding=1),
        nn.Conv2d(1, 1, 2, padding="same"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        type("Own", (nn.Conv2d,), {})(1, 1, 3, padding=1),
    ]
    for module in left:
        assert type(sc.submanifold(module)) is type(module)
    for axes, plain in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), start=1):
        turned = sc.submanifold(plain(1, 1, 3, padding=1))
        assert type(turned).__name__ == f"SubmConv{axes}d"


def test_weights_names_and_optimizers_are_kept() -> None:
    model = network()
    turned = sc.submanifold(model)
    assert type(model[0]) is nn.Conv2d
    assert list(turned.state_dict()) == list(model.state_dict())
    pairs = zip(turned.named_parameters(), model.named_parameters(), strict=True)
    assert all(a == b and x is y for (a, x), (b, y) in pairs)
    assert turned[1].running_mean is model[1].running_mean
    turned.load_state_dict(network().state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = random_input(20, 3, (8, 8), batch=2)
    turned(x).features.sum().backward()
    before = model[0].weight.clone()
    optimizer.step()
    assert not torch.equal(turned[0].weight, before)
    again = pickle.loads(pickle.dumps(turned))
    assert torch.equal(again(x).features, turned(x).features)
    assert sc.submanifold(model, inplace=True) is model
    assert type(model[3][0]) is sc.nn.SubmConv2d


def test_it_computes_the_same_on_dense_tensors_and_keeps_sites_on_sparse_ones() -> None:
    model = network().eval()
    turned = sc.submanifold(model)
    t = torch.randn(2, 3, 8, 8, generator=generator(0), dtype=torch.float64)
    assert torch.equal(turned(t), model(t))
    x = sparse(t, random_mask(2, (8, 8), 0.3))
    y = turned[:5](x)
    assert y.sites is x.sites
    # the masked dense run: what leaves the sites is put out after every layer
    mask = x.mask()
    z = t * mask
    for layer in model[:5]:
        z = layer(z) * mask
    assert_close(y.dense(), z)


@pytest.mark.parametrize("normed", NORMED)
def test_parametrized_layers_turn_too(normed: Any) -> None:
    model = nn.Sequential(normed(nn.Conv2d(3, 4, 3, padding=1))).double().eval()
    turned = sc.submanifold(model)
    assert isinstance(turned[0], sc.nn.SubmConv2d)
    assert list(turned.state_dict()) == list(model.state_dict())
    x = random_input(20, 3, (6, 6))
    dense = dense_conv(x.dense(), model[0].weight, model[0].bias, padding=1)
    assert_close(turned(x).dense(), torch.where(x.mask(), dense, 0.0))
    torch.nn.utils.parametrize.remove_parametrizations(turned[0], "weight")
    assert type(turned[0]) is sc.nn.SubmConv2d
    assert isinstance(model[0].parametrizations, nn.ModuleDict)


def test_hooks_are_kept() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1))
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("after"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[1])  # the older one: a hook that writes an attribute
    turned = sc.submanifold(model)
    t = torch.randn(1, 1, 9, generator=generator(0))
    assert torch.equal(turned(t), model(t))
    assert calls == ["before", "after"] * 2


def test_a_module_used_twice_stays_one() -> None:
    shared = nn.Conv1d(2, 2, 3, padding=1)
    turned = sc.submanifold(nn.Sequential(shared, nn.ReLU(), shared))
    assert turned[0] is turned[2]
    assert type(turned[0]) is sc.nn.SubmConv1d
    with pytest.raises(sc.SparseConvTypeError, match=r"^model"):
        sc.submanifold(torch.relu)


def test_summary_counts_sites_pairs_and_flops() -> None:
    x = random_input(60, 2, (8, 9), batch=2, dtype=torch.float32)
    model = nn.Sequential(
        sc.nn.SubmConv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.MaxPool2d(2), sc.nn.ToDense(),
    )  # fmt: skip
    table = sc.summary(model, x, show=False)
    subm, relu, strided, pool, end = table.rows
    window = torch.ones(1, 1, 3, 3)
    mask = x.mask().float()
    pairs = int((dense_conv(mask, window, padding=1) * mask).sum())
    assert (subm.sites, subm.pairs, subm.flops) == (60, pairs, 2 * pairs * 8)
    assert subm.dense_flops == 2 * 2 * 72 * 9 * 8
    assert (relu.pairs, relu.flops, relu.field) == (0, 0, ())
    pairs = int(dense_conv(mask, window, stride=2, padding=1).sum())
    assert (strided.pairs, strided.flops) == (pairs, 2 * pairs * 24)
    assert strided.sites == int((dense_conv(mask, window, stride=2, padding=1) > 0).sum())
    assert strided.shape == (2, 6, 4, 5)
    assert (subm.field, strided.field, pool.field) == ((3, 3), (5, 5), (7, 7))
    assert (subm.parameters, strided.parameters) == (72, 222)
    assert table.parameters == 294
    assert pool.pairs > 0
    assert end.sites == 2 * 2 * 2
    assert table.flops == subm.flops + strided.flops
    assert table.peak == max(row.peak for row in table.rows)
    assert subm.memory == 60 * 4 * 4 + 8 * subm.pairs
    rulebook = x.sites.convolve(
        sc.core.geometry.make_geometry((3, 3), kind=sc.core.geometry.Kind.SUBMANIFOLD)
    )
    assert rulebook[1].num_pairs == subm.pairs


def test_summary_of_the_network_with_skips(capsys: pytest.CaptureFixture[str]) -> None:
    x = random_input(100, 1, (12, 12, 12), batch=2, dtype=torch.float32)
    model = sc.models.UNet(1, 5, widths=(4, 8))
    modes = [module.training for module in model.modules()]
    table = sc.summary(model, x)
    assert capsys.readouterr().out == f"{table}\n"
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    text = str(table)
    assert "ups.0" in text
    assert "SubmConv3d" in text
    assert not table.note
    up = next(row for row in table.rows if row.name == "ups.0")
    down = next(row for row in table.rows if row.name == "downs.0.0")
    assert up.pairs == down.pairs == up.sites == 100
    assert all(math.isfinite(row.peak) and row.peak > 0 for row in table.rows)
    assert len({len(line) for line in text.splitlines()[1:2]}) == 1


def test_summary_warns_where_sites_vanish() -> None:
    coords = torch.tensor([[0, 0], [0, 4], [1, 4]])
    x = sc.SparseTensor(torch.ones(3, 1), coords, (5,))
    table = sc.summary(nn.Sequential(nn.Conv1d(1, 1, 2, 2), nn.ReLU()), x, show=False)
    assert table.warnings == (
        "0: 2 of 3 input sites are read by no window",
        "0: samples [1] have no site left",
    )
    assert str(table).count("!") == 2
    gone = sc.summary(nn.Conv1d(1, 1, 2, 2), x[1], show=False)
    assert gone.rows[0].sites == 0
    assert len(gone.warnings) == 2


def test_summary_sees_functions_and_dense_models() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 1, 3))
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.conv1d(x, self.weight, stride=2)
            return self.head(x.mean(2))

    table = sc.summary(Plain(), torch.zeros(2, 1, 9), show=False)
    names = [row.name for row in table.rows]
    assert names[0] == "conv1d"
    assert names[-1] == "head"
    assert table.rows[0].flops == table.rows[0].dense_flops == 2 * 2 * 4 * 2 * 3
    assert table.rows[-1].flops == 2 * 2 * 2 * 3
    x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0], [1, 4]]), (9,))
    model = nn.Sequential(sc.nn.SubmConv1d(1, 2, 3), nn.Identity())
    odd = copy.deepcopy(model)
    odd[1].forward = lambda x: x.replace(x.features.roll(1, 0))
    assert sc.summary(odd, x, show=False).note
    for wrong in ((torch.relu, x), (model, [1])):
        with pytest.raises(sc.SparseConvTypeError):
            sc.summary(*wrong)
