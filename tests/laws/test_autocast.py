"""torch.autocast: every function gives the dtype that PyTorch's dense one gives on that device."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import REAL_DEVICES, assert_close, generator

import sparseconv as sc
from sparseconv.functional.precision import FLOAT32
from sparseconv.functional.values.pointwise import ACTIVATIONS, UNARY

HALVES = (torch.bfloat16, torch.float16)
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
Call = Callable[[Any, Callable[..., torch.Tensor]], Any]


def of_axes(name: str, axes: int) -> Callable[..., Any]:
    return getattr(F, f"{name}{axes}d")


def over_channels(function: Callable[..., Any], x: Any, *args: Any) -> Any:
    """Call a function of the last axis on the channels; sparse tensors have them there."""
    if isinstance(x, sc.SparseTensor):
        return function(x, *args)
    return function(x.movedim(1, -1), *args)


def spatial(x: Any) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


# name -> call(x, p, D): ``p(*shape)`` makes a parameter in float32
CALLS: dict[str, Callable[[Any, Callable[..., torch.Tensor], int], Any]] = {
    "conv": lambda x, p, d: of_axes("conv", d)(x, p(6, 4, *(3,) * d), p(6), padding=1),
    "conv strided": lambda x, p, d: of_axes("conv", d)(x, p(6, 4, *(2,) * d), stride=2),
    "conv_transpose": lambda x, p, d: of_axes("conv_transpose", d)(
        x, p(4, 6, *(2,) * d), p(6), stride=2
    ),
    "linear": lambda x, p, d: over_channels(F.linear, x, p(6, 4), p(6)),
    "max_pool": lambda x, p, d: of_axes("max_pool", d)(x, 2),
    "avg_pool": lambda x, p, d: of_axes("avg_pool", d)(x, 2),
    "avg_pool active": lambda x, p, d: of_axes("avg_pool", d)(x, 2, count_include_pad=False),
    "lp_pool": lambda x, p, d: of_axes("lp_pool", d)(x, 3.0, 2),
    "adaptive_avg_pool": lambda x, p, d: of_axes("adaptive_avg_pool", d)(x, 1),
    "adaptive_max_pool": lambda x, p, d: of_axes("adaptive_max_pool", d)(x, 1),
    "batch_norm train": lambda x, p, d: F.batch_norm(x, p(4), p(4), p(4), p(4), True),
    "batch_norm eval": lambda x, p, d: F.batch_norm(x, p(4), p(4), p(4), p(4), False),
    "instance_norm": lambda x, p, d: F.instance_norm(x, weight=p(4), bias=p(4)),
    "group_norm": lambda x, p, d: F.group_norm(x, 2, p(4), p(4)),
    "group_norm plain": lambda x, p, d: F.group_norm(x, 2),
    "layer_norm": lambda x, p, d: over_channels(F.layer_norm, x, (4,), p(4), p(4)),
    "rms_norm": lambda x, p, d: over_channels(F.rms_norm, x, (4,), p(4)),
    "softmax": lambda x, p, d: F.softmax(x, 1),
    "log_softmax": lambda x, p, d: F.log_softmax(x, 1),
    "gumbel_softmax": lambda x, p, d: F.gumbel_softmax(x, dim=1),
    "glu": lambda x, p, d: F.glu(x, 1),
    "normalize": lambda x, p, d: F.normalize(x, dim=1),
    "dropout": lambda x, p, d: F.dropout(x),
    "feature dropout": lambda x, p, d: of_axes("dropout", d)(x),
    "alpha_dropout": lambda x, p, d: F.alpha_dropout(x, 0.5, True),
    "feature_alpha_dropout": lambda x, p, d: F.feature_alpha_dropout(x, 0.5, True),
    "prelu": lambda x, p, d: F.prelu(x, p(4)),
    "prelu shared": lambda x, p, d: F.prelu(x, p(1)),
    "interpolate nearest": lambda x, p, d: F.interpolate(x, scale_factor=2),
    "interpolate linear": lambda x, p, d: F.interpolate(x, scale_factor=2, mode=LINEAR[d]),
    "cat": lambda x, p, d: torch.cat([x, x], 1),
    "cat mixed": lambda x, p, d: torch.cat([x, x.float()], 1),
    "add": lambda x, p, d: x + x,
    "add mixed": lambda x, p, d: x + x.float(),
    "mul number": lambda x, p, d: x * 2.5,
    "mul tensor": lambda x, p, d: x * p(1, 4, *(1,) * d),
    "where": lambda x, p, d: torch.where(x > 0.5, x, x.float()),
    "maximum": lambda x, p, d: torch.maximum(x, x.float()),
    "clamp": lambda x, p, d: torch.clamp(x, 0, 1),
    "pow": lambda x, p, d: torch.pow(x, 2),
    "atan2": lambda x, p, d: torch.atan2(x, x.float()),
    "sum": lambda x, p, d: x.sum(spatial(x)),
    "sum of all": lambda x, p, d: x.sum(),
    "sum of channels": lambda x, p, d: x.sum(1, keepdim=True),
    "mean": lambda x, p, d: x.mean(spatial(x)),
    "mean of channels": lambda x, p, d: x.mean(1, keepdim=True),
    "amax": lambda x, p, d: x.amax(spatial(x)),
    "var": lambda x, p, d: x.var(spatial(x)),
    "std": lambda x, p, d: x.std(spatial(x)),
    "norm": lambda x, p, d: torch.norm(x, dim=spatial(x)),
    "norm of order 3": lambda x, p, d: torch.norm(x, 3, dim=spatial(x)),
    "norm of order inf": lambda x, p, d: torch.norm(x, math.inf, dim=spatial(x)),
    "norm of channels": lambda x, p, d: torch.norm(x, dim=1, keepdim=True),
    "channel_shuffle": lambda x, p, d: F.channel_shuffle(x, 2),
    "pad": lambda x, p, d: F.pad(x, (1, 1)),
}
_ARGUMENTS = {F.threshold: (0.1, 0.2), torch.threshold: (0.1, 0.2), torch.threshold_: (0.1, 0.2)}
for _function in ACTIVATIONS + UNARY:
    CALLS[f"{_function.__module__} {_function.__name__}"] = lambda x, p, d, f=_function: f(
        x.clone(), *_ARGUMENTS.get(f, ())
    )
SQUARE = {
    "pixel_shuffle": lambda x, p, d: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x, p, d: F.pixel_unshuffle(x, 2),
}


def run(
    call: Callable[..., Any], x: Any, lower: torch.dtype, leaves: list[torch.Tensor]
) -> torch.Tensor | Exception:
    """Return the result's values, or what was raised; the parameters go to ``leaves``."""
    source = generator(1)

    def parameter(*shape: int) -> torch.Tensor:
        values = 0.1 + torch.rand(*shape, generator=source)
        # running statistics are written to, and want no gradient
        leaves.append(values.to(x.device).requires_grad_(len(shape) > 1))
        return leaves[-1]

    try:
        with torch.autocast(x.device.type, lower):
            y = call(x, parameter, x.ndim - 2)
    except Exception as error:  # whatever PyTorch refuses
        return error
    return y.features if isinstance(y, sc.SparseTensor) else y


