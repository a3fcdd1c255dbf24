"""The radix sort of the Numba engine is NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseconv.engines.numba.keys import sort as numba_sort
from sparseconv.engines.numba.keys.sort import sort_by


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 3000),
    key_bits=st.integers(0, 50),
    spread=st.integers(1, 2**20),
)
def test_keys_and_rows_are_sorted(seed: int, count: int, key_bits: int, spread: int) -> None:
    rows = max(count - 1, 0).bit_length()
    generator = np.random.default_rng(seed)
    keys = generator.integers(0, 2**key_bits, count)
    keys = np.minimum(keys // spread * spread, 2**key_bits - 1)  # many of them equal
    packed = keys << rows | np.arange(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_sort, "MIN_KEYS", 1)
        found = sort_by(packed.copy(), rows, rows + key_bits)
    assert np.array_equal(found, np.sort(packed))


@pytest.mark.parametrize("count", [numba_sort.MIN_KEYS - 1, numba_sort.MIN_KEYS, 200_000])
def test_either_way_of_sorting(count: int) -> None:
    keys = np.random.default_rng(0).integers(0, 2**62, count)
    assert np.array_equal(sort_by(keys.copy(), 0, 62), np.sort(keys))
