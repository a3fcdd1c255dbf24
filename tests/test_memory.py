"""Large results lie in memory of their own and hold what small ones hold."""

from __future__ import annotations

import pytest
import torch

import sparseconv as sc
from sparseconv import memory

LARGE = (memory.LEAST_BYTES // 64 + 1, 16)  # float32 rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("shape", [LARGE, (3, 5), (0, 4), (LARGE[0], 2, 16)])
def test_memory_is_contiguous_aligned_and_no_view(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = memory.empty(shape, dtype)
    assert (x.shape, x.dtype) == (shape, dtype)
    assert x.is_contiguous()
    assert not x._is_view()
    assert x.data_ptr() % memory.ALIGNMENT == 0
    x.fill_(3)
    assert bool((x == 3).all())


@pytest.mark.parametrize("rows", [5, LARGE[0]])
def test_sums_and_joins_are_those_of_torch(rows: int) -> None:
    x, y = torch.randn(rows, 16), torch.randn(rows, 16)
    assert torch.equal(memory.applied(torch.add, x, y, alpha=2), torch.add(x, y, alpha=2))
    assert torch.equal(memory.applied(torch.addcmul, y[:1], x, y), torch.addcmul(y[:1], x, y))
    assert torch.equal(memory.joined([x, y[:, :3]]), torch.cat([x, y[:, :3]], dim=1))
    mixed = memory.applied(torch.mul, x, y.double())
    assert mixed.dtype == torch.float64
    assert torch.equal(mixed, x * y.double())


def test_gradients_pass() -> None:
    x, y = torch.randn(LARGE, requires_grad=True), torch.randn(LARGE)
    (memory.applied(torch.mul, x, y).sum() + memory.joined([x, y]).sum()).backward()
    assert torch.equal(x.grad, y + 1)


def test_tensors_with_large_features() -> None:
    coords = torch.stack([torch.zeros(LARGE[0]).long(), torch.arange(LARGE[0])], dim=1)
    x = sc.SparseTensor(torch.randn(LARGE), coords)
    assert torch.equal((x + x).features, x.features + x.features)
    assert torch.equal(torch.cat([x, x], dim=1).features, torch.cat([x.features] * 2, dim=1))
    norm = torch.nn.BatchNorm1d(16)
    wanted = torch.nn.functional.batch_norm(x.features, None, None, training=True)
    torch.testing.assert_close(norm(x).features, wanted, rtol=1e-5, atol=1e-5)
    pooled = torch.nn.functional.max_pool1d(x, 2)
    assert torch.equal(
        pooled.features, x.features[: LARGE[0] // 2 * 2].unflatten(0, (-1, 2)).amax(1)
    )
