"""What other libraries get wrong, as calls that must come out right here.

Each test says in a comment what a peer does with the same call; found by running or reading them.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, dense_conv, generator, random_input, random_mask, sparse
from torch import Tensor, nn

import sparseconv as sc

CONV = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


def randn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=generator(seed), dtype=torch.float64)


# spconv 2.3: backward of the first layer needs a GPU driver; eval with a bias asserts
def test_training_and_evaluation_need_no_gpu(engine: str) -> None:
    x = random_input(30, 2, (6, 6, 6))
    layer = nn.Conv3d(2, 3, 3, stride=2, padding=1).double()
    layer(x).features.sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        y = layer.eval()(x)
    dense = layer(x.dense())
    assert_close(y.dense(), torch.where(y.mask(), dense, 0.0))


# spconv: features and indices of different length corrupt the heap and abort Python
@pytest.mark.parametrize("rows", [0, 3, 5])
def test_rows_and_sites_must_agree(rows: int) -> None:
    coords = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4]])
    with pytest.raises(sc.SparseConvValueError, match=f"{rows} rows for 4 sites"):
        sc.SparseTensor(torch.zeros(rows, 2), coords)
    x = sc.SparseTensor(torch.zeros(4, 2), coords)
    with pytest.raises(sc.SparseConvValueError, match=f"{rows} rows for 4 sites"):
        x.replace(torch.zeros(rows, 2))


# spconv: negative, out-of-range and repeated coordinates, and a batch index beyond batch_size, are
# taken in silence
@pytest.mark.parametrize(
    ("coords", "message"),
    [
        ([[0, -1, 0], [0, 1, 1]], "column 1 .* outside spatial_shape"),
        ([[0, 0, 0], [0, 4, 1]], "column 1 .* outside spatial_shape"),
        ([[0, 1, 1], [0, 1, 1]], "repeat a site"),
        ([[0, 1, 1], [2, 1, 1]], "batch index .* goes up to 2"),
        ([[0, 1, 1], [-1, 1, 1]], "batch index .* must not be negative"),
    ],
)
def test_coordinates_are_checked(coords: list[list[int]], message: str) -> None:
    with pytest.raises(sc.SparseConvValueError, match=message):
        sc.SparseTensor(torch.zeros(2, 1), torch.tensor(coords), (4, 5), 2)


# everyone: a batch index in the last column, or axes as (x, y, z) for (z, y, x), is taken or
# refused without a word of what is wrong
def test_messages_say_the_likely_cause() -> None:
    batch_last = torch.tensor([[5, 6, 0], [7, 8, 1]])
    with pytest.raises(sc.SparseConvValueError, match="batch index is in the last column"):
        sc.SparseTensor(torch.zeros(2, 1), batch_last, (9, 9), 2)
    turned = torch.tensor([[0, 1, 8], [0, 2, 9]])
    with pytest.raises(sc.SparseConvValueError, match="axes are reversed"):
        sc.SparseTensor(torch.zeros(2, 1), turned, (10, 3), 1)


# spconv: adding tensors on different sites adds rows blindly, WarpConvNet compares shapes only,
# spconv's JoinTable and AddTable row counts only
def test_tensors_on_different_sites_are_told_apart(engine: str) -> None:
    x = sc.SparseTensor(randn(3, 2), torch.tensor([[0, 1], [0, 2], [0, 4]]), (6,))
    y = sc.SparseTensor(randn(3, 2, seed=1), torch.tensor([[0, 2], [0, 3], [0, 4]]), (6,))
    for operation in (torch.add, torch.sub, torch.mul):
        assert_close(operation(x, y).dense(), operation(x.dense(), y.dense()))
    assert (x + y).num_sites == 4
    with pytest.raises(sc.SparseConvValueError, match="same sites"):
        sc.cat([x, y])
    joined = torch.cat([x, y], dim=1)
    assert_close(joined.dense(), torch.cat([x.dense(), y.dense()], dim=1))
    assert torch.equal(joined.mask(), x.mask() | y.mask())
    turned = sc.SparseTensor(x.features.flip(0), x.coords.flip(0), (6,))
    assert_close((x + turned).dense(), 2 * x.dense())
    assert_close(torch.cat([x, turned], dim=1).dense(), torch.cat([x.dense()] * 2, dim=1))


# spconv#677: ``+=`` always raises, though its guide recommends it
def test_augmented_assignment() -> None:
    x = random_input(5, 2, (4, 4))
    y = before = x
    y += x
    y *= 3.0
    y -= x.features
    y /= 2
    assert_close(y.features, x.features * 2.5)
    assert before is x


# spconv: RemoveDuplicate raises
def test_repeated_sites_merge() -> None:
    coords = torch.tensor([[0, 2], [0, 1], [0, 2]])
    x = sc.SparseTensor(torch.tensor([[1.0], [2.0], [4.0]]), coords, reduce="sum")
    assert (x.coords.tolist(), x.features.flatten().tolist()) == ([[0, 1], [0, 2]], [2.0, 5.0])


# spconv: all sites vanishing in a strided layer goes unsaid; its empty input raises
def test_sites_that_vanish_are_reported() -> None:
    x = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 4]]), (5,))
    layer = nn.Conv1d(1, 1, 2, stride=2)
    y = layer(x)
    assert (y.num_sites, y.shape) == (0, (1, 1, 2))
    assert layer(y.replace(y.features)).num_sites == 0
    assert sc.summary(layer, x, show=False).warnings


# spconv and others: no ``.to()``, or one that leaves coordinates behind
def test_to_moves_and_converts() -> None:
    x = random_input(5, 2, (4, 4), dtype=torch.float32)
    assert x.to(torch.float64).dtype == torch.float64
    assert x.to(torch.float64).sites is x.sites
    assert x.to("cpu").device == x.cpu().device == torch.device("cpu")
    other = random_input(5, 2, (4, 4))
    assert x.to(other.features).dtype == other.dtype


def test_tensors_and_models_survive_pickling_and_copies() -> None:
    x = random_input(9, 2, (4, 4, 4))
    model = nn.Sequential(sc.nn.SubmConv3d(2, 3, 3), nn.Conv3d(3, 3, 2, 2)).double()
    y = model(x)
    model2, x2 = pickle.loads(pickle.dumps((model, x)))
    assert torch.equal(model2(x2).features, y.features)
    assert torch.equal(copy.deepcopy(model)(copy.deepcopy(x)).features, y.features)
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded.coords, x.coords)


# sparse_tensor.dense() -> from_dense() of most libraries drops sites whose features are all 0
def test_true_zeros_survive_the_round_trip() -> None:
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    x = sc.SparseTensor(features, torch.tensor([[0, 0], [0, 2], [1, 1]]), (4,), 3)
    y = sc.SparseTensor.from_dense(x.dense(), x.mask())
    assert torch.equal(y.coords, x.coords)
    assert torch.equal(y.features, x.features)
    assert y.batch_size == 3
    assert sc.SparseTensor.from_dense(x.dense()).num_sites == 1


# mmcv and spconv 1 reuse cached pairs by a user's key without looking at kernel, dilation or shape
# (Cylinder3D#102: 9 of 27 weights used); TorchSparse leaves padding out of its key, and lets
# dilation reach only the key (#109, #302)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"padding": 1}, {"padding": 2}),
        ({"padding": 2}, {"padding": 2, "dilation": 2}),
        ({"padding": 1, "stride": 2}, {"padding": 1, "stride": 3}),
        ({"padding": (1, 0)}, {"padding": (0, 1)}),
    ],
)
def test_layers_that_differ_in_one_option_share_nothing(
    engine: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    x = random_input(30, 2, (7, 8), batch=2)
    weight = randn(3, 2, 3, 3)
    for options in (one, other, one):
        y = nn.functional.conv2d(x, weight, **options)
        expected = dense_conv(x.dense(), weight, **options)
        assert_close(y.dense(), torch.where(y.mask(), expected, 0.0))
    for kernel in ((3, 1), (1, 3), (3, 3)):
        y = sc.functional.subm_conv(x, weight[:, :, : kernel[0], : kernel[1]])
        expected = dense_conv(x.dense(), weight[:, :, : kernel[0], : kernel[1]], padding="same")
        assert_close(y.dense(), torch.where(x.mask(), expected, 0.0))
    for dilation in (1, 2):
        y = sc.functional.subm_conv(x, weight, dilation=dilation)
        expected = dense_conv(x.dense(), weight, padding=dilation, dilation=dilation)
        assert_close(y.dense(), torch.where(x.mask(), expected, 0.0))


# mmcv: converts coordinates to int32 and throws the result away
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integer_coordinates_of_every_width(dtype: torch.dtype) -> None:
    coords = torch.tensor([[0, 3, 1], [1, 0, 2]])
    x = sc.SparseTensor(torch.ones(2, 1), coords.to(dtype), (4, 4))
    assert torch.equal(x.coords.long(), coords)


# MinkowskiEngine: ``sparse()`` shifts the tensor's own coordinates in place
def test_nothing_of_the_callers_is_written_to() -> None:
    coords = torch.tensor([[0, 3, 1], [1, 2, 2], [0, 1, 1]])
    features, kept = torch.ones(3, 1), coords.clone()
    x = sc.SparseTensor(features, coords, (6, 6))
    nn.Conv2d(1, 1, 3, 2, bias=False)(x)
    for call in (lambda: sc.crop(x, 1, 4), lambda: x[1], lambda: sc.collate([x, x]), x.dense):
        call()
    assert torch.equal(coords, kept)
    assert torch.equal(features, torch.ones(3, 1))
    xyz = torch.rand(5, 3)
    before = xyz.clone()
    sc.voxelize(xyz, 0.1)
    assert torch.equal(xyz, before)


# WarpConvNet: a kernel of 1 takes a short cut through weight[0], with groups too
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pointwise_layers_with_groups(engine: str, groups: int) -> None:
    x = random_input(10, 4, (4, 4))
    weight = randn(8, 4 // groups, 1, 1)
    expected = dense_conv(x.dense(), weight, groups=groups)
    for function in (nn.functional.conv2d, sc.functional.subm_conv):
        assert_close(function(x, weight, groups=groups).dense(), expected)


# spconv 2: a checkpoint of 1.x is permuted twice on loading; here layouts are torch's own
def test_checkpoints_of_dense_layers_load() -> None:
    dense = nn.Conv3d(2, 3, 3, padding=1)
    layer = sc.nn.SubmConv3d(2, 3, 3)
    layer.load_state_dict(dense.state_dict())
    mask = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    t = torch.randn(1, 2, 4, 4, 4, generator=generator(0))
    assert_close(layer(sc.SparseTensor.from_dense(t, mask)).dense(), dense(t))


EMPTY_THROUGH: dict[str, Callable[[], nn.Module]] = {
    "Conv2d": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "Conv2d strided": lambda: nn.Conv2d(4, 4, 2, stride=2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 4, 2, stride=2),
    "SubmConv2d": lambda: sc.nn.SubmConv2d(4, 4, 3),
    "LocallyConnected2d": lambda: sc.nn.LocallyConnected2d(4, 4, 3, 6),
    "ToDense": sc.nn.ToDense,
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "LPPool2d": lambda: nn.LPPool2d(2, 2),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(1),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(1),
    "GlobalAvgPool": sc.nn.GlobalAvgPool,
    "GlobalMaxPool": sc.nn.GlobalMaxPool,
    "BatchNorm2d": lambda: nn.BatchNorm2d(4),
    "BatchNorm2d eval": lambda: nn.BatchNorm2d(4).eval(),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "Linear": lambda: nn.Linear(4, 4),
    "ReLU": nn.ReLU,
    "Softmax": lambda: nn.Softmax(dim=1),
    "Dropout": nn.Dropout,
    "Dropout2d": nn.Dropout2d,
    "Upsample": lambda: nn.Upsample(scale_factor=2),
    "Upsample linear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "UNet": lambda: sc.models.UNet(4, 2, widths=(4, 4), dimensions=2),
}


# spconv: an empty input to a strided layer raises; others fail in backward or on an empty sample
@pytest.mark.parametrize("sites", ["none at all", "one sample empty", "one site", "no sample"])
@pytest.mark.parametrize("name", EMPTY_THROUGH)
def test_emptiness_passes_through_every_layer(engine: str, name: str, sites: str) -> None:
    layer = EMPTY_THROUGH[name]().double()
    mask = random_mask(3, (6, 6), 0.6, seed=1)
    if sites == "one sample empty":
        mask[1] = False
    elif sites == "one site":
        mask[:] = False
        mask[2, 3, 3] = True
    elif sites == "none at all":
        mask[:] = False
    else:
        mask = mask[:0]
    x = sparse(randn(mask.shape[0], 4, 6, 6), mask)
    x.requires_grad_()
    y = layer(x)
    values = y.features if isinstance(y, sc.SparseTensor) else y
    assert torch.isfinite(values).all()
    assert y.shape[0] == mask.shape[0]
    (values**2).sum().backward()
    assert x.features.grad is not None
    assert x.features.grad.shape == x.features.shape
    for parameter in layer.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()
    if isinstance(y, sc.SparseTensor) and sites == "none at all":
        assert y.num_sites == 0
