"""A dense tensor's methods and operators, in place too, and parts of the channels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import assert_close, random_mask, sparse
from devices import bench
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.core import foreign_names
from sparseconv.functional.values.pointwise import PAIRWISE, UNARY

SHAPE = (2, 4, 4, 6)
EVERYWHERE = torch.ones(2, 4, 6, dtype=torch.bool)


def dense_input(low: float = 0.1, high: float = 0.9) -> Tensor:
    return torch.rand(*SHAPE, dtype=torch.float64) * (high - low) + low


def in_place_names() -> list[str]:
    functions = (*UNARY, *PAIRWISE, torch.add, torch.sub, torch.mul, torch.div)
    names = {f"{function.__name__}_" for function in functions}
    underived = {"acosh_", "asinh_", "atanh_", "floor_divide_"}  # PyTorch has no gradient of them
    return sorted(name for name in names - underived if hasattr(Tensor, name))


@pytest.mark.parametrize("name", in_place_names())
def test_in_place_methods(name: str) -> None:
    t, other = dense_input(), dense_input(0.4, 0.6)
    pairwise = {f"{function.__name__}_" for function in PAIRWISE} | {"add_", "sub_", "mul_", "div_"}
    operands: tuple[Any, ...] = (other,) if name in pairwise else ()
    if name == "lerp_":
        operands = (other, 0.25)
    results = []
    for make in (lambda t: t.clone(), lambda t: sparse(t, EVERYWHERE, None)):
        leaf = t.clone().requires_grad_()
        x = make(leaf * 1)
        given = [make(value) if isinstance(value, Tensor) else value for value in operands]
        y = getattr(x, name)(*given)
        assert y is x
        rows = y.dense() if isinstance(y, sc.SparseTensor) else y
        results.append((rows, *torch.autograd.grad((rows**2).sum(), leaf, allow_unused=True)))
    (expected, wanted), (got, gradient) = results
    assert_close(got, expected)
    assert (wanted is None) == (gradient is None)
    if wanted is not None:
        assert_close(gradient, wanted)


def _plus(x: Any, y: Any) -> Any:
    x += y
    return x


def _minus(x: Any, y: Any) -> Any:
    x -= y
    return x


def _times(x: Any, y: Any) -> Any:
    x *= y
    return x


def _over(x: Any, y: Any) -> Any:
    x /= y
    return x


@pytest.mark.parametrize("operator", [_plus, _minus, _times, _over])
@pytest.mark.parametrize("kind", ["number", "channels", "same", "itself"])
def test_assignment_operators_write_where_a_dense_tensor_does(
    operator: Callable[[Any, Any], Any], kind: str
) -> None:
    t = dense_input()
    other = {"number": 0.5, "channels": dense_input()[:1, :, :1, :1]}.get(kind, dense_input())
    dense, x = t.clone(), sparse(t, EVERYWHERE, None)
    alias = x
    beside: Any = x.replace(x.features.flip(0)) if kind == "same" else other
    if kind == "same":
        other = beside.dense()
    if kind == "itself":
        other, beside = dense, x
    assert operator(x, beside) is alias
    assert_close(alias.dense(), operator(dense, other))


def test_assignment_on_other_sites_makes_a_new_tensor() -> None:
    x, y = (sparse(dense_input(), random_mask(2, (4, 6), 0.5, seed), None) for seed in (1, 2))
    before = x.features.clone()
    expected = x.dense() + y.dense()
    z = _plus(x, y)
    assert_close(z.dense(), expected)
    assert torch.equal(x.features, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x[:, :1].add_(x), "other: has 4 channels, the tensor that is written has 1"),
        (lambda x: torch.ones(SHAPE, dtype=torch.float64).add_(x), "a dense tensor takes in no"),
        (lambda x: x.add_(x[:1]), "must live on the same sites"),
        (
            lambda x: x.cumsum_(1),
            r"torch.Tensor.cumsum_ has no sparse meaning here; use cumsum, wh",
        ),
        (lambda x: x[:, 2], r"takes samples and a slice of channels, x\[:, 2:5\]"),
        (lambda x: x[:, ::-1], "a slice of channels"),
        (lambda x: x[:, "a":], "a slice of channels"),
        (lambda x: x["a":], "takes the index of a sample"),
        (lambda x: x[::0], "takes the index of a sample"),
        (lambda x: x["a", :], "takes the index of a sample"),
        (lambda x: x[torch.ones(2), :], "takes the index of a sample"),
        (lambda x: x[:, :, torch.ones(3)], "a slice of channels"),
        (lambda x: x[:, :, 1:], "sparseconv.crop cuts the spatial axes"),
        (lambda x: x.split(3, 0), "dim=1, got 0"),
        (lambda x: x.split([1, 2], 1), r"split: \[1, 2\] does not cut 4 channels"),
        (lambda x: x.chunk(0, 1), "chunk: 0 does not cut 4 channels"),
        (lambda x: _plus(x, None), "other: must be a number, a torch.Tensor or a SparseTensor"),
        (lambda x: x.backward(), "autograd follows x.features"),
    ],
)
def test_refusals(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(sc.SparseConvError, match=message):
        call(sparse(dense_input(), EVERYWHERE, None))


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.chunk(3, dim=1),
        lambda x: torch.chunk(x, 2, 1),
        lambda x: x.split(3, dim=1),
        lambda x: torch.split(x, [1, 3], dim=-3),
        lambda x: [x[:, 1:3], x[:, :-1], x[0:1, ::2], x[:, :, :, :], x[1:, 1:, ...], x[()]],
    ],
)
def test_parts_of_the_channels(cut: Callable[[Any], Any]) -> None:
    t = dense_input()
    parts, expected = cut(sparse(t, EVERYWHERE)), cut(t)
    assert len(parts) == len(expected)
    for part, wanted in zip(parts, expected, strict=True):
        assert_close(part.dense(), wanted)


def test_operators_of_python() -> None:
    t = dense_input()
    x = sparse(t, EVERYWHERE)
    for operate in (
        lambda x: 2**x,
        lambda x: x % 0.3,
        lambda x: x // 0.3,
        lambda x: +x,
        lambda x: torch.full(SHAPE, 3.0, dtype=torch.float64) ** x,
        lambda x: torch.full(SHAPE, 3.0, dtype=torch.float64) % x,
        lambda x: torch.full(SHAPE, 3.0, dtype=torch.float64) // x,
        lambda x: 3 % x,
        lambda x: 3 // x,
    ):
        assert_close(operate(x).dense(), operate(t))
    with pytest.raises(sc.SparseConvNotImplementedError, match="Linear"):
        x @ x


def test_every_method_of_a_dense_tensor_works_or_says_what_to_use() -> None:
    x = sparse(dense_input(), EVERYWHERE)
    asked = ("is_", "pin_memory", "share_memory_", "storage", "data_ptr", "untyped_storage")
    for name in dir(Tensor):
        if name.startswith(("_", *asked)) or not callable(getattr(Tensor, name)):
            continue
        if name in {*foreign_names.TENSOR, bench.NAME}:  # of torch's sparse tensors; a test's own
            continue
        method = getattr(x, name)
        if "*args" not in str(inspect.signature(method)):
            continue  # our own
        try:
            method()
        except sc.SparseConvNotImplementedError as error:
            assert name.rstrip("_") in str(error) or "loss" in str(error)
            assert "use " in str(error) or "call it" in str(error) or "SparseTensor" in str(error)
        except (TypeError, ValueError, sc.SparseConvError):
            pass  # a method that needs arguments
        except RuntimeError as error:
            assert name.startswith("clamp"), error  # PyTorch's own word on a missing argument


def test_conversions_that_say_how_a_dense_tensor_lies_in_memory() -> None:
    x = sparse(dense_input(), EVERYWHERE)
    assert x.contiguous() is x
    assert x.to(memory_format=torch.channels_last).features is x.features
    assert x.to(torch.float32, memory_format=torch.channels_last).dtype == torch.float32
    assert x.type_as(torch.ones(1, dtype=torch.float16)).dtype == torch.float16
    assert x.to(x.float()).dtype == torch.float32


LAYERS: dict[str, Callable[[Any], Any]] = {
    "pad": lambda x: F.pad(x, (1, 0, 0, 1)),
    "no pad": lambda x: F.pad(x, (0, 0)),
    "max pool": lambda x: F.max_pool2d(x, 1),
    "average pool": lambda x: F.avg_pool2d(x, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=1),
    "linear": lambda x: F.interpolate(x, size=(4, 6), mode="bilinear"),
    "shuffle": lambda x: F.pixel_shuffle(x, 1),
    "unshuffle": lambda x: F.pixel_unshuffle(x, 1),
    "channel shuffle": lambda x: F.channel_shuffle(x, 1),
    "cat": lambda x: torch.cat([x], dim=1),
    "clone": torch.clone,
    "dropout": lambda x: F.dropout(x, 0.0),
    "dropout in eval": lambda x: F.dropout(x, 0.5, training=False),
    "channel dropout": lambda x: F.dropout2d(x, 0.0),
    "relu": F.relu,
    "plus nothing": lambda x: x + 0,
    "positive": lambda x: +x,
    "to": lambda x: x.to(torch.float64),
    "a copy": lambda x: x.to(torch.float64, copy=True),
    "double": lambda x: x.double(),
    "detach": lambda x: x.detach(),
    "all channels": lambda x: x[:, :],
    "chunk": lambda x: x.chunk(1, 1)[0],
    "where": lambda x: torch.where(torch.ones(SHAPE, dtype=torch.bool), x, x),
    "clamp": lambda x: x.clamp(0, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 6)),
    "identity": nn.Identity(),
    "contiguous": lambda x: x.contiguous(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_writing_into_a_result_reaches_the_input_only_where_it_does_in_torch(name: str) -> None:
    t = dense_input()
    x = sparse(t, EVERYWHERE, None)
    dense = t.clone()
    try:
        LAYERS[name](dense).mul_(0)
        LAYERS[name](x).mul_(0)
    except sc.SparseConvNotImplementedError:
        return
    assert_close(x.dense(), dense)


IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 2, stride=2),
    "max pool": lambda: nn.MaxPool2d(2),
    "average pool": lambda: nn.AvgPool2d(3, 1, 1),
    "power pool": lambda: nn.LPPool2d(2, 2),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d(1),
    "adaptive average": lambda: nn.AdaptiveAvgPool2d(1),
    "batch": lambda: nn.BatchNorm2d(4),
    "batch in eval": lambda: nn.BatchNorm2d(4).eval(),
    "group": lambda: nn.GroupNorm(2, 4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "linear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "shuffle": lambda: nn.PixelShuffle(2),
    "pad": lambda: nn.ZeroPad2d(1),
    "channel shuffle": lambda: nn.ChannelShuffle(2),
    "dropout": lambda: nn.Dropout2d(0.0),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 0.5),
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("occupied", [True, False])
def test_an_activation_in_place_behind_a_layer_can_be_derived(name: str, occupied: bool) -> None:
    layer = IN_PLACE[name]().double()
    t = dense_input(-1, 1)
    mask = EVERYWHERE if occupied else random_mask(2, (4, 6), 0.5, 3)
    gradients = []
    for inplace in (True, False):
        leaf = t.clone().requires_grad_()
        y = layer(sparse(leaf, mask, 1) * 1)
        y = nn.ReLU(inplace=inplace)(y.add_(0.25))
        gradients.append(torch.autograd.grad((y.features**2).sum(), leaf)[0])
    assert_close(gradients[0], gradients[1])
    if occupied:
        dense = t.clone().requires_grad_()
        z = layer(dense * 1)
        z = nn.ReLU(inplace=True)(z.add_(0.25))
        assert_close(gradients[0], torch.autograd.grad((z**2).sum(), dense)[0])
