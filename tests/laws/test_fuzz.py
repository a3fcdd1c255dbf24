"""A few hundred random calls; ``python tools/fuzz.py --calls 10000`` makes more."""

from __future__ import annotations

from random import Random

import pytest
from fuzz_layers import CALLS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_random_calls_are_right_or_refused(name: str, rng: Random) -> None:
    assert CALLS[name](rng) in ("compared", "refused", "taken")
