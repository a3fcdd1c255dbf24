"""The mistakes of a first hour, one line each: the call, and what its message must say.

Many are habits from spconv, MinkowskiEngine, TorchSparse or NumPy. Where torch's own modules refuse
before the library is asked, torch's words stand here.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sparseconv as sc
from sparseconv.core import foreign_names

F_ = sc.functional
pytestmark = pytest.mark.usefixtures("engine")

ROWS = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 0, 1]])
POINTS = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
XYZ = POINTS.numpy()
KERNEL = torch.ones(1, 1, 3, 3, 3)
NAN = torch.full((1,), torch.nan)


def tensor(channels: int = 1) -> sc.SparseTensor:
    return sc.SparseTensor(torch.ones(3, channels), ROWS.clone())


def strided() -> sc.SparseTensor:
    down: sc.SparseTensor = nn.Conv3d(1, 2, 2, stride=2)(tensor())
    return down


def set_features(features: Any) -> None:
    tensor().features = features


def subm(**options: Any) -> nn.Module:
    return sc.nn.SubmConv3d(1, 2, 3, **options)


def make(coords: Any, features: Any = None, **options: Any) -> sc.SparseTensor:
    rows = len(coords) if features is None else 0
    return sc.SparseTensor(torch.ones(rows, 1) if features is None else features, coords, **options)


Row = tuple[Callable[[], Any], str]

# fmt: off
FOREIGN: list[Row] = [
    (lambda: tensor().F, "use x.features"),
    (lambda: tensor().C, "use x.coords"),
    (lambda: tensor().indices[:, 0], "use x.coords, the batch index first"),
    (lambda: tensor().feats, "use x.features"),
    (lambda: tensor().coordinates, "use x.coords"),
    (lambda: tensor().replace_feature(torch.ones(3, 1)), "use x.replace(features)"),
    (lambda: tensor().spatial_range, "use x.spatial_shape"),
    (lambda: tensor().tensor_stride, "coordinates of the layer's own grid"),
    (lambda: tensor().coordinate_manager, "use x.sites"),
    (lambda: tensor().indice_dict, "use x.sites"),
    (lambda: tensor().decomposed_features, "x.split()"),
    (lambda: tensor().no_such_name, "SparseTensor has no attribute 'no_such_name'"),
    (lambda: sc.SparseConvTensor(POINTS, ROWS), "use sparseconv.SparseTensor(features, coords"),
    (lambda: sc.SparseSequential(1), "use torch.nn.Sequential"),
    (lambda: sc.sparse_quantize(XYZ), "use sparseconv.voxelize"),
    (lambda: sc.sparse_collate([]), "use sparseconv.collate"),
    (lambda: sc.no_such_name, "sparseconv has no attribute 'no_such_name'"),
    (lambda: sc.nn.Conv3d(1, 2, 3), "use torch.nn.Conv3d"),
    (lambda: sc.nn.ConvTranspose2d(1, 2, 3), "use torch.nn.ConvTranspose2d"),
    (lambda: sc.nn.SparseConv3d(1, 2, 3), "use torch.nn.Conv3d"),
    (lambda: sc.nn.SparseConvTranspose3d(1, 2, 3), "use torch.nn.ConvTranspose3d"),
    (lambda: sc.nn.SubMConv3d(1, 2, 3), "use sparseconv.nn.SubmConv3d"),
    (lambda: sc.nn.SparseInverseConv2d(1, 2, 3), "use sparseconv.nn.InverseConv2d"),
    (lambda: sc.nn.SparseMaxPool3d(2), "use torch.nn.MaxPool3d"),
    (lambda: sc.nn.SparseGlobalMaxPool(1), "use sparseconv.nn.GlobalMaxPool"),
    (lambda: sc.nn.BatchNorm3d(2), "use torch.nn.BatchNorm3d, which takes SparseTensors"),
    (lambda: sc.nn.BatchNorm1d(2), "use torch.nn.BatchNorm3d on three axes"),
    (lambda: sc.nn.ReLU(1), "use torch.nn.ReLU"),
    (lambda: sc.nn.Linear(1, 2), "use torch.nn.Linear"),
    (lambda: sc.nn.SparseSequential(1), "use torch.nn.Sequential"),
    (lambda: sc.nn.MinkowskiConvolution(1, 2, 3), "use sparseconv.nn.SubmConv3d with stride 1"),
    (lambda: sc.nn.MinkowskiReLU(1), "use torch.nn.ReLU"),
    (lambda: sc.nn.MinkowskiBatchNorm(2), "use torch.nn.BatchNorm3d"),
    (lambda: sc.nn.MinkowskiGlobalMaxPooling(1), "use sparseconv.nn.GlobalMaxPool"),
    (lambda: sc.nn.no_such_name, "sparseconv.nn has no attribute 'no_such_name'"),
    (lambda: subm(padding=1), "padding: not an argument here; leave it out, a submanifold"),
    (lambda: subm(stride=1), "stride: not an argument here; leave it out, a submanifold"),
    (lambda: subm(indice_key="subm1"), "indice_key: not an argument here; leave it out"),
    (lambda: subm(algo=None), "sparseconv.engine(name)"),
    (lambda: subm(dimension=3), "dimension: not an argument here"),
    (lambda: sc.nn.InverseConv3d(2, 1, 2, indice_key="down"), "share their rulebook"),
    (lambda: sc.nn.PartialConv3d(1, 2, 3, indice_key="p"), "share their rulebook"),
    (lambda: sc.nn.SubmPartialConv3d(1, 2, 3, padding=1), "leave it out, a submanifold"),
    (lambda: sc.nn.DeformConv3d(1, 2, 3, indice_key="d"), "share their rulebook"),
    (lambda: sc.nn.PartialMaxPool(2, indice_key="m"), "share their rulebook"),
    (lambda: F_.subm_conv(tensor(), KERNEL, padding=1), "leave it out, a submanifold"),
    (lambda: F_.partial_conv(tensor(), KERNEL, indice_key="p"), "share their rulebook"),
    (lambda: F_.deform_conv(POINTS, POINTS, KERNEL, indice_key="d"), "share their rulebook"),
    (lambda: F_.subm_conv(tensor(), KERNEL, groups_=1), "groups_: not an argument here; there are"),
    (lambda: sc.SparseTensor(POINTS, ROWS, stride=2), "coordinates count the cells"),
    (lambda: sc.voxelize(POINTS, vsize_xyz=0.1), "vsize_xyz: not an argument here; say voxel_size"),
    (lambda: sc.SparseTensor(POINTS, coordinates=ROWS), "coordinates: not an argument here; say"),
    (lambda: sc.SparseTensor(POINTS, indices=ROWS), "say coords"),
    (lambda: sc.SparseTensor(feats=POINTS, coords=ROWS), "say features"),
]

TENSOR: list[Row] = [
    (lambda: set_features(torch.ones(7, 1)), "got 7 rows for 3 sites"),
    (lambda: set_features(torch.ones(2, 1)), "got 2 rows for 3 sites"),
    (lambda: set_features([1, 2, 3]), "features: must be a floating point torch.Tensor, got list"),
    (lambda: set_features(torch.ones(3, 1).long()), "got int64 (3, 1)"),
    (lambda: set_features(torch.ones(3)), "features: must have shape (N, C), got (3,)"),
    (lambda: set_features(torch.ones(3, 1, device="meta")), "features: must be on cpu"),
    (lambda: tensor()[tensor() > 0], "got bool (3, 1); sparseconv.prune(x, keep)"),
    (lambda: tensor()[torch.tensor([0])], "got int64 (1,); sparseconv.prune(x, keep)"),
    (lambda: tensor()[[0]], "takes the index of a sample or a slice of samples, got list"),
    (lambda: tensor()[:, 0, 0], "sparseconv.crop cuts the spatial axes"),
    (lambda: tensor().numpy(), "use x.features.numpy()"),
    (lambda: np.asarray(tensor()), "use x.features.numpy()"),
    (lambda: tensor().tolist(), "use x.features.numpy()"),
    (lambda: tensor().to_sparse(), "use torch.sparse_coo_tensor(x.coords.T, x.features)"),
    (lambda: tensor().view(3), "use x.features"),
    (lambda: tensor().argmax(1), "use x.features, a row per active site"),
    (lambda: tensor().backward(), "autograd follows x.features"),
    (lambda: torch.stack([tensor(), tensor()]), "use torch.cat(dim=1) for channels"),
    (lambda: F.cross_entropy(tensor(2), torch.zeros(3).long()), "the loss on x.features"),
    (lambda: F.scaled_dot_product_attention(tensor(), tensor(), tensor()), "x[b].features"),
    (lambda: tensor().to_dense(), "use x.dense()"),
    (lambda: tensor().data_ptr(), "SparseTensor has no attribute 'data_ptr'"),
    (lambda: torch.linalg.svd(tensor()), "on x.features, a row per active site"),
    (lambda: sc.prune(tensor(), torch.ones(3)), "keep: must be a bool torch.Tensor, got float32"),
    (lambda: sc.SparseTensor.from_dense(tensor().dense().to_sparse()), "t: must be dense"),
    (lambda: sc.SparseTensor.from_dense(tensor()), "t: must be a floating point torch.Tensor"),
    (lambda: make(ROWS.tolist()), "coords: must be an integer torch.Tensor, got list"),
    (lambda: make(ROWS.numpy()), "coords: must be an integer torch.Tensor, got ndarray"),
    (lambda: make(ROWS, [[1.0]] * 3), "features: must be a floating point torch.Tensor, got list"),
    (lambda: make(ROWS, np.ones((3, 1))), "got ndarray"),
    (lambda: make(ROWS, torch.ones(3, 1).int()), "got int32 (3, 1)"),
    (lambda: make(ROWS, torch.ones(2, 1)), "got 2 rows for 3 sites"),
    (lambda: make(ROWS.float()), "points in metres go through sparseconv.voxelize"),
    (lambda: make(torch.cat([ROWS, ROWS])), "give reduce="),
    (lambda: make(ROWS[:, [1, 2, 3, 0]] + 1, batch_size=1), "batch index"),
    (lambda: make(ROWS, spatial_shape=(1, 1, 1)), "outside spatial_shape (1, 1, 1)"),
    (lambda: make(ROWS - torch.tensor([0, 1, 0, 0])).dense(), "negative coordinates"),
]

LAYER: list[Row] = [
    (lambda: subm()(POINTS), "points go through sparseconv.voxelize(points, voxel_size)"),
    (lambda: subm()(XYZ), "input: must be a SparseTensor or a torch.Tensor, got ndarray"),
    (lambda: subm()(make(ROWS[:, 1:])), "is the batch missing, column 0 of coords"),
    (lambda: nn.Conv3d(1, 1, 3)(make(ROWS[:, 1:])), "is the batch missing, column 0 of coords"),
    (lambda: nn.Conv2d(1, 1, 3)(tensor()), "a layer over 3 axes is named so, such as Conv3d"),
    (lambda: sc.nn.SubmConv2d(1, 1, 3)(tensor()), "such as Conv3d"),
    (lambda: subm()(tensor(5)), "input: has 5 channels"),
    (lambda: subm().double()(tensor()), "convert one of them"),
    (lambda: sc.nn.SubmConv3d(1, 2, 2), "kernel_size: "),
    (lambda: sc.nn.InverseConv3d(1, 2, 2, 2)(tensor()), "stride=(2, 2, 2), padding=(0, 0, 0)"),
    (lambda: sc.nn.InverseConv3d(2, 1, 3, 2)(strided()), "kernel_size=(2, 2, 2), stride=(2, 2, 2)"),
    (lambda: sc.nn.PartialConv2d(1, 1, 3)(torch.ones(1, 1, 5, 5), torch.rand(1, 1, 5, 5)),
     "mask > 0 makes one of numbers"),
    (lambda: nn.BatchNorm1d(1)(tensor()), "use torch.nn.BatchNorm3d"),
    (lambda: nn.BatchNorm2d(1).eval()(tensor()), "use torch.nn.BatchNorm3d"),
    (lambda: nn.LazyBatchNorm1d()(tensor()), "use torch.nn.BatchNorm3d"),
    (lambda: nn.InstanceNorm1d(1)(tensor()), "use torch.nn.InstanceNorm3d"),
    (lambda: nn.Conv1d(1, 1, 3)(tensor()), "such as Conv3d"),
    (lambda: nn.LayerNorm([1, 2, 2, 2])(tensor()), "it is the channels alone, (1,)"),
    (lambda: nn.MaxPool2d(2)(tensor()), "such as MaxPool3d"),
    (lambda: nn.AdaptiveAvgPool2d(1)(tensor()), "such as MaxPool3d"),
    (lambda: nn.Dropout1d()(tensor()), "such as Dropout3d"),
    (lambda: sc.voxelize(POINTS, 0), "voxel_size: must be positive"),
    (lambda: sc.voxelize(POINTS.long(), 1.0), "xyz: must be "),
    (lambda: sc.voxelize(POINTS * NAN, 1.0), "xyz: 50 of 50 points are NaN or infinite"),
    (lambda: sc.voxelize(POINTS, 1.0, POINTS * NAN), "features: 50 of 50 points have NaN"),
    (lambda: sc.voxelize(POINTS, 1.0, POINTS[:3]), "one row per point"),
    (lambda: sc.voxelize("scan.bin", 1.0), "xyz: "),
    (lambda: sc.engine("cudnn").__enter__(), "engine: must be one of"),
    (lambda: sc.io.read_points("no_such_file.ply"), "no_such_file.ply"),
]
# fmt: on

EVERY = [*FOREIGN, *TENSOR, *LAYER]


def test_there_are_as_many_as_were_tried() -> None:
    assert len(EVERY) >= 90


@pytest.mark.parametrize("row", EVERY, ids=[words for _, words in EVERY])
def test_a_mistake_is_answered_in_one_line(row: Row) -> None:
    call, words = row
    with pytest.raises((sc.SparseConvError, OSError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 330
    assert "tensor([" not in message
    assert "object at 0x" not in message


def test_a_foreign_name_is_not_there() -> None:
    """What asks whether an attribute is there hears no, and copies need none of them."""
    x = tensor()
    for name in (*foreign_names.TENSOR, "__cuda_array_interface__", "_no_such_name"):
        assert not hasattr(x, name)
    assert getattr(x, "F", None) is None
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert torch.equal(other.features, x.features)
        assert torch.equal(other.coords, x.coords)
    assert not any(hasattr(sc, name) for name in foreign_names.PACKAGE)
    assert not any(hasattr(sc.nn, name) for name in foreign_names.LAYERS)


LAYERS = [name for name in dir(sc.nn) if name[-2:] in ("1d", "2d", "3d", "4d")]


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "BatchNorm4d"])
def test_every_layer_answers_a_foreign_keyword(name: str) -> None:
    with pytest.raises(sc.SparseConvTypeError, match=r"indice_key: .* share their rulebook"):
        getattr(sc.nn, name)(1, 1, 3, indice_key="first")


def names_in(text: str) -> list[str]:
    """Return the dotted names of this library and of torch in a remedy."""
    words = text.replace("(", " ").replace(",", " ").split()
    return [word for word in words if word.startswith(("sparseconv.", "torch."))]


@pytest.mark.parametrize(
    "text",
    sorted({
        *foreign_names.TENSOR.values(), *foreign_names.PACKAGE.values(),
        *foreign_names.LAYERS.values(), *foreign_names.KEYWORDS.values(),
    }),
)  # fmt: skip
def test_a_remedy_names_what_is_there(text: str) -> None:
    spaces = {"sparseconv": sc, "torch": torch}
    for name in names_in(text):
        space, *path = name.rstrip(";:.").split(".")
        member: Any = spaces[space]
        for part in path:
            member = getattr(member, part)


def test_features_that_fit_are_set() -> None:
    x = tensor()
    features = torch.ones(3, 4, requires_grad=True)
    x.features = features
    assert x.features is features
    x.features = x.features.double()
    assert (x.channels, x.dtype, x.num_sites) == (4, torch.float64, 3)


@pytest.mark.parametrize("shift", [-3, -1, 0])
def test_shape_and_density_count_negative_cells(shift: int) -> None:
    """The cells of the bounding box: a scene may be shifted, and no share exceeds 1."""
    rows = torch.tensor([[0, 0, 0], [0, 1, 1]]) + torch.tensor([0, shift, shift])
    x = make(rows)
    assert x.shape == (1, 1, 2, 2)
    assert x.density == 2 / 4
    y: sc.SparseTensor = nn.Conv2d(1, 1, 3, padding=2)(x)
    cells = torch.Size(y.shape[2:]).numel()
    assert y.num_sites <= cells
    assert y.density == y.num_sites / cells
