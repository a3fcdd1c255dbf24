"""Functions, modules of each value, collation and quantization under MinkowskiEngine's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from minkowski_cases import tensor

from sparseconv.compat import minkowski as ME

MEF = ME.MinkowskiFunctional


VALUES = [
    *("MinkowskiELU", "MinkowskiHardshrink", "MinkowskiHardsigmoid", "MinkowskiHardtanh"),
    *("MinkowskiHardswish", "MinkowskiLeakyReLU", "MinkowskiLogSigmoid", "MinkowskiPReLU"),
    *("MinkowskiReLU", "MinkowskiReLU6", "MinkowskiRReLU", "MinkowskiSELU", "MinkowskiCELU"),
    *("MinkowskiGELU", "MinkowskiSigmoid", "MinkowskiSiLU", "MinkowskiSoftplus"),
    *("MinkowskiSoftshrink", "MinkowskiSoftsign", "MinkowskiTanh", "MinkowskiTanhshrink"),
    *("MinkowskiThreshold", "MinkowskiSoftmin", "MinkowskiSoftmax", "MinkowskiLogSoftmax"),
    *("MinkowskiDropout", "MinkowskiAlphaDropout"),
]


FUNCTIONS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("relu", "elu", "celu", "selu", "gelu", "silu", "relu6", "leaky_relu"), ()),
    **dict.fromkeys(("hardtanh", "hardswish", "hardsigmoid", "hardshrink", "tanhshrink"), ()),
    **dict.fromkeys(("logsigmoid", "softplus", "softsign", "softshrink", "tanh", "sigmoid"), ()),
    **dict.fromkeys(("softmax", "softmin", "log_softmax", "glu"), (1,)),
    "normalize": (),
    "threshold": (0.1, 0.2),
}


LOSSES = [
    *("binary_cross_entropy", "binary_cross_entropy_with_logits", "poisson_nll_loss", "l1_loss"),
    *("hinge_embedding_loss", "mse_loss", "smooth_l1_loss", "soft_margin_loss"),
    *("multilabel_margin_loss", "multilabel_soft_margin_loss"),
]


def test_values_and_functions() -> None:
    x = tensor(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    for name in VALUES:
        options = {"Threshold": (0.1, 0.2), "Softmax": (1,), "Softmin": (1,), "LogSoftmax": (1,)}
        layer, own = (
            getattr(library, prefix + name.removeprefix("Minkowski"))(
                *options.get(name.removeprefix("Minkowski"), ())
            ).eval()
            for library, prefix in ((ME, "Minkowski"), (torch.nn, ""))
        )
        assert torch.equal(layer(x).F, own(x.F)), name
    for name, arguments in FUNCTIONS.items():
        expected = getattr(torch.nn.functional, name)(x.F, *arguments)
        assert torch.equal(getattr(MEF, name)(x, *arguments).F, expected), name
    rows, signs = x.F.sigmoid(), torch.ones(4, 2)
    for name in LOSSES:
        labels = torch.zeros(4, 2).long() - 1 if name == "multilabel_margin_loss" else signs
        expected = getattr(torch.nn.functional, name)(rows, labels)
        assert torch.equal(getattr(MEF, name)(x.with_features(rows), labels), expected), name
    for name in ("nll_loss", "multi_margin_loss"):
        labels = torch.tensor([0, 1, 1, 0])
        expected = getattr(torch.nn.functional, name)(rows, labels)
        assert torch.equal(getattr(MEF, name)(x.with_features(rows), labels), expected), name
    for name in ("dropout", "alpha_dropout"):
        assert torch.equal(getattr(MEF, name)(x, 0.5, False).F, x.F)
    assert MEF.rrelu(x).F.shape == MEF.gumbel_softmax(x, dim=1).F.shape == (4, 2)
    batched = MEF.batch_norm(x, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(batched.F, x.F, rtol=1e-4, atol=1e-4)
    assert MEF.linear(x, torch.ones(3, 2)).F.shape == (4, 3)
    assert MEF.prelu(x, torch.tensor([0.5])).F.shape == (4, 2)
    target = torch.tensor([0, 1, 1, 0])
    assert torch.equal(MEF.cross_entropy(x, target), torch.nn.functional.cross_entropy(x.F, target))
    norm = ME.MinkowskiBatchNorm(2, momentum=0.3)
    assert sorted(norm.state_dict())[0] == "bn.bias"
    assert torch.equal(norm(x).F, torch.nn.BatchNorm1d(2, momentum=0.3)(x.F))
    synced = ME.MinkowskiSyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(norm))
    assert isinstance(synced[0], ME.MinkowskiSyncBatchNorm)
    assert synced[0].bn.weight is norm.bn.weight
    assert torch.equal(synced(x).F, torch.nn.BatchNorm1d(2)(x.F))
    assert torch.equal(ME.MinkowskiDropout(0.5).eval()(x).F, x.F)
    divergence = MEF.kl_div(x.with_features(rows.log()), rows.flip(0), reduction="sum")
    assert divergence > 0
    wave = ME.MinkowskiSinusoidal(2, 3)
    assert torch.equal(wave(x).F, torch.sin(x.F @ wave.kernel + wave.bias) * wave.coef)
    stack = ME.MinkowskiStackSum(ME.MinkowskiReLU(), ME.MinkowskiTanh())
    assert torch.equal(stack(x).F, x.F.relu() + x.F.tanh())
    for kind, channels in (
        (ME.MinkowskiStackCat, 4),
        (ME.MinkowskiStackMean, 2),
        (ME.MinkowskiStackVar, 2),
    ):
        assert kind(ME.MinkowskiReLU(), ME.MinkowskiTanh())(x).F.shape == (4, channels)


def test_collation() -> None:
    first, second = torch.tensor([[0.5, -0.5]]), np.array([[1, 2], [3, 4]])
    coords = ME.utils.batched_coordinates([first, second])
    assert coords.tolist() == [[0, 0, -1], [1, 1, 2], [1, 3, 4]]
    assert coords.dtype == torch.int32
    continuous = ME.utils.batched_coordinates([first], dtype=torch.float32)
    assert continuous.tolist() == [[0, 0.5, -0.5]]
    feats = [torch.ones(1, 3), np.zeros((2, 3), dtype=np.float32)]
    labels = [torch.tensor([1]), torch.tensor([2, 3])]
    batch = ME.utils.sparse_collate([first, second], feats, labels)
    assert torch.equal(batch[0], coords)
    assert batch[1].shape == (3, 3)
    assert batch[2].tolist() == [1, 2, 3]
    assert len(ME.utils.sparse_collate([first], feats[:1])) == 2
    data = list(zip([first, second], feats, labels, strict=True))
    assert torch.equal(ME.utils.batch_sparse_collate(data)[0], coords)
    assert torch.equal(ME.utils.SparseCollation()(data)[2], batch[2])
    with pytest.warns(UserWarning, match="left out"):
        assert len(ME.utils.SparseCollation(limit_numpoints=1)(data)[0]) == 1
    with pytest.raises(ValueError, match="one row for each"):
        ME.utils.sparse_collate([first], feats[1:])


def test_quantization() -> None:
    points = np.array([[0.1, 0.1], [2.6, -0.3], [0.2, 0.3], [0.3, 0.2]])
    feats, labels = np.arange(8.0).reshape(4, 2), np.array([1, 2, 1, 3], dtype=np.int32)
    quantize = ME.utils.sparse_quantize
    sites = quantize(points, quantization_size=0.5)
    assert sites.tolist() == [[0, 0], [5, -1]]
    found = quantize(points, feats, return_index=True, return_inverse=True, quantization_size=0.5)
    assert found[1].tolist() == [[0, 1], [2, 3]]
    assert found[2].tolist() == [0, 1]
    assert found[3].tolist() == [0, 1, 0, 0]
    *_, merged = quantize(points, feats, labels, quantization_size=0.5, ignore_label=-1)
    assert isinstance(merged, np.ndarray)
    assert merged.tolist() == [-1, 2]
    index, inverse = quantize(
        torch.tensor(points), return_index=True, return_inverse=True, return_maps_only=True,
        quantization_size=[0.5, 0.5],
    )  # fmt: skip
    assert torch.equal(index, found[2])
    assert torch.equal(inverse, found[3])
    assert quantize(torch.tensor([[1.5, -1.5]])).tolist() == [[1, -2]]
    kept, places = ME.utils.unique_coordinate_map(torch.tensor([[0, 1], [0, 1], [1, 1]]).int())
    assert (kept.tolist(), places.tolist()) == ([0, 2], [0, 0, 1])
    keys = ME.utils.fnv_hash_vec(np.array([[0, 1], [1, 0], [0, 1]]))
    assert keys[0] == keys[2] != keys[1]
    assert ME.utils.ravel_hash_vec(np.array([[0, 1], [1, 0], [0, 0]])).tolist() == [1, 2, 0]
    kernel = ME.utils.kaiming_normal_(torch.empty(27, 64, 64), mode="fan_out")
    assert abs(float(kernel.std()) / (2 / (27 * 64)) ** 0.5 - 1) < 0.02


def test_tensors_that_share_one_manager() -> None:
    ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SHARE_COORDINATE_MANAGER)
    try:
        x, y = tensor(), tensor()
        assert x.coordinate_manager is y.coordinate_manager is ME.global_coordinate_manager()
        ME.clear_global_coordinate_manager()
        assert tensor().coordinate_manager is not x.coordinate_manager
    finally:
        ME.clear_global_coordinate_manager()
        ME.set_sparse_tensor_operation_mode(
            ME.SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
        )
    assert ME.sparse_tensor_operation_mode().value == 0


def test_small_things() -> None:
    assert ME.convert_to_int_tensor(2, 3).tolist() == [2, 2, 2]
    assert ME.get_kernel_volume(ME.RegionType.HYPER_CUBE, [3, 2], None, None, 2) == 6
    generator = ME.KernelGenerator(3, stride=2, dimension=2)
    assert generator.get_kernel([1, 1], False)[2] == generator.kernel_volume == 9
    layer = ME.MinkowskiConvolution(1, 1, kernel_generator=generator, dimension=2)
    assert layer.stride == [2, 2]
    assert isinstance(layer, ME.MinkowskiModuleBase)
    assert ME.is_cuda_available() == torch.cuda.is_available()
    assert ME.cuda_version() >= -1
    ME.set_gpu_allocator(ME.GPUMemoryAllocatorType.PYTORCH)
    ME.set_memory_manager_backend(ME.GPUMemoryAllocatorType.CUDA)
    ME.set_global_coordinate_manager(None)
    x = tensor(minkowski_algorithm=ME.MinkowskiAlgorithm.SPEED_OPTIMIZED)
    assert ME.CoordinateMapType.CPU.value == 0
    assert ME.PoolingMode.LOCAL_SUM_POOLING is ME.MinkowskiSumPooling(2, dimension=2).pooling_mode
    assert ME.BroadcastMode.ELEMENTWISE_ADDITON is ME.MinkowskiBroadcastAddition().operation_type
    gate = ME.modules.senet_block.SELayer(2, 1)
    wide = ME.modules.senet_block.SEBottleneck(16, 4, D=2)
    assert gate(x).F.shape == (4, 2)
    assert wide(x.with_features(torch.randn(4, 16))).F.shape == (4, 16)
