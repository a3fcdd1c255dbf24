"""Functions of ``torch.nn.functional`` on the features of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import functional as F

from sparseconv.compat.minkowski.base import Tensor
from sparseconv.core.arguments import check_kind

_VALUES = [
    "threshold",
    "relu",
    "hardtanh",
    "hardswish",
    "relu6",
    "elu",
    "selu",
    "celu",
    "leaky_relu",
    "prelu",
    "rrelu",
    "glu",
    "gelu",
    "logsigmoid",
    "hardshrink",
    "tanhshrink",
    "softsign",
    "softplus",
    "softmin",
    "softmax",
    "softshrink",
    "gumbel_softmax",
    "log_softmax",
    "tanh",
    "sigmoid",
    "hardsigmoid",
    "silu",
    "batch_norm",
    "normalize",
    "linear",
    "dropout",
    "alpha_dropout",
]
_LOSSES = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "poisson_nll_loss",
    "cross_entropy",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "multi_margin_loss",
    "nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]


def _on_features(name: str, is_loss: bool) -> Callable[..., Any]:
    """Return one of PyTorch's functions for a tensor of either kind."""
    function = getattr(F, name)

    def on_features(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        check_kind("input", input, Tensor, "a SparseTensor or a TensorField")
        result = function(input.F, *args, **kwargs)
        return result if is_loss else input.with_features(result)

    on_features.__name__ = on_features.__qualname__ = name
    on_features.__doc__ = f"``torch.nn.functional.{name}`` of the features; arguments as there."
    return on_features


globals().update({name: _on_features(name, False) for name in _VALUES})
globals().update({name: _on_features(name, True) for name in _LOSSES})

__all__: list[str] = []
__all__.extend(_VALUES + _LOSSES)
