"""SparseTensor: what it is made from, what it shows, and arithmetic, against the dense tensor."""

from __future__ import annotations

import copy
import io
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import GRID, assert_close, generator, permuted, random_input, random_mask, sparse
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

AXES = [1, 2, 3, 4]


def grid_pair(axes: int, channels: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a dense tensor, zero outside the mask, and the mask ``[B, 1, *spatial]``."""
    mask = random_mask(3, GRID[axes], 0.4, seed, empty_sample=True).unsqueeze(1)
    t = torch.randn(3, channels, *GRID[axes], generator=generator(seed + 1), dtype=torch.float64)
    return torch.where(mask, t, 0.0), mask


@pytest.mark.parametrize("axes", AXES)
def test_a_tensor_shows_the_dense_shape(axes: int) -> None:
    t, mask = grid_pair(axes)
    x = sparse(t, mask[:, 0], seed=3)
    assert x.shape == t.shape
    assert (x.ndim, x.dim(), x.size()) == (t.ndim, t.dim(), t.size())
    assert [x.size(axis) for axis in range(t.ndim)] == list(t.shape)
    assert (x.dtype, x.device, x.channels) == (t.dtype, t.device, 3)
    assert x.num_sites == len(x.coords) == int(mask.sum())
    assert (x.batch_size, len(x), x.spatial_shape) == (3, 3, GRID[axes])
    assert x.density == pytest.approx(float(mask.double().mean()))
    assert x.is_floating_point()
    assert not x.requires_grad
    assert x.coords.dtype == torch.int64


@pytest.mark.parametrize("axes", AXES)
def test_dense_and_mask_and_back(axes: int) -> None:
    t, mask = grid_pair(axes)
    for seed in (None, 3):
        x = sparse(t, mask[:, 0], seed)
        assert torch.equal(x.dense(), t)
        assert torch.equal(x.mask(), mask)
        assert x.dense().is_contiguous()
        filled = x.dense(fill=-7)
        assert torch.equal(filled, torch.where(mask, t, -7.0))
    for given_mask in (mask, mask[:, 0]):
        back = sc.SparseTensor.from_dense(t, given_mask)
        assert torch.equal(back.dense(), t)
        assert torch.equal(back.mask(), mask)
    guessed = sc.SparseTensor.from_dense(t)
    assert torch.equal(guessed.mask(), mask)


def test_true_zeros_survive_with_a_mask_and_one_channel_keeps_a_site_without() -> None:
    t = torch.zeros(1, 2, 4)
    t[0, 1, 2] = 5.0
    mask = torch.tensor([[True, False, True, True]])
    x = sc.SparseTensor.from_dense(t, mask)
    assert x.coords.tolist() == [[0, 0], [0, 2], [0, 3]]
    assert x.features.tolist() == [[0, 0], [0, 5], [0, 0]]
    assert sc.SparseTensor.from_dense(t).coords.tolist() == [[0, 2]]
    nan = torch.where(mask.unsqueeze(1), t, torch.nan)
    assert torch.equal(sc.SparseTensor.from_dense(nan, mask).features, x.features)


def test_gradients_flow_through_dense_and_from_dense() -> None:
    t, mask = grid_pair(2)
    t.requires_grad_()
    y = sc.SparseTensor.from_dense(t, mask).dense(fill=4)
    cotangent = torch.randn(y.shape, generator=generator(1), dtype=torch.float64)
    (grad,) = torch.autograd.grad(y, t, cotangent)
    assert torch.equal(grad, cotangent * mask)
    x = sparse(t, mask[:, 0])
    features = x.features.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: x.replace(f).dense(), features)


def test_extent_and_batch_size_are_inferred_as_the_largest_plus_one() -> None:
    coords = torch.tensor([[0, 4, 1], [2, 0, 6]])
    x = sc.SparseTensor(torch.ones(2, 1), coords)
    assert (x.batch_size, x.spatial_shape) == (3, (5, 7))
    wider = sc.SparseTensor(torch.ones(2, 1), coords, (9, 9), 5)
    assert wider.shape == (5, 1, 9, 9)
    empty = sc.SparseTensor(torch.ones(0, 4), torch.zeros(0, 3, dtype=torch.int64))
    assert empty.shape == (0, 4, 0, 0)
    assert empty.density == 0
    assert empty.dense().shape == (0, 4, 0, 0)
    assert empty.mask().shape == (0, 1, 0, 0)


def test_rows_stay_in_the_order_given() -> None:
    x = random_input(40, 2)
    again = sc.SparseTensor(x.features, x.coords, x.spatial_shape, 1)
    assert torch.equal(again.coords, x.coords)
    assert again.features is x.features
    with torch.no_grad():
        coords = again.coords.clone()
        assert torch.equal(x.at(coords)[0], torch.arange(40))


def test_the_callers_coordinates_may_change_afterwards() -> None:
    coords = torch.tensor([[0, 1], [0, 3]])
    x = sc.SparseTensor(torch.ones(2, 1), coords, (5,))
    coords.zero_()
    assert x.coords.tolist() == [[0, 1], [0, 3]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_coordinates_keep_their_dtype(dtype: torch.dtype) -> None:
    coords = random_input(10, 1, (9, 9)).coords.to(dtype)
    x = sc.SparseTensor(torch.ones(10, 1), coords, (9, 9))
    assert x.coords.dtype == dtype
    assert torch.equal(x.coords, coords)
    down = torch.nn.functional.conv2d(x, torch.ones(1, 1, 2, 2), stride=2)
    assert down.coords.dtype == dtype


def test_replace_keeps_the_sites_and_takes_any_width() -> None:
    x = random_input(10, 2)
    y = x.replace(torch.ones(10, 5))
    assert y.sites is x.sites
    assert (y.channels, y.dtype) == (5, torch.float32)


def test_conversions() -> None:
    x = random_input(10, 2, dtype=torch.float32)
    named = {
        torch.float16: x.half(),
        torch.bfloat16: x.bfloat16(),
        torch.float32: x.float(),
        torch.float64: x.double(),
    }
    for dtype, y in named.items():
        assert y.dtype == dtype
        assert torch.equal(y.features, x.features.to(dtype))
        assert x.to(dtype).dtype == x.to("cpu", dtype).dtype == x.to(dtype=dtype).dtype == dtype
        assert y.sites is x.sites
    assert x.to(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert x.cpu().sites is x.sites
    moved = x.to("meta")
    assert (moved.device.type, moved.sites.device.type) == ("meta", "meta")
    assert moved.shape == x.shape


def test_autograd_sees_the_features_alone() -> None:
    x = random_input(10, 2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    y = x.half().double() * 2
    assert y.requires_grad
    assert not y.detach().requires_grad
    y.features.sum().backward()
    assert torch.equal(x.features.grad, torch.full((10, 2), 2.0, dtype=torch.float64))
    assert not x.requires_grad_(False).requires_grad


@pytest.mark.parametrize("axes", AXES)
def test_samples_and_slices_are_those_of_the_dense_tensor(axes: int) -> None:
    t, mask = grid_pair(axes)
    x = sparse(t, mask[:, 0], seed=3)
    for index in (0, 1, 2, -1, -3):
        assert torch.equal(x[index].dense(), t[[index]])
        assert x[index].batch_size == 1
    for cut in (slice(1, 3), slice(None, None, -1), slice(0, 0), slice(None), slice(-2, None)):
        numbers = list(range(3))[cut]
        assert torch.equal(x[cut].dense(), t[numbers])
        assert torch.equal(x[cut].mask(), mask[numbers])
    parts = x.split()
    assert len(parts) == 3
    for mine, other, theirs in zip(parts, x, t.split(1), strict=True):
        assert torch.equal(mine.dense(), theirs)
        assert torch.equal(other.dense(), theirs)
    assert torch.equal(sc.collate(parts).dense(), t)
    with pytest.raises(IndexError, match="out of range"):
        x[3]


def test_gradients_flow_through_samples_and_collate() -> None:
    x = random_input(30, 2, (9, 9), batch=3).requires_grad_()
    y = sc.collate([x[2], x[0], x[1:]])
    assert y.batch_size == 4
    ((y.features**2).sum() / 2).backward()
    counts = torch.tensor([1.0, 1.0, 2.0])[x.coords[:, 0]]
    assert_close(x.features.grad, x.features.detach() * counts[:, None])


def test_collate_takes_the_largest_extent_and_keeps_empty_samples() -> None:
    x = sc.SparseTensor(torch.ones(1, 2), torch.tensor([[0, 1, 6]]), (3, 7))
    empty = sc.SparseTensor(torch.ones(0, 2), torch.zeros(0, 3, dtype=torch.int64), (5, 4), 1)
    y = sc.collate([empty, x, empty, x])
    assert y.shape == (4, 2, 5, 7)
    assert y.coords.tolist() == [[1, 1, 6], [3, 1, 6]]
    assert sc.collate([x]).shape == x.shape


def test_cat_joins_channels_on_the_same_sites() -> None:
    t, mask = grid_pair(2)
    x = sparse(t, mask[:, 0], seed=3)
    y = permuted(x * 2, seed=4)  # the same sites in another order, another Sites object
    other = x.replace(x.features[:, :1] + 1)
    joined = torch.cat([x, y, other], dim=1)
    assert joined.sites is x.sites
    assert torch.equal(joined.dense(), torch.cat([t, 2 * t, (t[:, :1] + 1) * mask], dim=1))
    for again in (sc.cat([x, y, other]), torch.cat((x, y, other), 1), torch.cat([x, y, other], -3)):
        assert torch.equal(again.features, joined.features)
    features = y.features.detach().requires_grad_()
    sc.cat([x, y.replace(features)]).features.square().sum().backward()
    assert_close(features.grad, 2 * features)


def test_cat_along_the_batch() -> None:
    t, mask = grid_pair(3)
    x = sparse(t, mask[:, 0], seed=3)
    assert torch.equal(torch.cat([x, x[:1]], dim=0).dense(), torch.cat([t, t[:1]]))


# Each operation with its dense twin; division keeps away from zero denominators.
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
}
SHAPES = {
    "scalar": (),
    "one": (1,),
    "channel": (1, 3, 1, 1),
    "channel-short": (3, 1, 1),
    "sample": (3, 1, 1, 1),
    "sample-channel": (3, 3, 1, 1),
    "space": (1, 1, *GRID[2]),
    "space-short": GRID[2],
    "axis": (GRID[2][0], 1),
    "full": (3, 3, *GRID[2]),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_arithmetic_with_dense_tensors_is_dense_at_active_sites(
    name: str, shape: tuple[int, ...]
) -> None:
    t, mask = grid_pair(2)
    t = t + mask  # nothing exactly 0
    x = sparse(t, mask[:, 0], seed=3)
    other = 1 + torch.rand(shape, generator=generator(5), dtype=torch.float64)
    for operate in (OPERATORS[name], FUNCTIONS[name]):
        left, right = operate(x, other), operate(other, x)
        assert left.sites is right.sites is x.sites
        assert_close(left.dense(), operate(t, other) * mask)
        assert_close(right.features, sparse(operate(other, t), mask[:, 0], seed=3).features)


@pytest.mark.parametrize(
    "number",
    [2, 0.5, -3.0, np.float64(1.5), np.float32(2.5), np.int64(3)],
    ids=lambda number: f"{type(number).__name__}-{number}",
)
@pytest.mark.parametrize("name", OPERATORS)
def test_arithmetic_with_numbers(name: str, number: Any) -> None:
    t, mask = grid_pair(2)
    x = sparse(t + mask, mask[:, 0], seed=3)
    operate = OPERATORS[name]
    left, right = operate(x, number), operate(number, x)
    assert isinstance(left, sc.SparseTensor)
    assert isinstance(right, sc.SparseTensor)
    assert_close(left.features, operate(x.features, float(number)))
    assert_close(right.features, operate(float(number), x.features))
    assert left.dtype == right.dtype == x.dtype


@pytest.mark.parametrize("name", OPERATORS)
@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), axes=st.sampled_from([1, 2, 3]))
def test_arithmetic_of_tensors_is_dense_on_the_union(
    name: str, seeds: tuple[int, int], axes: int
) -> None:
    """Equal seeds: the same sites; different seeds: the union, where an absent row counts 0."""
    (t, mask), (u, other_mask) = (grid_pair(axes, seed=seed) for seed in seeds)
    x, y = sparse(t, mask[:, 0], seed=3), sparse(u, other_mask[:, 0], seed=4)
    z = OPERATORS[name](x, y)
    union = mask | other_mask
    assert torch.equal(z.mask(), union)
    expected = OPERATORS[name](t, u)
    assert_close(z.dense(), torch.where(union, expected, 0.0))
    assert_close(FUNCTIONS[name](x, y).features, z.features)
    if seeds[0] != seeds[1]:
        assert torch.equal(z.coords, union[:, 0].nonzero())  # a new set comes out sorted


def test_arithmetic_on_shared_sites_shares_them() -> None:
    x = random_input(20, 2)
    assert (x + x).sites is (x * x.replace(x.features + 1)).sites is x.sites
    assert (-x).sites is x.sites
    assert torch.equal((-x).features, -x.features)
    narrow = x.replace(x.features[:, :1])
    assert torch.equal((x * narrow).features, x.features * narrow.features)
    assert torch.equal(torch.add(x, x, alpha=3).features, x.features * 4)
    weighted = x * torch.arange(20.0, dtype=torch.float64)[:, None]  # a row per site
    assert torch.equal(weighted.features, x.features * torch.arange(20)[:, None])


def test_gradients_flow_through_the_union() -> None:
    x, y = (random_input(15, 2, (6, 6), seed=seed) for seed in (1, 2))
    features = [entry.features.requires_grad_() for entry in (x, y)]
    assert torch.autograd.gradcheck(
        lambda f, g: (x.replace(f) * 2 + y.replace(g)).features, features
    )


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
def test_a_tensor_survives_being_copied(way: str) -> None:
    x = random_input(30, 2, (9, 8), batch=2)
    y = torch.nn.functional.conv2d(x, torch.ones(1, 2, 3, 3, dtype=torch.float64), stride=2)
    original = {"x": x, "twin": x.replace(x.features * 2), "y": y}
    if way == "pickle":
        copied = pickle.loads(pickle.dumps(original))
    elif way == "deepcopy":
        copied = copy.deepcopy(original)
    else:
        buffer = io.BytesIO()
        torch.save(original, buffer)
        buffer.seek(0)
        copied = torch.load(buffer, weights_only=False)
    for name, entry in original.items():
        again = copied[name]
        assert torch.equal(again.features, entry.features)
        assert torch.equal(again.coords, entry.coords)
        assert again.shape == entry.shape
        assert again.coords.dtype == entry.coords.dtype
        assert torch.equal(again.at(entry.coords)[0], torch.arange(entry.num_sites))
    assert copied["x"].sites is copied["twin"].sites
    assert copied["x"].features is not x.features
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    results = [sc.functional.subm_conv(entry, weight) for entry in (x, copied["x"])]
    assert torch.equal(results[0].features, results[1].features)


def test_a_shallow_copy_shares_features_and_sites() -> None:
    x = random_input(5, 1)
    y = copy.copy(x)
    assert y.features is x.features
    assert y.sites is x.sites


def test_repr_says_shape_sites_and_density() -> None:
    x = random_input(6, 2, (4, 3), batch=2)
    shown = repr(x)
    for part in ("(2, 2, 4, 3)", "num_sites=6", "density=0.25", "torch.float64", "cpu"):
        assert part in shown
    assert "6 sites" in repr(x.sites)


@pytest.mark.parametrize(
    "shape",
    [
        np.array([5, 6]),
        torch.tensor([5, 6]),
        torch.Size([5, 6]),
        [np.int64(5), np.uint8(6)],
        (torch.tensor(5), 6),
        range(5, 7),
    ],
    ids=lambda shape: type(shape).__name__,
)
def test_extents_are_integers_of_any_library(shape: Any) -> None:
    features, coords = torch.ones(2, 1), torch.tensor([[0, 1, 1], [1, 4, 5]])
    x = sc.SparseTensor(features, coords, shape, np.int64(3))
    assert x.shape == (3, 1, 5, 6)
    assert {type(size) for size in (*x.spatial_shape, x.batch_size)} == {int}
    assert sc.crop(x, np.array([1, 1]), torch.tensor([3, 4])).spatial_shape == (2, 3)
    y = torch.nn.functional.interpolate(x, size=np.array([10, 12]))
    assert y.spatial_shape == (10, 12)
    pooled = torch.nn.functional.max_pool2d(x, np.array([2, 3]), stride=np.array([2, 3]))
    assert pooled.spatial_shape == (2, 2)


@pytest.mark.parametrize("shape", [np.array([5.0, 6.0]), torch.ones(2), np.ones((2, 2)), "56"])
def test_extents_that_are_no_integers_are_refused(shape: Any) -> None:
    with pytest.raises(sc.SparseConvError, match="spatial_shape"):
        sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 1, 1]]), shape)


def test_comparison_with_what_is_neither_number_nor_tensor_is_pythons_own() -> None:
    """As of a dense tensor: so ``x in [None, x]`` and ``x == "name"`` raise nothing."""
    x = random_input(4, 2, (5, 5))
    for other in (None, "name", [1], {}, object()):
        assert (x == other) is False
        assert (x != other) is True
        with pytest.raises(TypeError, match="not supported between"):
            _ = x < other
    assert x in [None, x]


def test_nothing_sparse_is_written_in_place() -> None:
    x = random_input(4, 2, (5, 5))
    for function in (torch.add, torch.sub, torch.mul, torch.div):
        with pytest.raises(sc.SparseConvTypeError, match=r"^out"):
            function(x, x, out=torch.zeros(1))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.numpy(),
        lambda x: x.item(),
        lambda x: x.tolist(),
        np.asarray,
        lambda x: torch.nn.MultiheadAttention(2, 1)(x, x, x),
    ],
)
def test_what_has_no_sparse_meaning_says_what_to_use(call: Callable[..., Any]) -> None:
    x = random_input(4, 2, (5, 5), dtype=torch.float32)
    with pytest.raises(NotImplementedError, match="dense"):
        call(x)
