"""The bench refuses what CUDA refuses, and counts what a card would start and wait for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from devices import bench
from torch import Tensor, nn

import sparseconv as sc

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")


def on_bench(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).to(bench.NAME)


Call = Callable[[Tensor], Any]

# operator: launches, synchronisations
COUNTED: dict[str, tuple[Call, int, int]] = {
    "views": (lambda x: x[1:, None].expand(-1, 2).t().unbind(0), 0, 0),
    "memory": (lambda x: x.new_empty(4), 0, 0),
    "zeros": (lambda x: torch.zeros(4, device=x.device), 1, 0),
    "range": (lambda x: torch.arange(4, device=x.device), 1, 0),
    "number": (lambda x: x + 1, 1, 0),
    "product": (lambda x: x[None] @ x[:, None], 1, 0),
    "cast": (lambda x: x.double(), 1, 0),
    "copy within": (lambda x: x.clone(), 1, 0),
    "to the host": (lambda x: x.cpu(), 1, 1),
    "list": (lambda x: x.tolist(), 1, 1),
    "item": (lambda x: float(x[0]), 1, 1),
    "truth": (lambda x: bool((x > 0).all()), 3, 1),
    "from the host": (lambda x: torch.ones(3).to(x.device), 1, 1),
    "from the host, not waiting": (lambda x: torch.ones(3).to(x.device, non_blocking=True), 1, 0),
    "constant": (lambda x: torch.tensor([1.0], device=x.device), 1, 1),
    "new_tensor": (lambda x: x.new_tensor([1.0]), 1, 1),
    "list as index": (lambda x: x[[0, 1]], 2, 1),
    "CPU index": (lambda x: x[torch.tensor([0])], 1, 1),
    "nonzero": (lambda x: x.nonzero(), 1, 1),
    "nonzero, size told": (lambda x: torch.nonzero_static(x, size=2), 1, 0),
    "mask": (lambda x: x[x > 1], 2, 1),
    "mask filled": (lambda x: x.masked_fill(x > 1, 0), 2, 0),
    "unique": (torch.unique, 1, 1),
    "runs": (torch.unique_consecutive, 1, 1),
    "equal": (lambda x: torch.equal(x, x.clone()), 2, 1),
    "counts": (lambda x: torch.bincount(x.long()), 2, 1),
    "repeat": (lambda x: torch.repeat_interleave(x.long()), 2, 1),
    "repeat, size told": (lambda x: torch.repeat_interleave(x.long(), output_size=7), 2, 0),
    "search": (lambda x: torch.searchsorted(x, x), 1, 0),
    "sort": (torch.sort, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_launches_and_waits(name: str) -> None:
    call, launches, syncs = COUNTED[name]
    x = on_bench(1, 2, 4)
    assert bench.counted(lambda: call(x)).totals == (launches, syncs)


def test_a_mask_that_takes_one_number_does_not_wait() -> None:
    x = on_bench(1, 2, 4)

    def fill() -> None:
        x[x > 1] = 0

    assert bench.counted(fill).totals[1] == 0
    assert x.tolist() == [1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_grouped_products_wait_where_they_have_no_kernel(dtype: torch.dtype) -> None:
    x = torch.ones(4, 8, dtype=dtype).to(bench.NAME)
    weight = torch.ones(2, 8, 8, dtype=dtype).to(bench.NAME)
    ends = torch.tensor([1, 4], dtype=torch.int32).to(bench.NAME)
    counts = bench.counted(lambda: F.grouped_mm(x, weight, offs=ends))
    assert counts.totals == (1, int(dtype != torch.bfloat16))


REFUSED: dict[str, Call] = {
    "sum": lambda x: x + torch.ones(3),
    "product": lambda x: x[None] @ torch.ones(3, 1),
    "rows": lambda x: x.index_select(0, torch.tensor([0])),
    "joined": lambda x: torch.cat([x, torch.ones(3)]),
    "written": lambda x: torch.ones(3).add_(x),
    "numpy": lambda x: x.numpy(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_devices_do_not_mix(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=rf"{bench.NAME}:0"):
        REFUSED[name](on_bench(1, 2, 4))


def test_a_number_on_the_cpu_is_an_operand() -> None:
    x = on_bench(1, 2)
    assert (x * torch.tensor(2.0)).tolist() == [2, 4]
    with pytest.raises(RuntimeError):
        torch.cat([x, torch.tensor(2.0)[None]])


def test_modules_move_train_and_copy() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0), nn.Linear(4, 1)).double()
    twin = copy.deepcopy(net).to(bench.NAME).float().double()
    twin = copy.deepcopy(twin)
    x = torch.randn(5, 3, dtype=torch.float64)
    results = []
    for model in (net.float().double(), twin):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(x.to(next(model.parameters()).device)).square().sum().backward()
            optimizer.step()
        results.append([p.detach().cpu() for p in model.parameters()])
    assert all(map(torch.allclose, *results))


def test_a_view_shares_its_memory_and_its_gradient() -> None:
    x = on_bench(1, 2, 4).requires_grad_()
    y = x * 1
    y[1:].mul_(3)
    y.sum().backward()
    assert y.tolist() == [1, 6, 12]
    assert x.grad.tolist() == [1, 3, 3]


def test_a_line_of_the_package_is_told_forward_and_backward() -> None:
    x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 0], [0, 1, 1]]), (2, 2))
    x = x.to(bench.NAME).requires_grad_()
    weight = torch.ones(4, 3, 3, 3).to(bench.NAME).requires_grad_()
    with bench.counting() as counts:
        y = sc.functional.subm_conv(x, weight)
    assert set(counts.by_line()) and all(line.count(".py:") == 1 for line in counts.by_line())
    backward = bench.counted(lambda: y.features.sum().backward())
    assert any(line.startswith("engines/torch/") for line in backward.by_line())
    assert bench.counted(lambda: None).totals == (0, 0)
