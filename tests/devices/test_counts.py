"""No call may need more than it does today: launches and waits of ``counts.json``, bytes and
FLOP of ``work.json``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from devices import bench
from devices.budgets import CALLS, golden, golden_work
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import device_model

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")
LONG = {
    "MinkUNet training step",
    "MinkUNet evaluation, new maps",
    "MinkUNet evaluation, known maps",
}


def test_every_call_has_its_bound() -> None:
    sizes = {name: {str(size**2) for size in call.sizes} for name, call in CALLS.items()}
    assert sizes == {name: set(row) for name, row in golden().items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CALLS]
)
def test_no_count_grows(name: str, as_users_run: None) -> None:
    """Run ``python tools/device_counts.py --only NAME`` to see the lines that need most."""
    call = CALLS[name]
    for size in call.sizes:
        bound = tuple(golden()[name][str(size**2)])
        counts = call.count(size)
        grew = [now > then for now, then in zip(counts.totals, bound, strict=True)]
        lines = list(counts.by_line().items())[:10]
        assert not any(grew), f"{size**2} sites: {counts.totals}, bound {bound}: {lines}"
        most, flop = golden_work()["calls"][name][str(size**2)]
        assert counts.bytes <= most, f"{size**2} sites: {counts.bytes:,} bytes, bound {most:,}"
        assert counts.flop <= flop, f"{size**2} sites: {counts.flop:,} FLOP, bound {flop:,}"


PRODUCTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], int, int]] = {  # call: bytes, FLOP
    "product": (lambda x, _: x @ x, 3 * 64, 2 * 64),
    "batched": (lambda x, _: torch.bmm(x[None], x[None]), 3 * 64, 2 * 64),
    "sum": (lambda x, _: x + x[0], 64 + 16 + 64, 0),
    "rows": (lambda x, one: x.index_select(0, one), 8 + 2 * 16, 0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_bytes_and_flop_of_one_operator(name: str) -> None:
    call, size, flop = PRODUCTS[name]
    x, one = torch.ones(4, 4).to(bench.NAME), torch.tensor([1]).to(bench.NAME)
    counts = bench.counted(lambda: call(x, one))
    assert (counts.bytes, counts.flop) == (size, flop)


def test_the_page_shows_the_model_that_was_counted() -> None:
    table = device_model.table(golden_work()["model"])
    assert table in device_model.PAGE.read_text(encoding="utf-8")
