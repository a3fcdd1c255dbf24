"""Elementwise functions in used memory are those of PyTorch, with their derivatives."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc
from sparseconv.autograd import elementwise

LARGE = elementwise.MUCH // 16 * 9  # rows of 16 values, for several tasks


@pytest.mark.parametrize("rows", [0, 5, LARGE])
def test_values_are_those_of_torch(rows: int) -> None:
    x, y = torch.randn(rows, 16), torch.randn(rows, 16)
    x[::3, 0], x[::5, 1], x[::7, 2] = float("nan"), -0.0, float("inf")
    for function in (torch.add, torch.sub, torch.mul, torch.div):
        for other in (y, y[:1], 2, 0.5, y.double(), torch.tensor(3.0), torch.ones(16)):
            mine, wanted = elementwise.applied(function, x, other), function(x, other)
            assert mine.dtype == wanted.dtype
            assert torch.equal(mine.nan_to_num(7), wanted.nan_to_num(7))
    scaled = elementwise.applied(torch.add, y, y, alpha=2)
    assert torch.equal(scaled, torch.add(y, y, alpha=2))
    assert torch.equal(elementwise.joined([y, y[:, :3]]), torch.cat([y, y[:, :3]], dim=1))
    mine, wanted = elementwise.relu(x), torch.relu(x)
    assert torch.equal(mine.nan_to_num(7), wanted.nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [3, 2 * LARGE])
def test_gradients_are_those_of_torch(rows: int, dtype: torch.dtype) -> None:
    def run(relu, add, cat):  # type: ignore[no-untyped-def]
        x, y = (torch.linspace(-3, 5, rows * 16).view(-1, 16).to(dtype) for _ in range(2))
        x, y = x.requires_grad_(), y.flip(0).requires_grad_()
        z = cat([relu(add(relu(x), y)), x])
        return torch.autograd.grad(z, [x, y], torch.ones_like(z).cumsum(0).to(dtype))

    mine = run(
        elementwise.relu,
        lambda x, y: elementwise.applied(torch.add, x, y),
        elementwise.joined,
    )
    wanted = run(torch.relu, torch.add, lambda columns: torch.cat(columns, dim=1))
    assert all(map(torch.equal, mine, wanted))


def test_derivatives_of_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "MUCH", 1)
    torch.manual_seed(0)
    x, y = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        both = elementwise.applied(torch.add, elementwise.relu(x * y), y)
        return elementwise.joined([both, x]) ** 2

    assert gradcheck(function, (x, y))
    assert gradgradcheck(function, (x, y))


def test_tensors_with_large_features() -> None:
    coords = torch.stack([torch.zeros(LARGE).long(), torch.arange(LARGE)], dim=1)
    x = sc.SparseTensor(torch.randn(LARGE, 16), coords)
    assert torch.equal((x + x).features, x.features + x.features)
    assert torch.equal((2 - x).features, 2 - x.features)
    assert torch.equal(torch.relu(x).features, torch.relu(x.features))
    assert torch.equal(torch.cat([x, x], dim=1).features, torch.cat([x.features] * 2, dim=1))
    norm = torch.nn.BatchNorm1d(16)
    wanted = torch.nn.functional.batch_norm(x.features, None, None, training=True)
    torch.testing.assert_close(norm(x).features, wanted, rtol=1e-5, atol=1e-5)
    pooled = torch.nn.functional.max_pool1d(x, 2)
    assert torch.equal(pooled.features, x.features[: LARGE // 2 * 2].unflatten(0, (-1, 2)).amax(1))


@pytest.mark.parametrize("rows", [3, LARGE])
def test_results_may_be_changed_in_place(rows: int) -> None:
    x, y = torch.randn(rows, 16, requires_grad=True), torch.randn(rows, 16, requires_grad=True)
    for z in (elementwise.applied(torch.add, x, y), elementwise.joined([x, y])):
        z.mul_(2).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 4))
    z = elementwise.relu(x).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()  # as torch's own


def test_functional_transforms_pass() -> None:
    x = torch.randn(LARGE, 16)
    found = torch.func.grad(lambda x: elementwise.relu(x).sum())(x)
    assert torch.equal(found, (x > 0).float())
