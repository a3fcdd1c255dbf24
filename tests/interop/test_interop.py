"""SciPy, PyTorch's COO tensors and Open3D, there and back; objects against SciPy's own labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv import interop
from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.io import Points

pytest.importorskip("scipy")
from scipy import ndimage, sparse, spatial

shapes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


def tensor(shape: tuple[int, ...], seed: int, batch: int = 2, channels: int = 3) -> sc.SparseTensor:
    torch.manual_seed(seed)
    mask = torch.rand(batch, *shape) < 0.4
    return sc.SparseTensor.from_dense(torch.randn(batch, channels, *shape), mask)


@given(shapes, st.integers(0, 99), st.integers(1, 2), st.integers(1, 3))
def test_arrays_there_and_back(
    shape: tuple[int, ...], seed: int, batch: int, channels: int
) -> None:
    x = tensor(shape, seed, batch, channels)
    for there, back in (
        (interop.to_scipy, lambda a: interop.from_scipy(a, len(shape))),
        (interop.to_torch_sparse, interop.from_torch_sparse),
    ):
        array = there(x)
        dense = array.toarray() if sparse.issparse(array) else array.to_dense().numpy()
        np.testing.assert_array_equal(dense, x.dense().numpy().reshape(dense.shape))
        again = back(array)
        assert again.shape == x.shape and again.num_sites == x.num_sites
        assert torch.equal(again.coords, x.coords.to(again.coords.dtype))
        assert torch.equal(again.features, x.features)


def test_methods_and_kinds() -> None:
    x = tensor((4, 5), 0, 1, 1)
    assert sparse.isspmatrix_csr(x.to_scipy()) or x.to_scipy().format == "csr"
    again = sc.SparseTensor.from_scipy(sparse.csr_matrix(x.to_scipy()))
    assert torch.equal(again.dense(), x.dense())
    assert sc.SparseTensor.from_scipy(sparse.eye_array(4, dtype=np.int64)).num_sites == 4
    half = x.half()
    assert half.to_scipy().dtype == np.float32


def test_gradients_flow_through_coo_tensors() -> None:
    values = torch.randn(3, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 1, 2]])

    def run(values: torch.Tensor) -> torch.Tensor:
        t = torch.sparse_coo_tensor(places, values, (1, 2, 4), check_invariants=True)
        x = interop.from_torch_sparse(t)
        return interop.to_torch_sparse(x.replace(x.features * 2)).to_dense()

    assert torch.autograd.gradcheck(run, (values,))


@given(shapes, st.integers(0, 99), st.sampled_from([1, 3, 5]))
def test_neighbours_are_those_of_a_tree(shape: tuple[int, ...], seed: int, size: int) -> None:
    x = tensor(shape, seed)
    places = x.coords.numpy().astype(float)
    places[:, 0] *= 1000
    expected = np.zeros((len(places), len(places)), int)
    if len(places):
        tree = spatial.cKDTree(places)
        for row, near in enumerate(tree.query_ball_point(places, size // 2 + 0.1, p=np.inf)):
            expected[row, near] = 1
    np.testing.assert_array_equal(interop.neighbours(x, size).toarray(), expected)


@given(shapes, st.integers(0, 99))
def test_objects_are_those_of_ndimage(shape: tuple[int, ...], seed: int) -> None:
    x = tensor(shape, seed, 1, 1)
    found, count = sc.components(x)
    mask = x.mask()[0, 0].numpy()
    expected, number = ndimage.label(mask, np.ones((3,) * len(shape)))
    assert count == number
    places = tuple(x.coords[:, 1:].T.numpy())
    np.testing.assert_array_equal(found.numpy() + 1, expected[places])


@given(shapes, st.integers(0, 99), st.integers(1, 4))
def test_objects_keep_to_their_label(shape: tuple[int, ...], seed: int, smallest: int) -> None:
    x = tensor(shape, seed, 1, 1)
    labels = torch.randint(-1, 3, (x.num_sites,))
    found, count = sc.components(x, labels, smallest=smallest)
    grid = np.full(shape, -1)
    grid[tuple(x.coords[:, 1:].T.numpy())] = labels.numpy()
    sizes = []
    for label in range(3):
        parts, _ = ndimage.label(grid == label, np.ones((3,) * len(shape)))
        sizes += [n for n in np.bincount(parts.ravel())[1:].tolist() if n >= smallest]
    assert count == len(sizes)
    counts = torch.bincount(found[found >= 0], minlength=count).tolist()
    assert sorted(counts) == sorted(sizes)
    assert bool((found[labels < 0] == -1).all())


def test_samples_are_never_joined() -> None:
    x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0], [1, 0]]), (1,), 2)
    assert sc.components(x)[1] == 2
    empty = sc.SparseTensor(torch.ones(0, 1), torch.zeros(0, 3, dtype=torch.int64), (4, 4), 1)
    assert sc.components(empty)[1] == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: interop.from_scipy(np.eye(3)), SparseConvTypeError, "one of SciPy's sparse"),
        (lambda: interop.from_scipy(sparse.eye_array(3), 1), SparseConvValueError, "axes: must be"),
        (lambda: interop.from_torch_sparse(torch.eye(3)), SparseConvTypeError, "must be a COO"),
        (lambda: interop.from_torch_sparse(torch.eye(3).to_sparse()), SparseConvValueError, "B, C"),
        (
            lambda: interop.neighbours(tensor((3,), 0), 2),
            SparseConvValueError,
            "must be odd, got 2",
        ),
        (
            lambda: sc.components(tensor((3,), 0), torch.zeros(99)),
            SparseConvValueError,
            "labels: must be whole numbers",
        ),
        (
            lambda: interop.to_scipy(sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, -1]]))),
            SparseConvValueError,
            "negative coordinates",
        ),
    ],
)
def test_wrong_calls(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def scan() -> Points:
    rng = np.random.default_rng(0)
    names = ("red", "green", "blue", "normal_x", "normal_y", "normal_z", "intensity")
    features = rng.random((20, 7)).astype(np.float32)
    features[:, :3] = np.round(features[:, :3] * 255)
    return Points(rng.normal(0, 1, (20, 3)), features, names, rng.integers(0, 5, 20))


def test_open3d_there_and_back() -> None:
    pytest.importorskip("open3d")
    points = scan()
    again = interop.from_open3d(interop.to_open3d(points))
    np.testing.assert_array_equal(again.xyz, points.xyz)
    assert again.labels is not None and points.labels is not None
    np.testing.assert_array_equal(again.labels, points.labels)
    for name in points.feature_names:
        scale = 255 if name in ("red", "green", "blue") else 1
        np.testing.assert_allclose(again[name] * scale, points[name], rtol=1e-6)
    legacy = interop.from_open3d(interop.to_open3d(points, tensor=False))
    np.testing.assert_array_equal(legacy.xyz, points.xyz)
    np.testing.assert_allclose(legacy["green"] * 255, points["green"], rtol=1e-6)


def test_open3d_voxels_there_and_back() -> None:
    pytest.importorskip("open3d")
    x, _ = sc.voxelize(torch.rand(40, 3) * 3, 0.5, torch.rand(40, 3))
    grid = interop.to_open3d(x)
    assert grid.voxel_size == 0.5 and len(grid.get_voxels()) == x.num_sites
    again = interop.from_open3d(grid)
    for one, two in zip(again.coords.tolist(), again.features, strict=True):
        row, found = x.at(torch.tensor([one]))
        assert bool(found) and torch.allclose(x.features[int(row)], two)
    with pytest.raises(SparseConvValueError, match="must have a grid of cubes"):
        interop.to_open3d(x.with_grid(None))
    with pytest.raises(SparseConvError, match="must be Points or a SparseTensor"):
        interop.to_open3d(3)  # type: ignore[arg-type]
