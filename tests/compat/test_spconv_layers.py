"""Every layer of spconv against dense PyTorch in float64, and what a key checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import Problem, assert_close, gradients, problems, random_mask
from hypothesis import given
from hypothesis import strategies as st
from spconv_cases import module_of, plain, reads_inverse, tensor_of, with_parameters
from torch import Tensor, nn
from torch.nn import functional as F

import sparseconv as sc
from sparseconv import reference
from sparseconv.compat.spconv import pytorch as spconv
from sparseconv.compat.spconv import tensorview

KINDS = ("conv", "transposed", "subm")


def run(problem: Problem, leaves: list[Tensor | None]) -> spconv.SparseConvTensor:
    t, weight, bias = leaves
    x = tensor_of(t, problem.in_mask, problem.seed)
    return module_of(problem, weight, bias)(x)


@pytest.mark.usefixtures("engine")
@given(problem=problems(KINDS, axes=(1, 2, 3)))
def test_convolutions_are_pytorchs(problem: Problem) -> None:
    """Sites, values and gradients, with rows in any order and an empty sample."""
    problem = plain(problem)
    leaves = problem.leaves()
    y = run(problem, leaves)
    mine, wanted = y.dense(), problem.run_dense(leaves)
    assert tuple(y.spatial_shape) == tuple(problem.out_mask.shape[1:])
    assert y.indices.dtype == torch.int32
    assert torch.equal(tensor_of(wanted, problem.out_mask).indices.sort(0).values,
                       y.indices.sort(0).values)  # fmt: skip
    assert_close(mine, wanted)
    cotangent = problem.cotangent()
    for found, right in zip(
        gradients(mine, leaves, cotangent), gradients(wanted, leaves, cotangent), strict=True
    ):
        assert_close(found, right)


@pytest.mark.usefixtures("engine")
@given(problem=problems(("inverse",), axes=(1, 2, 3)))
def test_inverse_convolutions_return_to_the_sites(problem: Problem) -> None:
    problem = plain(problem)
    strided, fine = reads_inverse(problem, problem.seed)
    t, weight, bias = leaves = problem.leaves()
    coarse = strided(fine)
    coarse = coarse.replace_feature(t.movedim(1, -1)[tuple(coarse.indices.long().unbind(1))])
    layer = problem.layer
    kind = getattr(spconv, f"SparseInverseConv{layer.axes}d")
    inverse = kind(layer.in_channels, layer.out_channels, layer.kernel, "down", bias is not None)
    y = with_parameters(inverse, weight, bias, transposed=True)(coarse)
    if inverse.conv1x1:  # as in spconv, a matrix product that restores nothing
        assert y.indices is coarse.indices
        return
    assert y.indices is fine.indices
    assert_close(y.dense(), problem.run_dense(leaves))


@pytest.mark.usefixtures("engine")
def test_four_axes() -> None:
    mask = random_mask(2, (3, 4, 3, 3), 0.4)
    t = torch.randn(2, 2, 3, 4, 3, 3, dtype=torch.float64)
    x = tensor_of(t, mask, 3)
    seen = torch.where(mask[:, None], t, 0.0)
    down = spconv.SparseConv4d(2, 3, 2, 2, 1, indice_key="down").double()
    y = down(x)
    weight = down.weight.movedim(-1, 1)
    sites = reference.conv_sites(mask, (2,) * 4, (2,) * 4, (1,) * 4, (1,) * 4)
    wanted = reference.conv(seen, weight, down.bias, 2, 1, 1, 1)
    assert_close(y.dense(), torch.where(sites[:, None], wanted, 0.0))
    back = spconv.SparseInverseConv4d(3, 2, 2, "down").double()(y)
    assert back.indices is x.indices
    subm = spconv.SubMConv4d(2, 3, 3).double()
    wanted = reference.subm_conv(seen, mask, subm.weight.movedim(-1, 1), subm.bias)
    assert_close(subm(x).dense(), wanted)
    up = spconv.SparseConvTranspose4d(2, 1, 2, 2, bias=False).double()(x)
    assert up.spatial_shape == [6, 8, 6, 6]
    assert spconv.SparseMaxPool4d(2)(x).spatial_shape == [1, 2, 1, 1]


@pytest.mark.usefixtures("engine")
@given(st.integers(0, 2**16), st.sampled_from([(2, 3), (4, 1), (2, 2)]), st.integers(1, 2))
def test_an_even_submanifold_window_has_cell_k_over_2_on_the_site(
    seed: int, kernel: tuple[int, int], dilation: int
) -> None:
    mask = random_mask(2, (5, 6), 0.5, seed)
    t = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    layer = spconv.SubMConv2d(2, 3, kernel, stride=2, padding=1, dilation=dilation).double()
    y = layer(tensor_of(t, mask, seed))
    pads = [(dilation * (k // 2), dilation * (k - 1 - k // 2)) for k in reversed(kernel)]
    seen = F.pad(torch.where(mask[:, None], t, 0.0), [n for pair in pads for n in pair])
    wanted = F.conv2d(seen, layer.weight.movedim(-1, 1), layer.bias, dilation=dilation)
    assert_close(y.dense(), torch.where(mask[:, None], wanted, 0.0))


def pool_masks(mask: Tensor, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    axes = mask.ndim - 1
    return reference.conv_sites(
        mask, (kernel,) * axes, (stride,) * axes, (padding,) * axes, (dilation,) * axes
    )


@pytest.mark.usefixtures("engine")
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2),
    st.integers(0, 2**16),
)  # fmt: skip
def test_pooling_is_over_the_sites_of_a_window(
    axes: int, kernel: int, stride: int, padding: int, dilation: int, seed: int
) -> None:
    padding = min(padding, (dilation * (kernel - 1) + 1) // 2)
    mask = random_mask(2, (6, 5, 5)[:axes], 0.4, seed)
    t = torch.randn(2, 3, *mask.shape[1:], dtype=torch.float64).requires_grad_()
    x = tensor_of(t, mask, seed)
    sites = pool_masks(mask, kernel, stride, padding, dilation)[:, None]
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    low = torch.where(mask[:, None], t, -torch.inf)
    largest = getattr(F, f"max_pool{axes}d")(low, kernel, **window)
    y = getattr(spconv, f"SparseMaxPool{axes}d")(kernel, **window)(x)
    assert_close(y.dense(), torch.where(sites, largest, 0.0))
    cotangent = torch.randn_like(largest) * sites
    (found,) = torch.autograd.grad(y.dense(), t, cotangent, retain_graph=True)
    (right,) = torch.autograd.grad(torch.where(sites, largest, 0.0), t, cotangent)
    assert_close(found, right)
    ones = torch.ones(1, 1, *(kernel,) * axes, dtype=torch.float64)
    conv = getattr(F, f"conv{axes}d")
    total = conv(torch.where(mask[:, None], t, 0.0), ones.expand(3, 1, *ones.shape[2:]), None,
                 stride, padding, dilation, 3)  # fmt: skip
    count = conv(mask[:, None].double(), ones, None, stride, padding, dilation)
    mean = torch.where(sites, total / count.clamp(min=1), 0.0)
    y = getattr(spconv, f"SparseAvgPool{axes}d")(kernel, **window)(x)
    assert_close(y.dense(), mean)
    (found,) = torch.autograd.grad(y.dense(), t, cotangent, retain_graph=True)
    (right,) = torch.autograd.grad(mean, t, cotangent)
    assert_close(found, right)


def test_max_pooling_counts_0_where_that_is_asked_for() -> None:
    """spconv computes the larger of 0 and the sites, which weights may have been trained with."""
    x = tensor_of(torch.tensor([[[-2.0, -1.0, 3.0, -4.0]]]), torch.ones(1, 4, dtype=torch.bool))
    pool = spconv.SparseMaxPool1d(2)
    assert pool(x).features[:, 0].tolist() == [-1, 3]
    pool.from_zero = True
    assert pool(x).features[:, 0].tolist() == [0, 3]


def test_submanifold_pooling_keeps_the_sites() -> None:
    mask = random_mask(1, (5, 5), 0.5)
    t = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    x = tensor_of(t, mask, 1)
    y = spconv.pool.SparseMaxPool(2, 3, stride=2, padding=0, subm=True)(x)
    assert y.indices is x.indices
    low = torch.where(mask[:, None], t, -torch.inf)
    wanted = F.max_pool2d(low, 3, 1, 1)
    assert_close(y.dense(), torch.where(mask[:, None], wanted, 0.0))


def test_global_pooling_is_per_sample() -> None:
    mask = random_mask(3, (5, 4), 0.5, empty_sample=True)
    t = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    x = tensor_of(t, mask, 1)
    mean, largest = spconv.SparseGlobalAvgPool()(x), spconv.SparseGlobalMaxPool()(x)
    assert mean.shape == largest.shape == (3, 2)
    for sample in (0, 2):
        rows = t[sample].flatten(1)[:, mask[sample].flatten()]
        assert_close(mean[sample], rows.mean(1))
        assert_close(largest[sample], rows.amax(1))


def strided_net(key: str | None = "down") -> tuple[Any, Any]:
    torch.manual_seed(0)
    return spconv.SparseConv2d(2, 3, 3, 2, 1, indice_key=key), tensor_of(
        torch.randn(2, 2, 6, 7), random_mask(2, (6, 7), 0.5), 4
    )


MISFITS = {
    "another kernel": (lambda: spconv.SubMConv2d(2, 2, 5, indice_key="key"), "kernel_size=(5, 5)"),
    "another dilation": (
        lambda: spconv.SubMConv2d(2, 2, 3, dilation=2, indice_key="key"), "dilation=(2, 2)"),
    "a strided layer": (lambda: spconv.SparseConv2d(2, 2, 3, 2, 1, indice_key="key"), "stride="),
    "an inverse layer": (lambda: spconv.SparseInverseConv2d(2, 2, 3, "key"), "is submanifold"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_key_of_another_geometry_names_both_layers(name: str) -> None:
    make, text = MISFITS[name]
    net = spconv.SparseSequential(first=spconv.SubMConv2d(2, 2, 3, indice_key="key"), second=make())
    spconv.assign_name_for_sparse_modules(net)
    x = tensor_of(torch.randn(1, 2, 6, 7), random_mask(1, (6, 7), 0.5))
    with pytest.raises(
        sc.SparseConvValueError, match=r"indice_key: 'key' of second .*first"
    ) as info:
        net(x)
    assert text in str(info.value)


def test_a_key_is_known_behind_its_layer_alone() -> None:
    down, x = strided_net()
    y = down(x)
    assert x.indice_dict == {}
    data = y.find_indice_pair("down")
    assert data.out_indices is y.indices
    assert data.indices is x.indices
    assert (data.ksize, data.stride, data.is_subm) == ([3, 3], [2, 2], False)
    assert (data.spatial_shape, data.out_spatial_shape) == ([6, 7], [3, 4])
    assert int(data.indice_pair_num.sum()) == int((data.indice_pairs[0] >= 0).sum())
    with pytest.raises(sc.SparseConvValueError, match="left by no layer before it; known are"):
        spconv.SparseInverseConv2d(3, 2, 3, "up")(y)
    with pytest.raises(
        sc.SparseConvValueError, match=r"has kernel_size \[3, 3\], this one \[2, 2\]"
    ):
        spconv.SparseInverseConv2d(3, 2, 2, "down")(y)
    again = y.replace_feature(y.features)
    again.spatial_shape = [4, 4]
    with pytest.raises(sc.SparseConvValueError, match=r"made spatial_shape \[3, 4\]"):
        spconv.SparseInverseConv2d(3, 2, 3, "down")(again)


def test_an_inverse_layer_behind_pooling() -> None:
    x = tensor_of(torch.randn(2, 2, 6, 7), random_mask(2, (6, 7), 0.5), 4)
    y = spconv.SparseMaxPool2d(2, 2, indice_key="pool")(x)
    assert spconv.SparseInverseConv2d(2, 3, 2, "pool")(y).indices is x.indices


def test_rows_that_were_shuffled_behind_a_strided_layer_find_back() -> None:
    down, x = strided_net()
    up = spconv.SparseInverseConv2d(3, 2, 3, "down")
    y = down(x)
    wanted = up(y)
    order = torch.randperm(y.features.shape[0])
    moved = y.replace_feature(y.features[order])
    moved.indices = y.indices[order]
    assert_close(up(moved).features, wanted.features)


def test_initial_weights_are_uniform_within_the_bound() -> None:
    layer = spconv.SubMConv3d(16, 32, 3)
    bound = 1 / (16 * 27) ** 0.5
    for parameter in (layer.weight.detach(), layer.bias.detach()):
        assert float(parameter.abs().max()) <= bound * (1 + 1e-6)
    assert float(layer.weight.detach().abs().max()) > 0.99 * bound


def test_a_layer_adds_and_activates() -> None:
    x = tensor_of(torch.randn(1, 2, 6, 7), random_mask(1, (6, 7), 0.5))
    kind = tensorview.gemm.Activation.ReLU
    layer = spconv.SparseConvolution(2, 2, 2, 3, subm=True, act_type=kind)
    plain_layer = spconv.SparseConvolution(2, 2, 2, 3, subm=True)
    plain_layer.load_state_dict(layer.state_dict())
    wanted = torch.relu(plain_layer(x).features + x.features)
    assert_close(layer(x, add_input=x).features, wanted)


def test_record_voxel_count_keeps_the_largest_number() -> None:
    layer = spconv.SparseConv2d(2, 3, 3, 2, 1, record_voxel_count=True)
    counts = []
    for density in (0.5, 0.1):
        y = layer(tensor_of(torch.randn(1, 2, 6, 7), random_mask(1, (6, 7), density)))
        counts.append(y.features.shape[0])
    assert layer.state_dict()["max_num_voxels_during_training"].tolist() == [max(counts)]
    assert layer.get_max_num_voxels().item() == max(counts)


WRONG = {
    "channels": (lambda: spconv.SubMConv2d(5, 2, 3), "features: must have 5 channels, got 2"),
    "dtype": (lambda: spconv.SubMConv2d(2, 2, 3).double(), "weight: must be torch.float32"),
    "extent": (lambda: spconv.SparseConv2d(2, 2, 9), "an output size of -2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_raise_before_any_work(name: str) -> None:
    make, message = WRONG[name]
    x = tensor_of(torch.randn(1, 2, 6, 7), random_mask(1, (6, 7), 0.5))
    with pytest.raises(sc.SparseConvError, match=message):
        make()(x)


def test_wrong_arguments_raise() -> None:
    with pytest.raises(sc.SparseConvValueError, match="groups: must be 1"):
        spconv.SubMConv2d(2, 2, 3, groups=2)
    with pytest.raises(sc.SparseConvValueError, match="padding: must be 0"):
        spconv.SparseConv2d(2, 2, 1, padding=1)


@pytest.mark.usefixtures("engine")
def test_autocast_computes_in_half_precision() -> None:
    x = tensor_of(torch.randn(1, 2, 6, 7), random_mask(1, (6, 7), 0.5))
    for layer in (spconv.SubMConv2d(2, 4, 3), spconv.SubMConv2d(2, 4, 1)):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.features.dtype == torch.bfloat16
        assert_close(y.features, layer(x).features)


def test_gradients_of_gradients() -> None:
    mask = random_mask(1, (4, 4), 0.6)
    layer = spconv.SparseConv2d(2, 2, 3, 2, 1).double()
    x = tensor_of(torch.randn(1, 2, 4, 4, dtype=torch.float64), mask)
    features = x.features.clone().requires_grad_()

    def out(features: Tensor, weight: Tensor) -> Tensor:
        parameters = {"weight": weight, "bias": layer.bias}
        return torch.func.functional_call(layer, parameters, x.replace_feature(features)).features

    leaves = features, layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(out, leaves)
    assert torch.autograd.gradgradcheck(out, leaves)


def test_empty_input_passes_through_every_layer() -> None:
    x = tensor_of(torch.randn(2, 2, 6, 7), torch.zeros(2, 6, 7, dtype=torch.bool))
    net = spconv.SparseSequential(
        spconv.SubMConv2d(2, 4, 3, indice_key="a"),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        spconv.SparseConv2d(4, 4, 3, 2, 1, indice_key="down"),
        spconv.SparseInverseConv2d(4, 2, 3, "down"),
        spconv.SparseMaxPool2d(2),
        spconv.ToDense(),
    )
    assert net(x).shape == (2, 2, 3, 3)
    assert spconv.SparseGlobalAvgPool()(x).shape == (2, 2)
