"""No call may start more kernels, or wait more often, than ``counts.json`` says it does today."""

from __future__ import annotations

import pytest
from devices import bench
from devices.budgets import CALLS, golden

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
