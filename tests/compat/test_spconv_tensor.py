"""The tensor of spconv: what clients do to its indices, and what it shares."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
from cases import assert_close, random_mask
from hypothesis import given
from hypothesis import strategies as st
from spconv_cases import tensor_of
from torch import Tensor

import sparseconv as sc
from sparseconv.compat.spconv import flat
from sparseconv.compat.spconv import pytorch as spconv

SIZE = (6, 7)


def example(seed: int = 0, batch: int = 2, channels: int = 3) -> spconv.SparseConvTensor:
    torch.manual_seed(seed)
    t = torch.randn(batch, channels, *SIZE, dtype=torch.float64)
    return tensor_of(t, random_mask(batch, SIZE, 0.5, seed), seed)


def subm() -> spconv.SubMConv2d:
    torch.manual_seed(1)
    return spconv.SubMConv2d(3, 3, 3).double()


def fresh(x: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
    """Return the same tensor without anything that is cached."""
    indices = x.indices.clone()
    return spconv.SparseConvTensor(x.features, indices, x.spatial_shape, x.batch_size)


def test_members_are_spconvs() -> None:
    x = example()
    assert x.spatial_shape == [6, 7]
    assert (x.spatial_size, x.batch_size) == (42, 2)
    assert x.sparity == x.features.shape[0] / 84
    assert x.indice_dict == {}
    assert x.find_indice_pair(None) is None
    assert x.find_indice_pair("none") is None
    assert repr(x) == f"SparseConvTensor[shape={x.features.shape}]"
    assert not x.is_quantized
    for name in ("grid", "voxel_num", "benchmark", "benchmark_record", "thrust_allocator",
                 "_timer", "force_algo", "int8_scale"):  # fmt: skip
        assert hasattr(x.shadow_copy(), name)
    assert x.shadow_copy().indices is x.indices
    assert torch.equal(x.minus().features, -x.features)
    assert spconv.RemoveGrid()(x).grid is None


def test_features_are_replaced_and_not_set() -> None:
    x = example()
    with pytest.raises(ValueError, match="replace_feature"):
        x.features = x.features * 2
    old = flat.SparseConvTensor(x.features, x.indices, x.spatial_shape, x.batch_size)
    old.features = x.features * 2
    assert torch.equal(old.features, x.replace_feature(x.features * 2).features)


@given(st.integers(0, 2**16), st.booleans(), st.integers(1, 3))
def test_dense_and_back(seed: int, channels_first: bool, axes: int) -> None:
    mask = random_mask(2, (4, 5, 3)[:axes], 0.5, seed)
    t = torch.randn(2, 3, *mask.shape[1:], dtype=torch.float64) * mask[:, None]
    t.requires_grad_()
    x = tensor_of(t, mask, seed)
    dense = x.dense(channels_first)
    wanted = t if channels_first else t.movedim(1, -1)
    assert torch.equal(dense, wanted)
    assert dense.is_contiguous()
    cotangent = torch.randn_like(wanted)
    (grad,) = torch.autograd.grad(dense, t, cotangent)
    grads = cotangent if channels_first else cotangent.movedim(-1, 1)
    assert torch.equal(grad, grads * mask[:, None])
    last = t.detach().movedim(1, -1).contiguous().requires_grad_()
    y = spconv.SparseConvTensor.from_dense(last)
    assert torch.equal(y.indices, mask.nonzero().int())
    assert torch.equal(y.dense(False), last)
    (grad,) = torch.autograd.grad(y.dense(False), last, cotangent.reshape(last.shape))
    assert torch.equal(grad, cotangent.reshape(last.shape) * mask[..., None])


def test_dense_of_whole_numbers() -> None:
    x = example()
    numbers = torch.arange(3 * x.features.shape[0]).reshape(-1, 3)
    assert x.replace_feature(numbers).dense().sum() == numbers.sum()


def test_indices_written_to_in_place_are_seen() -> None:
    """As in VoxelNeXt: `x.indices[:, 1:] *= 2` and on."""
    x = example()
    before = subm()(x)
    x.indices[:, 1] = 5 - x.indices[:, 1]
    after = subm()(x)
    assert_close(after.features, subm()(fresh(x)).features)
    assert not torch.allclose(after.features, before.features)
    assert torch.equal(x.dense(), fresh(x).dense())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_indices_of_an_output_written_to_in_place_are_seen(mode: type) -> None:
    down = spconv.SparseConv2d(3, 3, 2, 2).double()
    with mode():
        y = down(example())
        y.indices[:, 1:] += 1
        y.spatial_shape = [9, 9]
        assert_close(subm()(y).features, subm()(fresh(y)).features)
        x = example()
        x.indices = x.indices.clone()  # one that counts no writes, in inference mode
        subm()(x)
        x.indices[:, 2] = 6 - x.indices[:, 2]
        assert_close(subm()(x).features, subm()(fresh(x)).features)


def test_new_indices_and_features_of_another_number() -> None:
    """Features first, indices after: no layer has read the tensor in between."""
    x = example()
    subm()(x)
    keep = torch.arange(0, x.features.shape[0], 2)
    y = x.replace_feature(x.features[keep])
    y.indices = x.indices[keep]
    assert_close(subm()(y).features, subm()(fresh(y)).features)
    z = x.select_by_index(keep)
    assert_close(subm()(z).features, subm()(y).features)
    assert z.indice_dict == {}
    with pytest.raises(sc.SparseConvValueError, match=r"features: must have one row for each of"):
        subm()(x.replace_feature(x.features[keep]))


def test_indices_that_are_not_contiguous_or_wider() -> None:
    x = example()
    wanted = subm()(x).features
    strided = x.indices.repeat_interleave(2, dim=1)[:, ::2]
    for indices in (strided, x.indices.T.contiguous().T, x.indices.long()):
        y = spconv.SparseConvTensor(x.features, indices, x.spatial_shape, x.batch_size)
        assert torch.equal(subm()(y).features, wanted)
        assert y.indices is indices


def test_tensors_on_the_same_indices_share_their_sites() -> None:
    """Also where a client makes a new tensor on the indices of another."""
    x = example()
    y = spconv.SparseConvTensor(x.features * 2, x.indices, x.spatial_shape, x.batch_size)
    assert y.sites is x.sites
    assert subm()(x).indices is x.indices
    down = spconv.SparseConv2d(3, 3, 2, 2).double()
    assert down(x).indices is down(y).indices
    other = spconv.SparseConvTensor(x.features, x.indices, [8, 8], x.batch_size)
    assert other.sites.spatial_shape == (8, 8)
    assert x.sites.spatial_shape == (6, 7)
    assert x.dense().shape[2:] == (6, 7)


def test_nothing_is_left_behind() -> None:
    gc.disable()
    try:
        x = example()
        net = spconv.SparseSequential(
            spconv.SparseConv2d(3, 3, 2, 2, indice_key="down"),
            spconv.SubMConv2d(3, 3, 3, indice_key="same"),
            spconv.SparseInverseConv2d(3, 3, 2, "down"),
        ).double()
        y = net(x)
        watched = [weakref.ref(y.place), weakref.ref(y.sites), weakref.ref(x.place)]
        watched += [weakref.ref(data.target) for data in y.indice_dict.values()]
        assert y.indices is x.indices
        del x, y
        assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()


REFUSED = {
    "a repeated site": ([[0, 1, 2], [0, 1, 2]], r"indices: 1 of 2 rows repeat a site.*by chance"),
    "outside": ([[0, 1, 7], [0, 1, 2]], "indices: column 2 .spatial axis 1. spans 2 to 7"),
    "negative": ([[0, -1, 2], [0, 1, 2]], "indices: column 1 .spatial axis 0. spans -1 to 1"),
    "a sample too many": ([[2, 1, 2], [0, 1, 2]], "indices: the batch index"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sites_that_spconv_takes_by_chance_raise_where_a_layer_reads_them(name: str) -> None:
    """Not before: models hold such tensors that no layer with a window reads."""
    rows, message = REFUSED[name]
    indices = torch.tensor(rows, dtype=torch.int32)
    x = spconv.SparseConvTensor(torch.randn(2, 3), indices, list(SIZE), 2)
    pointwise = spconv.SparseSequential(spconv.SubMConv2d(3, 4, 1), torch.nn.BatchNorm1d(4))
    assert pointwise(x).features.shape == (2, 4)
    with pytest.raises(sc.SparseConvValueError, match=message):
        spconv.SubMConv2d(3, 4, 3)(x)


def test_wrong_arguments_raise_at_once() -> None:
    x = example()
    make = spconv.SparseConvTensor
    with pytest.raises(sc.SparseConvTypeError, match="indices: must be an integer"):
        make(x.features, x.indices.float(), x.spatial_shape, 2)
    with pytest.raises(sc.SparseConvValueError, match=r"indices: must have shape \(N, 1 \+ D\)"):
        make(x.features, x.indices[:, 0], x.spatial_shape, 2)
    with pytest.raises(sc.SparseConvValueError, match="spatial_shape: must have 2 entries"):
        make(x.features, x.indices, [6, 7, 8], 2)
    with pytest.raises(sc.SparseConvTypeError, match="spatial_shape: must hold one integer"):
        make(x.features, x.indices, 6, 2)


def test_sums_are_of_rows_on_the_same_indices() -> None:
    x, other = example(), example(3)
    y = x.replace_feature(x.features * 2)
    for total in (x + y, x + y.features, y.features + x.features):
        rows = total if isinstance(total, Tensor) else total.features
        assert torch.equal(rows, x.features * 3)
    assert torch.equal((1.0 + x).features, x.features + 1)
    kept = y
    y += x
    assert y is kept
    assert torch.equal(y.features, x.features * 3)
    with pytest.raises(sc.SparseConvValueError, match="other: must lie on the same indices"):
        x + other
    total = spconv.functional.sparse_add(x, other)
    assert_close(total.dense(), x.dense() + other.dense())
    assert spconv.functional.sparse_add(x, x.select_by_index(torch.arange(3))).indices is x.indices
    assert spconv.functional.sparse_add_hash_based is spconv.functional.sparse_add
    with pytest.raises(sc.SparseConvValueError, match="tens: must have one shape"):
        spconv.functional.sparse_add(x, example(batch=1))


def test_tables() -> None:
    x, other = example(), example(3)
    y = x.replace_feature(x.features * 2)
    assert spconv.JoinTable()([x, y]).features.shape[1] == 6
    assert_close(spconv.AddTable()([x, y, y]).features, x.features * 5)
    misaligned = spconv.AddTableMisaligned()([x, other])
    assert_close(misaligned.dense(), x.dense() + other.dense())
    for table in (spconv.JoinTable(), spconv.AddTable()):
        with pytest.raises(sc.SparseConvValueError, match="same indices"):
            table([x, other])
    both = spconv.ConcatTable().add(spconv.Identity()).add(subm())
    assert [type(entry) for entry in both(x)] == [spconv.SparseConvTensor] * 2


def test_copies_and_pickles() -> None:
    x = example()
    y = spconv.SubMConv2d(3, 3, 3, indice_key="key").double()(x)
    buffer = io.BytesIO()
    torch.save(y, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for twin in (loaded, copy.deepcopy(y.replace_feature(y.features.detach())), copy.copy(y)):
        assert torch.equal(twin.indices, y.indices)
        assert torch.equal(twin.features, y.features)
        assert_close(subm()(twin).features, subm()(y).features)


def test_sequential_gives_features_to_what_is_not_sparse() -> None:
    net = spconv.SparseSequential(subm(), torch.nn.ReLU(), tail=spconv.ToDense())
    x = example()
    assert torch.equal(net(x), torch.relu(subm()(x).dense()))
    assert isinstance(net[-1], spconv.ToDense)
    assert len(net) == 3
    net.add(torch.nn.Identity(), "last")
    assert list(net._modules) == ["0", "1", "tail", "last"]
    assert torch.equal(net(x), torch.relu(subm()(x).dense()))
    with pytest.raises(KeyError):
        net.add(torch.nn.Identity(), "last")
    with pytest.raises(IndexError):
        net[4]
    for kind in (spconv.SparseReLU(), spconv.SparseIdentity(), spconv.SparseBatchNorm(3).double()):
        assert isinstance(kind(x), spconv.SparseConvTensor)
        assert isinstance(kind(x.features), Tensor)


def test_scatter_nd() -> None:
    indices = torch.tensor([[0, 1], [1, 0]])
    updates = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    result = spconv.scatter_nd(indices, updates, [2, 2, 3])
    assert torch.equal(result[0, 1], updates[0])
    assert torch.equal(result[0, 0], torch.zeros(3, dtype=torch.float64))
    (grad,) = torch.autograd.grad(result.sum(), updates)
    assert torch.equal(grad, torch.ones_like(updates))
