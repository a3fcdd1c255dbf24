"""The pairs of a layer, against the definition of its window."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import random_input
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")


@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    count=st.integers(0, 12),
)
def test_pairs_are_what_the_window_says(
    kernel: int, stride: int, padding: int, dilation: int, count: int
) -> None:
    x = random_input(count, 1, (6, 7), batch=2)
    found = sc.functional.pairs(x, kernel, stride, padding, dilation)
    cells = list(itertools.product(range(kernel), repeat=2))
    reads = [
        (cell, i, o)
        for (cell, (k, m)), (i, site), (o, out) in itertools.product(
            enumerate(cells), enumerate(x.coords.tolist()), enumerate(found.coords.tolist())
        )
        if site[0] == out[0]
        and site[1] == out[1] * stride - padding + k * dilation
        and site[2] == out[2] * stride - padding + m * dilation
    ]
    rows = torch.stack([found.cells, found.in_rows, found.out_rows], dim=1).tolist()
    assert sorted(map(tuple, rows)) == sorted(reads)
    assert found.cells.tolist() == sorted(found.cells.tolist())
    layer = torch.nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False)
    assert torch.equal(layer(x.float()).coords, found.coords)


def test_pairs_of_submanifold_layers_and_of_given_outputs() -> None:
    x = random_input(20, 1, (6, 7))
    near = sc.functional.pairs(x, 3, submanifold=True)
    assert torch.equal(near.coords, x.coords)
    centre = near.cells == 4
    assert torch.equal(near.in_rows[centre], near.out_rows[centre])
    few = sc.prune(x, x.coords[:, 1] > 2)
    like = sc.functional.pairs(x, 3, padding=1, like=few)
    assert torch.equal(like.coords, few.coords)


@pytest.mark.parametrize(
    ("name", "options"),
    [("kernel_size", {"kernel_size": 0}), ("stride", {"kernel_size": 2, "stride": 0}),
     ("like", {"kernel_size": 2, "like": 1}),
     ("submanifold", {"kernel_size": 3, "submanifold": 1})],
)  # fmt: skip
def test_wrong_windows(name: str, options: dict[str, object]) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{name}: "):
        sc.functional.pairs(random_input(5, 1, (6, 7)), **options)  # type: ignore[arg-type]
