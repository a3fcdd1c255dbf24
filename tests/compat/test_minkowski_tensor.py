"""The tensors of MinkowskiEngine: coordinates by key, arithmetic, fields, collation."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from minkowski_cases import COORDS, rows_of, tensor

import sparseconv as sc
from sparseconv.compat import minkowski as ME

MEF = ME.MinkowskiFunctional
Mode = ME.SparseTensorQuantizationMode


def test_what_a_tensor_holds() -> None:
    x = tensor(torch.arange(8.0).reshape(4, 2))
    assert torch.equal(x.C, COORDS)
    assert x.C.dtype == torch.int32
    assert x.coordinates is x.C
    assert x.F is x.features
    assert (x.D, x.dimension, len(x), x.size(), x.shape) == (2, 2, 4, (4, 2), (4, 2))
    assert x.tensor_stride == [1, 1]
    assert x.coordinate_map_key == x.coordinate_key == ME.CoordinateMapKey([1, 1])
    assert hash(x.coordinate_map_key) == hash(ME.CoordinateMapKey([1, 1], ""))
    assert x.coordinate_map_key.get_key() == ([1, 1], "")
    assert x.coordinate_manager.size(x.coordinate_map_key) == 4
    assert (x.dtype, x.device, x.get_device()) == (torch.float32, torch.device("cpu"), -1)
    assert [rows.tolist() for rows in x.decomposition_permutations] == [[0, 1], [2, 3]]
    assert x.decomposed_coordinates[1].tolist() == [[3, -4], [0, 0]]
    assert x.decomposed_features[0].tolist() == [[0, 1], [2, 3]]
    coords, feats = x.decomposed_coordinates_and_features
    assert len(coords) == len(feats) == 2
    assert x.coordinates_at(0).tolist() == [[0, 1], [-2, 1]]
    assert x.features_at(1).tolist() == [[4, 5], [6, 7]]
    assert x.coordinates_and_features_at(1)[1].shape == (2, 2)
    assert "coordinates=" in repr(x)
    x.requires_grad_()
    assert x.requires_grad
    assert not x.detach().requires_grad
    assert x.double().dtype == torch.float64
    assert x.float().dtype == torch.float32
    assert ME.SparseTensor(torch.ones(4, 1), COORDS, requires_grad=True).requires_grad
    assert torch.equal(x.unique_index, torch.arange(4))
    assert torch.equal(x.inverse_mapping, torch.arange(4))
    assert torch.equal(pickle.loads(pickle.dumps(x)).C, x.C)
    assert torch.equal(copy.deepcopy(x).F, x.F)


def test_coordinates_at_a_stride_and_by_key() -> None:
    x = ME.SparseTensor(torch.ones(4, 1), COORDS * torch.tensor([1, 2, 4]), tensor_stride=[2, 4])
    assert x.tensor_stride == [2, 4]
    assert torch.equal(x.C, COORDS * torch.tensor([1, 2, 4]))
    manager = x.coordinate_manager
    y = ME.SparseTensor(torch.zeros(4, 3), coordinate_map_key=x.coordinate_map_key, coordinate_manager=manager)  # fmt: skip # noqa: E501
    assert torch.equal(y.C, x.C)
    z = ME.SparseTensor(torch.ones(1, 1), COORDS[:1], coordinate_manager=manager)
    assert z.coordinate_map_key.get_tensor_stride() == [1, 1]
    again = ME.SparseTensor(torch.ones(1, 1), COORDS[:1], coordinate_manager=manager)
    assert again.coordinate_map_key != z.coordinate_map_key
    assert torch.equal(manager.get_coordinates([2, 4]), x.C)
    deeper = manager.stride(x.coordinate_map_key, 2)
    assert deeper.get_tensor_stride() == [4, 8]
    assert manager.stride(x.coordinate_map_key, [2, 2]) == deeper
    rows, coarse = manager.stride_map(x.coordinate_map_key, deeper)
    scale = torch.tensor([4, 8])
    expected = torch.div(x.C[rows][:, 1:], scale, rounding_mode="floor") * scale
    assert torch.equal(manager.get_coordinates(deeper)[coarse][:, 1:], expected.int())
    kernel_map = manager.kernel_map(x.coordinate_map_key, deeper, stride=2, kernel_size=2)
    assert sum(pairs.shape[1] for pairs in kernel_map.values()) == 4
    same = manager.kernel_map(deeper, deeper, kernel_size=1, region_type=1)
    assert torch.equal(same[0][0], same[0][1])
    with pytest.raises(NotImplementedError, match="region_type"):
        manager.kernel_map(deeper, deeper, region_type=1)
    with pytest.raises(ValueError, match="none of this manager's"):
        manager.get_coordinates(ME.CoordinateMapKey([3, 3]))
    with pytest.raises(ValueError, match="multiples of the tensor stride"):
        ME.SparseTensor(torch.ones(4, 1), COORDS, tensor_stride=2)


def test_rows_on_one_site_are_merged() -> None:
    coords = torch.tensor([[0, 5], [0, 1], [0, 5], [0, 5]], dtype=torch.int32)
    rows = torch.tensor([[1.0], [2.0], [4.0], [7.0]])
    merged = {
        mode: ME.SparseTensor(rows, coords, quantization_mode=mode)
        for mode in (
            Mode.RANDOM_SUBSAMPLE,
            Mode.UNWEIGHTED_AVERAGE,
            Mode.UNWEIGHTED_SUM,
            Mode.MAX_POOL,
        )
    }
    assert [x.F.flatten().tolist() for x in merged.values()] == [[1, 2], [4, 2], [12, 2], [7, 2]]
    x = merged[Mode.UNWEIGHTED_AVERAGE]
    assert x.C.tolist() == [[0, 5], [0, 1]]
    assert x.unique_index.tolist() == [0, 1]
    assert x.inverse_mapping.tolist() == [0, 1, 0, 0]
    assert x.slice(x).F.flatten().tolist() == [4, 2, 4, 4]
    with pytest.raises(ValueError, match="quantization_mode: must merge"):
        ME.SparseTensor(rows, coords, quantization_mode=Mode.NO_QUANTIZATION)
    with pytest.warns(UserWarning, match="rounded down"):
        y = ME.SparseTensor(torch.ones(1, 1), torch.tensor([[0.0, -0.5]]))
    assert y.C.tolist() == [[0, -1]]


def test_arithmetic_on_one_set_and_on_the_union() -> None:
    x, rows = tensor(), torch.arange(8.0).reshape(4, 2)
    y = x.with_features(rows + 1)
    for function in (torch.add, torch.sub, torch.mul, torch.div):
        expected = function(rows, rows + 1)
        operator = {"add": "__add__", "sub": "__sub__", "mul": "__mul__", "div": "__truediv__"}
        assert torch.equal(getattr(x, operator[function.__name__])(y).F, expected)
        assert torch.equal(getattr(x, operator[function.__name__])(rows + 1).F, expected)
    assert torch.equal((x**2).F, rows**2)
    assert torch.equal((-x + 1).F, 1 - rows)
    z = x.with_features(rows)
    z += y
    z -= y
    z *= 2
    z /= 2
    assert torch.equal(z.F, rows)
    assert torch.equal(ME.cat(x, y).F, torch.cat([rows, rows + 1], 1))
    assert torch.equal(ME.cat([x, y]).F, ME.cat((x, y)).F)
    for name, expected in (("sum", rows * 2 + 1), ("mean", rows + 0.5)):
        assert torch.equal(getattr(ME, name)(x, y).F, expected)
    assert torch.equal(ME.var(x, y).F, torch.full((4, 2), 0.25))
    other = ME.SparseTensor(
        torch.ones(2, 2), torch.tensor([[0, 0, 1], [0, 9, 9]], dtype=torch.int32),
        coordinate_manager=x.coordinate_manager,
    )  # fmt: skip
    for total in (x + other, ME.MinkowskiUnion()(x, other)):
        found = rows_of(total)
        assert found[0, 0, 1].tolist() == [1, 2]
        assert found[0, 9, 9].tolist() == [1, 1]
        assert found[1, 3, -4].tolist() == [4, 5]
        assert len(found) == 5
    assert rows_of(x - other)[0, 9, 9].tolist() == [-1, -1]
    assert ME.MinkowskiUnion()(x, other, y).F.sum() == x.F.sum() + other.F.sum() + y.F.sum()
    with pytest.raises(ValueError, match="same coordinates"):
        x += other
    with pytest.raises(ValueError, match="share the coordinate manager"):
        _ = x + tensor()
    with pytest.raises(AssertionError, match="share the coordinate manager"):  # as there
        _ = x - tensor()


def test_to_and_from_dense_tensors() -> None:
    x = tensor()
    dense, first, stride = x.dense(min_coordinate=torch.IntTensor([-2, -4]))
    assert dense.shape == (2, 2, 6, 6)
    assert stride.tolist() == [1, 1]
    assert first.tolist() == [-2, -4]
    for (b, *site), row in rows_of(x).items():
        assert torch.equal(dense[(b, slice(None), site[0] + 2, site[1] + 4)], row)
    assert dense.sum() == x.F.sum()
    wide = x.dense(torch.Size([2, 2, 7, 8]), torch.IntTensor([-2, -4]))[0]
    assert torch.equal(wide[..., :6, :6], dense)
    with pytest.raises(ValueError, match="lie outside"):
        x.dense()
    y, low, _ = x.sparse()
    assert low.tolist() == [-2, -4]
    assert torch.equal(y.to_dense().movedim(-1, 1), dense)
    t = torch.zeros(2, 3, 4, 5)
    t[0, 1, 2, 3] = t[1, 0, 0, 0] = 1.0
    s = ME.to_sparse(t)
    assert s.C.tolist() == [[0, 2, 3], [1, 0, 0]]
    assert torch.equal(s.dense(t.shape)[0], t)
    assert torch.equal(ME.MinkowskiToDenseTensor(t.shape)(ME.MinkowskiToSparseTensor()(t)), t)
    assert ME.to_sparse(t.movedim(1, -1), "BXXC").C.tolist() == s.C.tolist()
    everything = ME.MinkowskiToSparseTensor(remove_zeros=False)(t)
    assert torch.equal(everything.dense()[0], t)
    assert torch.equal(everything.C, ME.dense_coordinates(t.shape))
    assert ME.MinkowskiToFeature()(s).shape == (2, 3)


@pytest.mark.usefixtures("engine")
def test_fields_and_their_slices() -> None:
    points = torch.tensor([[0, 0.2, -1.5], [1, 3.7, 2.1], [0, 0.9, -1.1], [1, 3.2, 2.9], [0, 5, 5]])
    rows = torch.arange(5.0)[:, None]
    field = ME.TensorField(rows, points)
    assert (len(field), field.D, field.tensor_stride) == (5, 2, [1, 1])
    x = field.sparse()
    assert x.C.tolist() == [[0, 0, -2], [1, 3, 2], [0, 5, 5]]
    assert x.F.flatten().tolist() == [1, 2, 4]
    back = x.slice(field)
    assert isinstance(back, ME.TensorField)
    assert back.F.flatten().tolist() == [1, 2, 1, 2, 4]
    assert torch.equal(back.C, points)
    assert x.cat_slice(field).F.tolist() == [[1, 0], [2, 1], [1, 2], [2, 3], [4, 4]]
    assert field.inverse_mapping(x.coordinate_map_key).tolist() == [0, 1, 0, 1, 2]
    coarse = ME.MinkowskiMaxPooling(2, 2, dimension=2)(x)
    assert coarse.slice(field).F.flatten().tolist() == [1, 2, 1, 2, 4]
    assert field.sparse(quantization_mode=Mode.MAX_POOL).F.flatten().tolist() == [2, 3, 4]
    again = field.sparse(coordinate_map_key=x.coordinate_map_key)
    assert again.F.flatten().tolist() == [1, 2, 4]
    assert field.sparse(tensor_stride=2).tensor_stride == [2, 2]
    net = torch.nn.Sequential(
        ME.MinkowskiLinear(1, 2), ME.MinkowskiBatchNorm(2), ME.MinkowskiReLU()
    )
    assert isinstance(net(field), ME.TensorField)
    assert field.decomposed_features[1].flatten().tolist() == [1, 3]
    largest = ME.MinkowskiGlobalMaxPooling()(field)
    assert largest.F.flatten().tolist() == [4, 3]
    splat = field.splat()
    torch.testing.assert_close(splat.F.sum(), rows.sum())
    expected = sc.interpolate(sc.SparseTensor(x.F, x.C, (None, None), 2), points)
    torch.testing.assert_close(x.interpolate(field).F, expected)
    torch.testing.assert_close(ME.MinkowskiInterpolation()(x, points), expected)
    values, (rows_in, at), weights = ME.MinkowskiInterpolation(True, True)(x, points)
    total = torch.zeros(5, 1).index_add(0, at, x.F[rows_in] * weights[:, None])
    torch.testing.assert_close(values, total)
    with pytest.raises(ValueError, match="fall on no site"):
        few = ME.MinkowskiPruning()(x, torch.tensor([True, False, True]))
        few.slice(field)


@pytest.mark.usefixtures("engine")
def test_whole_samples_and_broadcasts() -> None:
    x = tensor(torch.arange(8.0).reshape(4, 2))
    pooled = {
        ME.MinkowskiGlobalAvgPooling: [[1, 2], [5, 6]],
        ME.MinkowskiGlobalPooling: [[1, 2], [5, 6]],
        ME.MinkowskiGlobalSumPooling: [[2, 4], [10, 12]],
        ME.MinkowskiGlobalMaxPooling: [[2, 3], [6, 7]],
    }
    for module, expected in pooled.items():
        y = module()(x)
        assert y.F.tolist() == expected
        assert y.C.tolist() == [[0, 0, 0], [1, 0, 0]]
        assert y.tensor_stride == [0, 0]
    spread = torch.tensor([[2.0, 3], [2, 3], [6, 7], [6, 7]])
    assert torch.equal(ME.MinkowskiBroadcast()(x, y).F, spread)
    assert torch.equal(ME.MinkowskiBroadcastAddition()(x, y).F, x.F + spread)
    assert torch.equal(ME.MinkowskiBroadcastMultiplication()(x, y).F, x.F * spread)
    assert torch.equal(ME.MinkowskiBroadcastConcatenation()(x, y).F, torch.cat([x.F, spread], 1))
    for norm in (ME.MinkowskiInstanceNorm, ME.MinkowskiStableInstanceNorm):
        module = norm(2)
        off = x.F.reshape(2, 2, 2) - x.F.reshape(2, 2, 2).mean(1, keepdim=True)
        expected_rows = off / (off.pow(2).mean(1, keepdim=True) + module.eps).sqrt()
        torch.testing.assert_close(module(x).F, expected_rows.reshape(4, 2))
        assert {name: tuple(p.shape) for name, p in module.state_dict().items()} == {
            "weight": (1, 2),
            "bias": (1, 2),
        }


def test_pruned_tensors_keep_their_level() -> None:
    x = tensor()
    few = ME.MinkowskiPruning()(x, torch.tensor([True, False, True, False]))
    assert torch.equal(few.C, COORDS[[0, 2]])
    assert few.coordinate_map_key.get_key()[1] == "pruned"
    down = ME.MinkowskiConvolution(2, 3, kernel_size=2, stride=2, dimension=2)(few)
    assert down.coordinate_map_key.get_key() == ([2, 2], "pruned")
    up = ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=2, stride=2, dimension=2)(down)
    assert up.coordinate_map_key == x.coordinate_map_key  # the set without a name, as there
    none = ME.MinkowskiPruning()(x, torch.zeros(4, dtype=torch.bool))
    assert len(none) == 0


def test_a_larger_batch_joins_the_manager() -> None:
    x = ME.SparseTensor(torch.ones(2, 2), COORDS[:2])
    layer = ME.MinkowskiConvolution(2, 2, kernel_size=2, stride=2, dimension=2)
    layer(x)
    y = ME.SparseTensor(torch.ones(4, 2), COORDS, coordinate_manager=x.coordinate_manager)
    assert len(ME.MinkowskiGlobalPooling()(y)) == 2
    assert layer(x, layer(y)).coordinate_map_key == layer(y).coordinate_map_key
    assert len(x + y) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ME.SparseTensor(torch.ones(3, 1), COORDS), "one row for each of the 4"),
        (lambda: ME.SparseTensor(torch.ones(4), COORDS), "features: must have shape"),
        (lambda: ME.SparseTensor(torch.ones(4, 1)), "coordinate_map_key: must be"),
        (lambda: ME.TensorField(torch.ones(4, 1)), "coordinate_field_map_key: must be"),
        (lambda: ME.CoordinateManager(D=0), "D: must be at least 1"),
        (lambda: ME.cat(tensor()), "must be at least 2"),
        (ME.CoordsManager, "CoordinateManager since"),
        (lambda: ME.CoordinateMapKey(3).get_key(), "is not set"),
    ],
)
def test_wrong_calls_say_what_is_allowed(call: Any, message: str) -> None:
    with pytest.raises(sc.SparseConvError, match=message):
        call()
