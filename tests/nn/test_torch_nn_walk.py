"""Every module of torch.nn either runs on a SparseTensor or is refused for a reason given here."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import assert_close, random_input
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.core.dispatch import HANDLERS, MEANINGS, REFUSED

AXES = {"1d": 1, "2d": 2, "3d": 3}
SIZE = (6, 6, 6)

# By the module's name without its number of axes; each is called on (B, 4, *SIZE).
SUPPORTED: dict[str, Callable[[Any], nn.Module]] = {
    "AdaptiveAvgPool": lambda cls: cls(1),
    "AdaptiveMaxPool": lambda cls: cls(1),
    "AlphaDropout": lambda cls: cls(0.3),
    "AvgPool": lambda cls: cls(2),
    "BatchNorm": lambda cls: cls(4),
    "CELU": lambda cls: cls(),
    "ChannelShuffle": lambda cls: cls(2),
    "ConstantPad": lambda cls: cls(1, 0.0),
    "CircularPad": lambda cls: cls(1),
    "Conv": lambda cls: cls(4, 3, 2),
    "ConvTranspose": lambda cls: cls(4, 3, 2),
    "Dropout": lambda cls: cls(0.3),
    "ELU": lambda cls: cls(),
    "FeatureAlphaDropout": lambda cls: cls(0.3),
    "GELU": lambda cls: cls(),
    "GLU": lambda cls: cls(dim=1),
    "GroupNorm": lambda cls: cls(2, 4),
    "Hardshrink": lambda cls: cls(),
    "Hardsigmoid": lambda cls: cls(),
    "Hardswish": lambda cls: cls(),
    "Hardtanh": lambda cls: cls(),
    "Identity": lambda cls: cls(),
    "InstanceNorm": lambda cls: cls(4),
    "LPPool": lambda cls: cls(2, 2),
    "LayerNorm": lambda cls: cls(4),
    "LazyBatchNorm": lambda cls: cls(),
    "LazyConv": lambda cls: cls(3, 2),
    "LazyConvTranspose": lambda cls: cls(3, 2),
    "LazyInstanceNorm": lambda cls: cls(),
    "LeakyReLU": lambda cls: cls(),
    "Linear": lambda cls: cls(4, 3),
    "LogSigmoid": lambda cls: cls(),
    "LogSoftmax": lambda cls: cls(1),
    "MaxPool": lambda cls: cls(2),
    "Mish": lambda cls: cls(),
    "PReLU": lambda cls: cls(4),
    "PixelShuffle": lambda cls: cls(2),
    "PixelUnshuffle": lambda cls: cls(2),
    "ReflectionPad": lambda cls: cls(1),
    "ReplicationPad": lambda cls: cls(1),
    "RMSNorm": lambda cls: cls(4),
    "RReLU": lambda cls: cls(),
    "ReLU": lambda cls: cls(),
    "ReLU6": lambda cls: cls(),
    "SELU": lambda cls: cls(),
    "SiLU": lambda cls: cls(),
    "Sigmoid": lambda cls: cls(),
    "Softmax": lambda cls: cls(1),
    "Softmax2d": lambda cls: cls(),
    "Softmin": lambda cls: cls(1),
    "Softplus": lambda cls: cls(),
    "Softshrink": lambda cls: cls(),
    "Softsign": lambda cls: cls(),
    "SyncBatchNorm": lambda cls: cls(4),
    "Tanh": lambda cls: cls(),
    "Tanhshrink": lambda cls: cls(),
    "Threshold": lambda cls: cls(0.1, 0.2),
    "Unflatten": lambda cls: cls(1, (2, 2)),
    "Upsample": lambda cls: cls(scale_factor=2),
    "UpsamplingBilinear2d": lambda cls: cls(scale_factor=2),
    "UpsamplingNearest2d": lambda cls: cls(scale_factor=2),
    "ZeroPad": lambda cls: cls(1),
}

# Modules that raise on a SparseTensor and say what to use instead.
RAISES: dict[str, Callable[[Any, Any], Any]] = {
    "CosineSimilarity": lambda cls, x: cls()(x, x),
    "CrossMapLRN2d": lambda cls, x: cls(2)(x),
    "Embedding": lambda cls, x: cls(2, 2)(x),
    "EmbeddingBag": lambda cls, x: cls(2, 2)(x),
    "Bilinear": lambda cls, x: cls(4, 4, 2).double()(x, x),
    "Flatten": lambda cls, x: cls()(x),
    "Fold": lambda cls, x: cls(2, 1)(x),
    "FractionalMaxPool": lambda cls, x: cls(2, output_size=2)(x),
    "LazyLinear": lambda cls, x: cls(2)(x),
    "LocalResponseNorm": lambda cls, x: cls(2)(x),
    "MaxUnpool": lambda cls, x: cls(2)(x, torch.zeros(1)),
    "PairwiseDistance": lambda cls, x: cls()(x, x),
    "Unfold": lambda cls, x: cls(2)(x),
}

# What never meets the features of a SparseTensor, and why.
CATEGORIES = {
    "holds other modules": {
        *("Container", "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"),
        *("Sequential", "DataParallel"),
    },
    "a loss compares features, which are a plain tensor: loss(x.features, target)": {
        *("AdaptiveLogSoftmaxWithLoss", "BCELoss", "BCEWithLogitsLoss", "CTCLoss"),
        *("CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss"),
        *("HuberLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss", "MSELoss"),
        *("MarginRankingLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"),
        *("MultiMarginLoss", "NLLLoss", "NLLLoss2d", "PoissonNLLLoss", "SmoothL1Loss"),
        *("SoftMarginLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss"),
    },
    "runs over sequences, which have no grid": {
        *("GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"),
        *("MultiheadAttention", "Transformer", "TransformerDecoder", "TransformerDecoderLayer"),
        *("TransformerEncoder", "TransformerEncoderLayer"),
    },
}
ELSEWHERE = frozenset().union(*CATEGORIES.values())


def modules() -> dict[str, type[nn.Module]]:
    """Return every module class of torch.nn."""
    return {
        name: value
        for name, value in vars(nn).items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    }


def stem(name: str, table: dict[str, Any]) -> str:
    """Return the name under which a table lists a module."""
    return name if name in table else name[:-2] if name[-2:] in AXES else name


def input_for(name: str) -> sc.SparseTensor:
    axes = AXES.get(name[-2:], 3)
    if name.startswith("Pixel") or "2d" in name:
        axes = 2
    x = random_input(4 if axes == 1 else 20, 4, SIZE[:axes], batch=2)
    return x.replace(x.features.abs())


def test_every_module_is_listed() -> None:
    for name in modules():
        listed = [stem(name, table) in table for table in (SUPPORTED, RAISES)]
        listed.append(name in ELSEWHERE)
        assert sum(listed) == 1, f"torch.nn.{name} must be supported or refused, for a reason"


@pytest.mark.parametrize("name", [n for n in modules() if stem(n, SUPPORTED) in SUPPORTED])
def test_a_supported_module_runs(name: str, engine: str) -> None:
    x = input_for(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules warn that they are new
        layer = SUPPORTED[stem(name, SUPPORTED)](modules()[name]).double()
    features = x.features.clone().requires_grad_()
    y = layer(x.replace(features))
    assert isinstance(y, sc.SparseTensor)
    assert y.features.isfinite().all()
    y.features.sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in modules() if stem(n, RAISES) in RAISES])
def test_a_refused_module_says_what_to_use(name: str) -> None:
    x = input_for(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(sc.SparseConvError) as raised:
            RAISES[stem(name, RAISES)](modules()[name], x)
    assert "\n" not in str(raised.value)


def table_tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "function_table.py"
    spec = importlib.util.spec_from_file_location("function_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_functions_is_current() -> None:
    tool = table_tool()
    assert tool.TARGET.read_text(encoding="utf-8") == tool.text(), (
        "run python tools/function_table.py"
    )


def test_no_function_is_both_supported_and_refused() -> None:
    assert not set(HANDLERS) & set(REFUSED)
    assert set(MEANINGS) <= set(HANDLERS)


def test_every_refusal_names_the_function_and_a_remedy() -> None:
    for function, remedy in REFUSED.items():
        with pytest.raises(sc.SparseConvNotImplementedError) as raised:
            sc.core.dispatch.handler_of(function)(input_for("3d"))
        assert remedy in str(raised.value)
        assert "\n" not in str(raised.value)


def test_fusing_a_convolution_with_its_batch_norm() -> None:
    net = nn.Sequential(nn.Conv3d(4, 5, 3, padding=1), nn.BatchNorm3d(5)).double()
    x = input_for("3d")
    for _ in range(3):
        net(x)
    net.eval()
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(net[0], net[1])
    assert_close(fused(x).features, net(x).features)


def test_parametrized_weights_hooks_and_module_lists() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 5, 3, padding=1).double())
    x = input_for("3d")
    seen: list[Any] = []
    layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    layers = nn.ModuleList([layer, nn.Identity()])
    y = x
    for entry in layers:
        y = entry(y)
    assert seen[0][0] is x
    assert seen[0][1] is y
    y.features.sum().backward()
    gradients: list[Tensor | None] = [entry.grad for entry in layer.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in gradients)
    assert_close(y.features, nn.functional.conv3d(x, layer.weight, layer.bias, padding=1).features)
