"""Keyword arguments by NumPy's names, and NumPy's own reductions, as on a dense tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sparseconv as sc

AXES = (1, (2, 3), (0, 2, 3), None)


def everywhere() -> tuple[sc.SparseTensor, torch.Tensor]:
    """Return a tensor whose every site is active, and the dense one."""
    torch.manual_seed(0)
    t = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    return sc.SparseTensor.from_dense(t, torch.ones(2, 4, 5, dtype=torch.bool)), t


def dense(y: Any) -> torch.Tensor:
    return y if isinstance(y, torch.Tensor) else y.dense()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "amax", "var"])
def test_axis_and_keepdims_are_dim_and_keepdim(name: str, axis: Any, keep: bool) -> None:
    x, t = everywhere()
    if axis is None and name == "amax":
        axis = (0, 1, 2, 3)
    expected = getattr(torch, name)(t, dim=axis, keepdim=keep)
    for y in (
        getattr(torch, name)(x, axis=axis, keepdims=keep),
        getattr(x, name)(axis=axis, keepdims=keep),
    ):
        torch.testing.assert_close(dense(y), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.max(x, axis=1).values,
        lambda x: torch.softmax(x, axis=1),
        lambda x: torch.cat([x, x], axis=1),
        lambda x: x.permute(0, 2, 3, 1).mean(axis=-1),
        lambda x: torch.sum(x.permute(0, 2, 3, 1), axis=-1, keepdims=True),
    ],
)
def test_a_call_gives_what_it_gives_on_the_dense_tensor(call: Callable[[Any], Any]) -> None:
    x, t = everywhere()
    torch.testing.assert_close(dense(call(x)), torch.as_tensor(call(t)))


def test_the_reductions_of_numpy_are_those_of_the_tensor() -> None:
    x, t = everywhere()
    for function in (np.sum, np.mean):
        reduce = getattr(torch, function.__name__)
        for axis in AXES:
            torch.testing.assert_close(dense(function(x, axis=axis)), reduce(t, dim=axis))
        kept = function(x, axis=(2, 3), keepdims=True)
        torch.testing.assert_close(dense(kept), reduce(t, dim=(2, 3), keepdim=True))


def test_a_place_for_the_result_is_refused() -> None:
    x, _ = everywhere()
    with pytest.raises(TypeError, match="out"):
        torch.sum(x, dim=1, out=torch.empty(0))
