"""Sites: the index against a dict, extreme coordinates, repeated sites, negative coordinates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import SITE_COUNTS, Ints, assert_close, generator, random_input, shuffled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc

pytestmark = pytest.mark.usefixtures("engine")

LOWEST, HIGHEST = -(2**31), 2**31 - 1
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


def make(
    coords: list[Ints] | Tensor, axes: int, dtype: torch.dtype = torch.int64
) -> sc.SparseTensor:
    """Return a tensor on ``coords`` whose one channel numbers the rows."""
    t = torch.as_tensor(coords, dtype=dtype).reshape(-1, 1 + axes)
    return sc.SparseTensor(torch.arange(len(t), dtype=torch.float64)[:, None], t)


@st.composite
def coordinates(draw: st.DrawFn) -> tuple[int, list[Ints], list[Ints]]:
    """Draw distinct coordinates and queries, in narrow or wide ranges, some far outside."""
    axes = draw(st.integers(1, 4))
    bound = draw(st.sampled_from([2, 9, 1000, 2**15 - 1])) if axes < 4 else 2000
    column = st.integers(-bound, bound)
    site = st.tuples(st.integers(0, 3), *[column] * axes)
    coords = draw(st.lists(site, unique=True, max_size=40))
    far = st.sampled_from([-1, 0, 5, -(2**31), 2**31, 2**40, 2**62, -(2**63), 2**63 - 1])
    query = st.one_of(
        site, st.tuples(*[far] * (1 + axes)), *([st.sampled_from(coords)] * bool(coords))
    )
    return axes, coords, draw(st.lists(query, max_size=30))


@given(drawn=coordinates())
def test_at_is_a_dict(drawn: tuple[int, list[Ints], list[Ints]]) -> None:
    axes, coords, queries = drawn
    x = make(coords, axes)
    rows_of = {site: row for row, site in enumerate(coords)}
    rows, found = x.at(torch.tensor(queries, dtype=torch.int64).reshape(-1, 1 + axes))
    assert rows.tolist() == [rows_of.get(query, -1) for query in queries]
    assert found.tolist() == [query in rows_of for query in queries]
    assert x.coords.tolist() == [list(site) for site in coords]


@pytest.mark.parametrize("count", SITE_COUNTS)
def test_the_index_at_awkward_sizes(count: int) -> None:
    x = random_input(count, 1)
    assert x.num_sites == count
    order = torch.randperm(count, generator=generator(1))
    rows, found = x.at(x.coords[order])
    assert torch.equal(rows, order)
    assert bool(found.all())
    missing = torch.tensor([[0, 0, 0, 12], [1, 0, 0, 0], [0, -1, 0, 0]])
    rows, found = x.at(missing)
    assert rows.tolist() == [-1, -1, -1]
    assert not bool(found.any())


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_dtype_over_its_whole_range(dtype: torch.dtype) -> None:
    """Also where the differences between coordinates do not fit the dtype."""
    low, high = max(torch.iinfo(dtype).min, LOWEST), min(torch.iinfo(dtype).max, HIGHEST)
    sites = [(0, high), (0, low), (0, 3), (1, high), (1, low), (0, 4)]
    x = make(sites, 1, dtype)
    assert x.coords.tolist() == [list(site) for site in sites]
    rows, found = x.at(torch.tensor(sites[::-1], dtype=dtype))
    assert rows.tolist() == [5, 4, 3, 2, 1, 0]
    assert bool(found.all())
    y = sc.functional.subm_conv(x, torch.tensor([[[1.0, 10.0, 100.0]]], dtype=torch.float64))
    near = {site: float(row) for row, site in enumerate(sites)}
    expected = [
        near.get((b, i - 1), 0.0) + 10 * row + 100 * near.get((b, i + 1), 0.0)
        for row, (b, i) in enumerate(sites)
    ]
    assert y.features.flatten().tolist() == expected


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("corner", [LOWEST, HIGHEST])
def test_convolution_at_the_end_of_the_int32_range(dtype: torch.dtype, corner: int) -> None:
    """The sites that a layer reaches may lie beyond the range; they are what they are."""
    sites = (corner, corner + (7 if corner < 0 else -7), -1, 9)
    x = make([(0, site) for site in sites], 1, dtype)
    weight = torch.tensor([[[1.0, 10.0, 100.0]]], dtype=torch.float64)
    y = F.conv1d(x, weight, padding=2)
    assert y.coords[:, 1].tolist() == sorted({i + k for i in sites for k in range(3)})
    z = F.conv_transpose1d(x, weight, stride=2)
    assert z.coords[:, 1].tolist() == sorted({2 * i + k for i in sites for k in range(3)})
    up = sc.functional.inverse_conv(y, weight, padding=2)
    assert torch.equal(up.coords, x.coords)


BOXES = [
    ((1,), (2**31, 2**31 - 1), True),
    ((1,), (2**31, 2**31), False),
    ((2,), (2**30, 2**31 - 1), True),
    ((2,), (2**30, 2**31), False),
    ((1,), (2**21, 2**21, 2**20 - 1), True),
    ((1,), (2**21, 2**21, 2**20), False),
    ((3,), (2**15, 2**15, 2**15, 2**15), True),
    ((4,), (2**15, 2**15, 2**15, 2**15), False),
    ((1,), (2**32, 2**30 - 1), True),
    ((1,), (2**32, 2**32), False),
]


@pytest.mark.parametrize(("batch", "extent", "fits"), BOXES, ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_boxes_around_two_to_the_62(
    batch: Ints, extent: Ints, fits: bool, dtype: torch.dtype
) -> None:
    low = [LOWEST if size > 2**31 else 0 for size in extent]
    high = [bottom + size - 1 for bottom, size in zip(low, extent, strict=True)]
    sites = [(batch[0] - 1, *high), (0, *low)]
    if not fits:
        with pytest.raises(sc.SparseConvValueError, match="coords: the bounding box"):
            make(sites, len(extent), dtype)
        return
    x = make(sites, len(extent), dtype)
    assert x.coords.tolist() == [list(site) for site in sites]
    rows, _ = x.at(torch.tensor(sites[::-1]))
    assert rows.tolist() == [1, 0]
    weight = torch.zeros(1, 1, *(3,) * len(extent), dtype=torch.float64)
    weight[(0, 0, *(1,) * len(extent))] = 2.0
    assert sc.functional.subm_conv(x, weight).features.tolist() == [[0.0], [2.0]]


@pytest.mark.parametrize("value", [HIGHEST + 1, LOWEST - 1, 2**62])
def test_coordinates_beyond_int32_are_refused(value: int) -> None:
    with pytest.raises(sc.SparseConvValueError, match="coords: must lie in the int32 range"):
        make([(0, value), (0, 0)], 1)


@pytest.mark.parametrize("repeats", [[(0, 3, 1)] * 2, [(1, 2, 2), (0, 1, 1), (1, 2, 2)]])
def test_repeated_sites_are_refused(repeats: list[Ints]) -> None:
    with pytest.raises(sc.SparseConvValueError, match="repeat a site") as caught:
        make([(0, 0, 0), *repeats], 2)
    assert "reduce=" in str(caught.value)


REDUCE = {
    "sum": sum,
    "mean": lambda rows: sum(rows) / len(rows),
    "max": lambda rows: torch.stack(rows).amax(0),
    "min": lambda rows: torch.stack(rows).amin(0),
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}


@given(
    sites=st.lists(
        st.tuples(st.integers(0, 1), st.integers(-2, 2), st.integers(0, 2)), max_size=30
    ),
    seed=st.integers(0, 100),
)
def test_repeated_sites_merge(sites: list[Ints], seed: int) -> None:
    features = torch.randn(len(sites), 3, generator=generator(seed), dtype=torch.float64)
    coords = torch.tensor(sites, dtype=torch.int64).reshape(-1, 3)
    for reduce, merge in REDUCE.items():
        x = sc.SparseTensor(features, coords, reduce=reduce)
        expected = {
            site: merge([features[row] for row, other in enumerate(sites) if other == site])
            for site in sorted(set(sites))
        }
        assert [tuple(site) for site in x.coords.tolist()] == list(expected)
        if expected:
            assert_close(x.features, torch.stack(list(expected.values())))


@pytest.mark.parametrize("reduce", REDUCE)
def test_merging_is_differentiable_twice(reduce: str) -> None:
    coords = torch.tensor([[0, 2], [0, 1], [0, 2], [1, 0], [0, 2]])
    features = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def merged(features: Tensor) -> Tensor:
        return sc.SparseTensor(features, coords, reduce=reduce).features

    assert torch.autograd.gradcheck(merged, features)
    assert torch.autograd.gradgradcheck(lambda f: merged(f * f), features)


NEGATIVE = {
    "subm": (lambda x, w: sc.functional.subm_conv(x, w, dilation=(1, 2)), 1),
    "stride1": (lambda x, w: F.conv2d(x, w, padding=1), 1),
    "stride2": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), 2),
    "stride3": (lambda x, w: F.conv2d(x, w, stride=3, padding=(0, 1), dilation=2), 3),
}


@pytest.mark.parametrize("name", NEGATIVE)
@given(first=st.integers(1, 6), second=st.integers(1, 60), seed=st.integers(0, 50))
def test_negative_coordinates_are_the_same_scene_shifted(
    name: str, first: int, second: int, seed: int
) -> None:
    """A shift by a multiple of the stride moves the output by that many strides, bit for bit.

    Both scenes have a negative coordinate on each axis, so that neither grid has a lower end.
    """
    layer, stride = NEGATIVE[name]
    x = random_input(25, 1, (7, 8), seed=seed)
    coords = x.coords - torch.tensor([0, *x.coords[:, 1:].amin(0)])
    weight = torch.randn(1, 1, 3, 3, generator=generator(2), dtype=torch.float64)
    near, far = (
        sc.SparseTensor(x.features, coords - torch.tensor([0, 1, 1]) * stride * distance)
        for distance in (first, second)
    )
    y, z = layer(near, weight), layer(far, weight)
    assert torch.equal(y.coords - torch.tensor([0, 1, 1]) * (second - first), z.coords)
    assert torch.equal(y.features, z.features)
    assert y.num_sites > 0


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_scene_at_negative_coordinates_is_a_dense_grid_with_room_on_every_side(
    stride: int,
) -> None:
    x = random_input(20, 1, (6, 7))
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    room = 12  # a multiple of each stride
    low = sc.SparseTensor(x.features, x.coords - torch.tensor([0, 6, 6]))
    shifted = x.coords + torch.tensor([0, room - 6, room - 6])
    high = sc.SparseTensor(x.features, shifted, (40, 40))
    y = F.conv2d(low, weight, stride=stride, padding=1)
    expected = F.conv2d(high, weight, stride=stride, padding=1)
    offset = torch.tensor([0, room, room]) // stride
    shown = {tuple(site): row for row, site in enumerate((y.coords + offset).tolist())}
    judged = {tuple(site): row for row, site in enumerate(expected.coords.tolist())}
    assert set(shown) == set(judged)
    for site, row in shown.items():
        assert torch.equal(y.features[row], expected.features[judged[site]])


def test_negative_coordinates_come_back_through_the_inverse() -> None:
    coords = shuffled(random_input(25, 1, (7, 8)).coords - torch.tensor([0, 3, 4]), 1)
    x = sc.SparseTensor(torch.randn(25, 1, dtype=torch.float64), coords)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    y = F.conv2d(x, weight, stride=2, padding=1)
    up = sc.functional.inverse_conv(y, weight, stride=2, padding=1)
    assert up.sites is x.sites
    assert_close((y.features**2).sum(), (x.features * up.features).sum())
