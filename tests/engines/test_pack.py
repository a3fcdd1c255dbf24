"""Weights in the layout of the products: every number once, zeros behind the last channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv.engines.numba.machine.arrays import columns_of
from sparseconv.engines.numba.products import pack as numba_pack

SIDE = numba_pack.SIDE


def expected(weight: torch.Tensor, columns: int, block: int, pairs: int) -> np.ndarray[Any, Any]:
    """Return the layout by NumPy alone."""
    cells, groups, c_in, c_out = weight.shape
    steps = -(-c_in // pairs)
    wide = np.zeros((cells, groups, steps * pairs, columns), weight.numpy().dtype)
    wide[:, :, :c_in, :c_out] = weight.numpy()
    apart = wide.reshape(cells, groups, steps, pairs, columns // block, block)
    return apart.transpose(0, 1, 4, 2, 5, 3).reshape(cells, groups, -1, steps, block * pairs)


@given(
    cells=st.sampled_from([8, 9, 16, 25, 27, 33, 64]),
    groups=st.integers(1, 3),
    c_in=st.integers(1, 20),
    c_out=st.integers(1, 70),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.uint16]),
)
def test_every_layout(
    cells: int, groups: int, c_in: int, c_out: int, transposed: bool, dtype: torch.dtype
) -> None:
    memory = torch.arange(1, groups * c_in * c_out * cells + 5).to(dtype)
    # a view into the midst of other numbers, as a parameter may be
    own = memory[2:-2].view(groups, c_out, c_in, cells)
    weight = own.permute(3, 0, 2, 1)
    if transposed:
        weight = weight.transpose(2, 3)
    pairs = 2 if dtype == torch.uint16 else 1
    kind = np.dtype(np.float64 if dtype == torch.float64 else np.float32)
    columns, block = columns_of(weight.shape[3], kind)
    found = numba_pack.laid_out(weight, columns, block, pairs)
    if block % SIDE:
        assert found is None
        return
    assert found is not None
    assert (found == expected(weight, columns, block, pairs)).all()


def test_what_is_left_to_others() -> None:
    cells_apart = torch.ones(27, 1, 4, 32)
    few_cells = torch.ones(32, 4, SIDE - 1).permute(2, 1, 0)[:, None]
    nothing = torch.ones(32, 0, 27).permute(2, 1, 0)[:, None]
    for weight in (cells_apart, few_cells, nothing):
        assert numba_pack.laid_out(weight, 32, 32, 1) is None


@given(
    cells=st.sampled_from([8, 9, 27, 33]),
    groups=st.integers(1, 3),
    c_in=st.integers(1, 20),
    c_out=st.integers(1, 70),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_gradient_comes_back(
    cells: int, groups: int, c_in: int, c_out: int, dtype: type[np.floating[Any]]
) -> None:
    columns, block = columns_of(c_out, np.dtype(dtype))
    shape = (cells, groups, columns // block, c_in, block)
    sums = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    found = numba_pack.laid_back(sums, c_out)
    if block % SIDE:
        assert found is None
        return
    assert found is not None
    assert not found._is_view()
    apart = sums.transpose(0, 1, 3, 2, 4).reshape(cells, groups, c_in, columns)
    assert (found.numpy() == apart[..., :c_out]).all()
    assert found.permute(1, 3, 2, 0).is_contiguous()


def test_a_layers_gradient_lies_like_its_weight() -> None:
    layer = sc.nn.SubmConv3d(16, 32, 3)
    coords = torch.cartesian_prod(torch.arange(1), *[torch.arange(4)] * 3)
    x = sc.SparseTensor(torch.randn(len(coords), 16), coords)
    # backward() would copy another layout to this one
    (grad,) = torch.autograd.grad(layer(x).features.sum(), layer.weight)
    assert grad.is_contiguous()