@pytest.mark.parametrize("lower", HALVES, ids=str)
@pytest.mark.parametrize("given", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("device", REAL_DEVICES)
def test_every_function_gives_the_dtype_of_the_dense_one(
    device: str, axes: int, given: torch.dtype, lower: torch.dtype, as_users_run: None
) -> None:
    """As users run: dense pooling has no deterministic backward pass on a GPU."""
    t = 0.05 + 0.9 * torch.rand(2, 4, *(4,) * axes, generator=generator(0)).to(device)
    compared = 0
    for name, call in (CALLS | (SQUARE if axes == 2 else {})).items():
        dense, ours = t.to(given).requires_grad_(), t.to(given).requires_grad_()
        weights, parameters = [], []
        expected = run(call, dense, lower, weights)
        if isinstance(expected, Exception):
            continue  # PyTorch mixes no halves in many places, where we may
        x = sc.SparseTensor.from_dense(ours, torch.ones(2, *t.shape[2:], device=device) > 0)
        y = run(call, x, lower, parameters)
        assert isinstance(y, torch.Tensor), f"{name}: {y!r}"
        assert y.dtype == expected.dtype, f"{name}: {y.dtype}, dense {expected.dtype}"
        compared += 1
        if not expected.requires_grad:
            continue
        for output in (expected, y):
            output.float().square().sum().backward()
        for mine, theirs in zip((ours, *parameters), (dense, *weights), strict=True):
            assert (mine.grad is None) == (theirs.grad is None), name
            assert mine.grad is None or mine.grad.dtype == mine.dtype, name
    assert compared > 80


def declared(macro: str) -> set[str]:
    """Return the operators that PyTorch's own header lists under a macro, for CUDA."""
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", header.read_text(), re.DOTALL)
    assert body is not None
    return set(re.findall(r"_\((?:ADD_NS\()?(\w+)", body[1]))


def test_off_the_cpu_the_table_is_pytorchs_own() -> None:
    listed = declared("AT_FORALL_FP32") | declared("AT_FORALL_FP32_SET_OPT_DTYPE")
    listed |= declared("AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE")
    operators = {"interpolate": "upsample_bilinear2d"}
    # what is computed here from other operators; the rest runs PyTorch's on the rows
    composed = {
        "group_norm", "layer_norm", "rms_norm", "batch_norm", "instance_norm", "interpolate",
        "avg_pool1d", "avg_pool2d", "avg_pool3d", "sum", "mean", "amax", "amin", "var", "std",
        "norm", "adaptive_avg_pool2d",
    }  # fmt: skip
    assert {name for name in composed if operators.get(name, name) in listed} == FLOAT32["cuda"]
    assert {"conv3d", "conv_transpose2d", "prelu", "linear"} <= declared(
        "AT_FORALL_LOWER_PRECISION_FP"
    )


def test_values_under_autocast_are_those_of_the_dense_run() -> None:
    t = torch.rand(2, 4, 6, 6, generator=generator(0))
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.PReLU(8),
        torch.nn.AvgPool2d(2),
        torch.nn.GroupNorm(2, 8),
        torch.nn.ConvTranspose2d(8, 3, 2, 2),
    )
    for training in (True, False):
        net.train(training)
        with torch.autocast("cpu", torch.bfloat16):
            expected = net(t)
            y = net(sc.SparseTensor.from_dense(t, torch.ones(2, 6, 6) > 0))
        assert y.dtype == expected.dtype == torch.bfloat16
        assert_close(y.dense(), expected)
