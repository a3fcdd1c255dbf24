"""Wrong calls raise at once, on every engine, in one line; odd but legal input works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import GRID, LAYERS, Problem, gradients, random_input, random_mask, sparse
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.functional import inverse_conv, subm_conv

pytestmark = pytest.mark.usefixtures("engine")

VALUE, TYPE = sc.SparseConvValueError, sc.SparseConvTypeError
SHAPE = (6, 7)


def coords(*rows: tuple[int, ...]) -> Tensor:
    return torch.tensor(rows)


def make(*rows: tuple[int, ...], **options: Any) -> sc.SparseTensor:
    return sc.SparseTensor(torch.ones(len(rows), 1), coords(*rows), **options)


def x2d(channels: int = 2) -> sc.SparseTensor:
    return random_input(12, channels, SHAPE, dtype=torch.float32)


def weight(*shape: int, **options: Any) -> Tensor:
    return torch.ones(*shape, **options)


def strided(channels: int = 2) -> sc.SparseTensor:
    return F.conv2d(x2d(channels), weight(channels, channels, 2, 2), stride=2)


Case = tuple[str, Any, list[str], Callable[[], Any]]

# fmt: off
# What is wrong, the class, words of the message (the argument first), and the call.
TENSOR: list[Case] = [
    ("integer features", TYPE, ["features", "int64"],
     lambda: sc.SparseTensor(torch.ones(1, 1).long(), coords((0, 1)))),
    ("complex features", TYPE, ["features", "complex64"],
     lambda: sc.SparseTensor(torch.ones(1, 1) + 0j, coords((0, 1)))),
    ("a list of features", TYPE, ["features", "list"],
     lambda: sc.SparseTensor([[1.0]], coords((0, 1)))),
    ("an array of features", TYPE, ["features", "ndarray"],
     lambda: sc.SparseTensor(np.ones((1, 1), np.float32), coords((0, 1)))),
    ("flat features", VALUE, ["features", "(N, C)", "(2,)"],
     lambda: sc.SparseTensor(torch.ones(2), coords((0, 1), (0, 2)))),
    ("more features than sites", VALUE, ["features", "3", "2"],
     lambda: sc.SparseTensor(torch.ones(3, 1), coords((0, 1), (0, 2)))),
    ("float coordinates", TYPE, ["coords", "float32", "voxelize"],
     lambda: sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0.0, 1.0]]))),
    ("bool coordinates", TYPE, ["coords", "bool"],
     lambda: sc.SparseTensor(torch.ones(1, 1), torch.tensor([[False, True]]))),
    ("a list of coordinates", TYPE, ["coords", "list"],
     lambda: sc.SparseTensor(torch.ones(1, 1), [[0, 1]])),
    ("flat coordinates", VALUE, ["coords", "(N, 1 + D)"],
     lambda: sc.SparseTensor(torch.ones(2, 1), torch.tensor([0, 1]))),
    ("no spatial column", VALUE, ["coords", "(1, 1)"],
     lambda: sc.SparseTensor(torch.ones(1, 1), coords((0,)))),
    ("five spatial columns", VALUE, ["coords", "(1, 6)", "1 to 4"],
     lambda: make((0, 1, 1, 1, 1, 1))),
    ("repeated sites", VALUE, ["coords", "2 of 5", "[0, 1]", "reduce="],
     lambda: make((0, 3), (0, 1), (0, 1), (0, 3), (0, 2))),
    ("an unknown reduction", VALUE, ["reduce", "'median'", "mean"],
     lambda: make((0, 3), reduce="median")),
    ("a site beyond the extent", VALUE, ["coords", "7", "(5,)"],
     lambda: make((0, 7), spatial_shape=(5,))),
    ("a negative site with an extent", VALUE, ["coords", "-1", "(5,)"],
     lambda: make((0, -1), spatial_shape=(5,))),
    ("axes in reverse", VALUE, ["coords", "axes are reversed"],
     lambda: make((0, 1, 8, 3), spatial_shape=(4, 9, 2))),
    ("the batch index in the last column", VALUE, ["coords", "batch index", "last column"],
     lambda: make((5, 3, 0), (6, 3, 1), batch_size=2)),
    ("a batch index out of range", VALUE, ["coords", "batch index", "3", "2"],
     lambda: make((3, 9), batch_size=2)),
    ("a negative batch index", VALUE, ["coords", "batch index", "-1"],
     lambda: make((-1, 9))),
    ("a float batch size", TYPE, ["batch_size", "2.0"],
     lambda: make((0, 1), batch_size=2.0)),
    ("a negative batch size", VALUE, ["batch_size", "-2"],
     lambda: make((0, 1), batch_size=-2)),
    ("a float extent", TYPE, ["spatial_shape", "5.0"],
     lambda: make((0, 1), spatial_shape=(5.0,))),
    ("a number for an extent", TYPE, ["spatial_shape", "5"],
     lambda: make((0, 1), spatial_shape=5)),
    ("an extent of another length", VALUE, ["spatial_shape", "(5, 5)"],
     lambda: make((0, 1), spatial_shape=(5, 5))),
    ("a negative extent", VALUE, ["spatial_shape", "-5"],
     lambda: make((0, 1), spatial_shape=(-5,))),
    ("coordinates beyond int32", VALUE, ["coords", "int32", "2147483648"],
     lambda: make((0, 2**31))),
    ("a box that cannot be packed", VALUE, ["coords", "bounding box", "64-bit"],
     lambda: make((0, 0, 0), (0, 2**31 - 1, 2**31 - 1))),
    ("features on another device", TYPE, ["features", "meta", "cpu"],
     lambda: sc.SparseTensor(torch.ones(1, 1, device="meta"), coords((0, 1)))),
    ("dense integers", TYPE, ["t", "int64"],
     lambda: sc.SparseTensor.from_dense(torch.ones(1, 1, 3).long())),
    ("a dense tensor without space", VALUE, ["t", "(B, C, *spatial)", "(2, 3)"],
     lambda: sc.SparseTensor.from_dense(torch.ones(2, 3))),
    ("a dense tensor with five axes", VALUE, ["t", "1 to 4"],
     lambda: sc.SparseTensor.from_dense(torch.ones(1, 1, 2, 2, 2, 2, 2))),
    ("a float mask", TYPE, ["mask", "bool", "float32"],
     lambda: sc.SparseTensor.from_dense(torch.ones(1, 1, 3), torch.full((1, 1, 3), 0.5))),
    ("a mask of another shape", VALUE, ["mask", "(1, 4)", "(1, 1, 3)"],
     lambda: sc.SparseTensor.from_dense(torch.ones(1, 1, 3), torch.ones(1, 4).bool())),
    ("a mask on another device", TYPE, ["mask", "meta"],
     lambda: sc.SparseTensor.from_dense(
         torch.ones(1, 1, 3), torch.ones(1, 3, device="meta").bool())),
    ("replace with more rows", VALUE, ["features", "13", "12"],
     lambda: x2d().replace(torch.ones(13, 2))),
    ("replace with integers", TYPE, ["features", "int64"],
     lambda: x2d().replace(torch.ones(12, 2).long())),
    ("replace on another device", TYPE, ["features", "meta"],
     lambda: x2d().replace(torch.ones(12, 2, device="meta"))),
    ("at with floats", TYPE, ["coords", "float32"],
     lambda: x2d().at(torch.zeros(1, 3))),
    ("at with another width", (VALUE, TYPE), ["coords", "(M, 3)", "(1, 2)"],
     lambda: x2d().at(torch.zeros(1, 2).long())),
    ("at with a list", TYPE, ["coords", "list"],
     lambda: x2d().at([[0, 1, 1]])),
    ("at with bools", TYPE, ["coords", "bool"],
     lambda: x2d().at(torch.zeros(1, 3).bool())),
    ("at on another device", TYPE, ["coords", "meta", "cpu"],
     lambda: x2d().at(torch.zeros(1, 3, device="meta").long())),
    ("dense of negative coordinates", VALUE, ["dense", "negative", "-2"],
     lambda: make((0, -2)).dense()),
    ("mask of negative coordinates", VALUE, ["negative"],
     lambda: make((0, -2)).mask()),
    ("a sample by name", TYPE, ["sample", "'a'"],
     lambda: x2d()["a"]),
    ("a tuple of samples", TYPE, ["sample"],
     lambda: x2d()[0, 1]),
]

SETS: list[Case] = [
    ("cat on different sites", VALUE, ["tensors", "same sites", "fill"],
     lambda: sc.cat([x2d(), random_input(9, 2, SHAPE, dtype=torch.float32)])),
    ("cat along no axis", VALUE, ["dim", "4"],
     lambda: torch.cat([x2d(), x2d()], dim=4)),
    ("cat of grids that differ", VALUE, ["(6, 7)", "(9, 9)"],
     lambda: torch.cat([x2d(), random_input(9, 2, (9, 9), dtype=torch.float32)], dim=0)),
    ("cat of nothing", VALUE, ["tensors", "at least one"],
     lambda: sc.cat([])),
    ("cat with a dense tensor of another grid", VALUE, ["tensors", "(1, 6, 7)", "(1, 2, 6, 8)"],
     lambda: torch.cat([x2d(), torch.ones(1, 2, 6, 8)], dim=1)),
    ("collate of nothing", VALUE, ["tensors", "at least one"],
     lambda: sc.collate([])),
    ("collate of channels that differ", VALUE, ["tensors", "channels"],
     lambda: sc.collate([x2d(2), x2d(3)])),
    ("collate of axes that differ", VALUE, ["tensors", "axes"],
     lambda: sc.collate([x2d(), random_input(3, 2, dtype=torch.float32)])),
    ("collate of dtypes that differ", TYPE, ["tensors", "dtypes"],
     lambda: sc.collate([x2d(), x2d().half()])),
    ("collate of a dense tensor", TYPE, ["tensors", "Tensor"],
     lambda: sc.collate([torch.ones(1, 1, 2)])),
    ("a sum with a string", TYPE, ["other", "str"],
     lambda: x2d() + "1"),
    ("a sum with another grid", VALUE, ["other", "(1, 9, 9)"],
     lambda: x2d() + random_input(3, 2, (9, 9), dtype=torch.float32)),
    ("a sum with other channels", VALUE, ["other"],
     lambda: x2d(2) + x2d(3)),
    ("a sum with another shape", VALUE, ["other", "(1, 5, 1, 1)"],
     lambda: x2d() + torch.ones(1, 5, 1, 1)),
    ("a sum that would be larger", VALUE, ["other", "(4, 2, 6, 7)"],
     lambda: x2d() + torch.ones(4, 2, 6, 7)),
    ("a sum with another device", TYPE, ["other", "meta"],
     lambda: x2d() + torch.ones(1, 2, 1, 1, device="meta")),
    ("rows or grid", VALUE, ["other", "(3, 3)"],
     lambda: random_input(3, 3, (3,), dtype=torch.float32) * torch.ones(3, 3)),
]

CONVOLUTION: list[Case] = [
    ("channels that do not fit", VALUE, ["input", "2", "3"],
     lambda: F.conv2d(x2d(), weight(4, 3, 3, 3))),
    ("channels that do not fit, submanifold", VALUE, ["input", "2", "3"],
     lambda: subm_conv(x2d(), weight(4, 3, 3, 3))),
    ("channels that do not fit, transposed", VALUE, ["input", "2", "3"],
     lambda: F.conv_transpose2d(x2d(), weight(3, 4, 3, 3))),
    ("channels that do not fit, inverse", VALUE, ["input", "2", "3"],
     lambda: inverse_conv(strided(), weight(3, 4, 2, 2), stride=2)),
    ("channels that do not fit, a module", VALUE, ["input", "2", "3"],
     lambda: nn.Conv2d(3, 4, 3)(x2d())),
    ("a weight without input channels", VALUE, ["weight", "(4, 0, 3, 3)"],
     lambda: F.conv2d(x2d(0), weight(4, 0, 3, 3))),
    ("a weight without output channels", VALUE, ["weight", "(0, 2, 3, 3)"],
     lambda: sc.functional.subm_conv(x2d(), weight(0, 2, 3, 3))),
    ("dropout with another probability", VALUE, ["p", "2.0"], lambda: F.dropout(x2d(), 2.0)),
    ("dropout with a word", TYPE, ["p", "'half'"], lambda: F.dropout(x2d(), "half")),
    ("dropout of channels with a word", TYPE, ["p", "'half'"], lambda: F.dropout2d(x2d(), "half")),
    ("gates of an odd number", VALUE, ["input", "even", "3"], lambda: F.glu(x2d(3), 1)),
    ("groups in a word", VALUE, ["num_groups", "two"], lambda: F.group_norm(x2d(), "two")),
    ("one ring of padding", TYPE, ["pad", "1"], lambda: F.pad(x2d(), 1)),
    ("half a ring of padding", TYPE, ["pad", "0.5"], lambda: F.pad(x2d(), (0.5, 1))),
    ("dropout of another number of axes", VALUE, ["input", "2", "1"],
     lambda: torch.nn.Dropout1d()(x2d())),
    ("a deformable convolution of nothing", TYPE, ["input", "NoneType"],
     lambda: sc.functional.deform_conv(None, None, weight(2, 2, 3, 3))),
    ("strides in an array that are no integers", TYPE, ["stride", "1."],
     lambda: sc.functional.conv(x2d(), weight(2, 2, 3, 3), stride=torch.ones(2))),
    ("channels of the groups that do not fit", VALUE, ["input", "2", "4"],
     lambda: F.conv2d(x2d(), weight(4, 2, 3, 3), groups=2)),
    ("groups that do not divide", VALUE, ["groups", "2", "3"],
     lambda: F.conv2d(x2d(), weight(3, 1, 3, 3), groups=2)),
    ("no groups", VALUE, ["groups", "0"],
     lambda: F.conv2d(x2d(), weight(3, 1, 3, 3), groups=0)),
    ("groups by name", TYPE, ["groups", "'2'"],
     lambda: subm_conv(x2d(), weight(2, 1, 3, 3), groups="2")),
    ("a weight in three axes", VALUE, ["input", "2", "3"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3, 3))),
    ("a 3-axis layer on two axes", VALUE, ["input", "2", "3"],
     lambda: nn.Conv3d(2, 2, 3)(x2d())),
    ("a weight that is an array", TYPE, ["weight", "ndarray"],
     lambda: subm_conv(x2d(), np.ones((2, 2, 3, 3)))),
    ("a weight of another dtype", TYPE, ["weight", "float64", "float32"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3).double())),
    ("a weight on another device", TYPE, ["weight", "meta", "cpu"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3, device="meta"))),
    ("a bias of another length", VALUE, ["bias", "(2,)", "(3,)"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), torch.ones(3))),
    ("a bias of another length, transposed", VALUE, ["bias", "(4,)", "(2,)"],
     lambda: F.conv_transpose2d(x2d(), weight(2, 2, 3, 3), torch.ones(2), groups=2)),
    ("a bias with two axes", VALUE, ["bias", "(2, 1)"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), torch.ones(2, 1))),
    ("a number for a bias", TYPE, ["bias", "float"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), 1.0)),
    ("a bias of another dtype", TYPE, ["bias", "float64"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), torch.ones(2).double())),
    ("a bias on another device", TYPE, ["bias", "meta"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), torch.ones(2, device="meta"))),
    ("an even submanifold kernel", VALUE, ["kernel_size", "odd", "(3, 2)"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 2))),
    ("an even submanifold kernel, a module", VALUE, ["kernel_size", "odd"],
     lambda: sc.nn.SubmConv2d(2, 2, 4)),
    ("an output size below 1", VALUE, ["output size", "axis 1", "9"],
     lambda: F.conv2d(x2d(), weight(2, 2, 1, 9))),
    ("an output size below 1 by dilation", VALUE, ["output size", "dilation=4"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), dilation=4)),
    ("an output size below 1, transposed", VALUE, ["output size", "padding=4"],
     lambda: F.conv_transpose2d(
         random_input(1, 2, (1, 1), dtype=torch.float32), weight(2, 2, 3, 3), padding=4)),
    ("a stride of 0", VALUE, ["stride", "at least 1"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), stride=0)),
    ("a stride per three axes", VALUE, ["stride", "3"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), stride=(1, 1, 1))),
    ("a float dilation", TYPE, ["dilation", "1.5"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), dilation=1.5)),
    ("a float dilation per axis", TYPE, ["dilation", "1.5"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), dilation=(1, 1.5))),
    ("a bool dilation", TYPE, ["dilation", "True"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), dilation=True)),
    ("a negative padding", VALUE, ["padding", "-1"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), padding=-1)),
    ("a padding by another name", VALUE, ["padding", "'full'", "same"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), padding="full")),
    ("same with a stride", VALUE, ["padding", "same", "stride"],
     lambda: F.conv2d(x2d(), weight(2, 2, 3, 3), stride=2, padding="same")),
    ("a dilation of 0", VALUE, ["dilation", "at least 1"],
     lambda: subm_conv(x2d(), weight(2, 2, 3, 3), dilation=0)),
    ("an output padding too large", VALUE, ["output_padding", "smaller"],
     lambda: F.conv_transpose2d(x2d(), weight(2, 2, 3, 3), stride=2, output_padding=2)),
    ("a negative output padding", VALUE, ["output_padding", "-1"],
     lambda: F.conv_transpose2d(x2d(), weight(2, 2, 3, 3), stride=2, output_padding=-1)),
    ("an inverse of nothing", VALUE, ["nothing to invert", "like="],
     lambda: inverse_conv(x2d(), weight(2, 2, 2, 2), stride=2)),
    ("an inverse of a submanifold layer", VALUE, ["nothing to invert"],
     lambda: inverse_conv(subm_conv(x2d(), weight(2, 2, 3, 3)), weight(2, 2, 2, 2), stride=2)),
    ("an inverse of another kernel", VALUE, ["kernel_size", "(3, 3)"],
     lambda: inverse_conv(strided(), weight(2, 2, 3, 3), stride=2)),
    ("an inverse of another stride", VALUE, ["stride", "(1, 1)"],
     lambda: inverse_conv(strided(), weight(2, 2, 2, 2))),
    ("an inverse of another padding", VALUE, ["padding", "(1, 1)"],
     lambda: inverse_conv(strided(), weight(2, 2, 2, 2), stride=2, padding=1)),
    ("an inverse of another dilation", VALUE, ["dilation", "(2, 2)"],
     lambda: inverse_conv(strided(), weight(2, 2, 2, 2), stride=2, dilation=2)),
    ("an inverse to another extent", VALUE, ["like", "(9, 9)"],
     lambda: inverse_conv(
         strided(), weight(2, 2, 2, 2), stride=2, like=random_input(3, 2, (9, 9)))),
    ("an inverse to another batch", VALUE, ["like", "batch_size=2"],
     lambda: inverse_conv(
         strided(), weight(2, 2, 2, 2), stride=2, like=random_input(3, 2, SHAPE, batch=2))),
    ("an inverse like a dense tensor", TYPE, ["like", "Tensor"],
     lambda: inverse_conv(strided(), weight(2, 2, 2, 2), stride=2, like=torch.ones(1, 2, *SHAPE))),
    ("a dense inverse to another extent", VALUE, ["like", "(9, 9)"],
     lambda: inverse_conv(
         torch.ones(1, 2, 3, 3), weight(2, 2, 2, 2), stride=2, like=torch.ones(1, 2, 9, 9))),
    ("a dense inverse below 1", VALUE, ["output size", "padding"],
     lambda: inverse_conv(torch.ones(1, 1, 1), weight(1, 1, 1), padding=2)),
    ("a dense tensor of five axes", VALUE, ["input", "5"],
     lambda: subm_conv(torch.ones(1, 1, *(2,) * 5), weight(1, 1, *(1,) * 5))),
    ("four axes on a dense tensor of three", VALUE, ["input", "3", "4"],
     lambda: sc.functional.conv4d(torch.ones(1, 1, 3, 3, 3), weight(1, 1, 2, 2, 2, 2))),
    ("a dense output size below 1", VALUE, ["output size"],
     lambda: sc.functional.conv4d(torch.ones(1, 1, 2, 2, 2, 2), weight(1, 1, 3, 1, 1, 1))),
    ("a module without channels", VALUE, ["in_channels", "0"],
     lambda: sc.nn.SubmConv2d(0, 2, 3)),
    ("a module with half a channel", TYPE, ["out_channels", "1.5"],
     lambda: sc.nn.SubmConv2d(1, 1.5, 3)),
    ("a module with groups that do not divide", VALUE, ["groups", "3"],
     lambda: sc.nn.Conv4d(4, 3, 3, groups=3)),
    ("a module with a kernel per three axes", VALUE, ["kernel_size", "(3, 3, 3)"],
     lambda: sc.nn.SubmConv2d(1, 1, (3, 3, 3))),
    ("a module with a float kernel", TYPE, ["kernel_size", "3.0"],
     lambda: sc.nn.SubmConv2d(1, 1, 3.0)),
    ("an unknown engine", VALUE, ["engine", "'cudnn'", "torch"],
     lambda: sc.engine("cudnn").__enter__()),
]

VOXELIZE: list[Case] = [
    ("integer points", TYPE, ["xyz", "int64"],
     lambda: sc.voxelize(torch.ones(2, 3).long(), 1)),
    ("points in five axes", VALUE, ["xyz", "(2, 5)"],
     lambda: sc.voxelize(torch.ones(2, 5), 1)),
    ("flat points", VALUE, ["xyz", "(3,)"],
     lambda: sc.voxelize(torch.ones(3), 1)),
    ("points by name", TYPE, ["xyz", "str"],
     lambda: sc.voxelize("scan.bin", 1)),
    ("a voxel size of 0", VALUE, ["voxel_size", "0.0"],
     lambda: sc.voxelize(torch.ones(2, 3), 0)),
    ("a NaN voxel size", VALUE, ["voxel_size", "nan"],
     lambda: sc.voxelize(torch.ones(2, 3), float("nan"))),
    ("voxel sizes per two axes", VALUE, ["voxel_size", "2"],
     lambda: sc.voxelize(torch.ones(2, 3), (1, 1))),
    ("integer features", TYPE, ["features", "int64"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, torch.ones(2, 1).long())),
    ("features for other points", VALUE, ["features", "(3, 1)", "2"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, torch.ones(3, 1))),
    ("features on another device", TYPE, ["features", "meta"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, torch.ones(2, 1, device="meta"))),
    ("a float batch", TYPE, ["batch", "float32"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, batch=torch.ones(2))),
    ("a batch for other points", VALUE, ["batch", "(3,)"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, batch=torch.ones(3).long())),
    ("a negative batch", VALUE, ["batch", "-1"],
     lambda: sc.voxelize(torch.ones(2, 3), 1, batch=torch.tensor([0, -1]))),
    ("bounds upside down", VALUE, ["bounds", "exceed"],
     lambda: sc.voxelize(torch.ones(2, 1), 1, bounds=((2,), (1,)))),
    ("bounds of other axes", VALUE, ["bounds", "1"],
     lambda: sc.voxelize(torch.ones(2, 1), 1, bounds=((2, 1), (3, 4)))),
    ("bounds without end", VALUE, ["bounds", "finite"],
     lambda: sc.voxelize(torch.ones(2, 1), 1, bounds=((0,), (float("inf"),)))),
    ("an unknown reduction", VALUE, ["reduce", "'median'"],
     lambda: sc.voxelize(torch.ones(2, 1), 1, reduce="median")),
    ("points too far apart", VALUE, ["voxel_size", "int32"],
     lambda: sc.voxelize(torch.tensor([[0.0], [1e9]]), 1e-3)),
    ("voxels for other points", VALUE, ["features", "1", "(2, 1)"],
     lambda: sc.voxelize(torch.ones(2, 1), 1)[1](torch.ones(2, 1))),
]
# fmt: on

WRONG = {
    case[0] + f" ({table})": case
    for table, cases in (
        ("tensor", TENSOR),
        ("sets", SETS),
        ("convolution", CONVOLUTION),
        ("voxelize", VOXELIZE),
    )
    for case in cases
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_says_what_is_wrong(name: str) -> None:
    _, kind, words, call = WRONG[name]
    with pytest.raises(sc.SparseConvError) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, ValueError | TypeError | NotImplementedError)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_errors_are_what_python_users_expect() -> None:
    assert issubclass(sc.SparseConvValueError, sc.SparseConvError)
    assert issubclass(sc.SparseConvValueError, ValueError)
    assert issubclass(sc.SparseConvTypeError, TypeError)
    assert issubclass(sc.SparseConvNotImplementedError, NotImplementedError)


def test_a_wrong_call_leaves_nothing_behind() -> None:
    """The tensor still works after each failure, and caches hold no half-made rulebook."""
    x = x2d()
    for padding in (-1, "full"):
        with pytest.raises(sc.SparseConvError):
            F.conv2d(x, weight(2, 2, 3, 3), padding=padding)
    with pytest.raises(sc.SparseConvError):
        F.conv2d(x, weight(2, 2, 1, 9))
    assert x.sites.rulebooks == {}
    assert F.conv2d(x, weight(2, 2, 3, 3)).num_sites > 0


@pytest.mark.parametrize("density", ["no site", "one site", "an empty sample"])
@pytest.mark.parametrize("name", LAYERS)
def test_odd_but_legal_input_runs_forward_and_backward(name: str, density: str) -> None:
    layer = LAYERS[name]
    mask = random_mask(3, GRID[layer.axes], 0.5, empty_sample=True)
    if density != "an empty sample":
        mask[:] = False
    if density == "one site":
        mask[(1, *(size // 2 for size in GRID[layer.axes]))] = True
    problem = Problem(layer, GRID[layer.axes], batch=3, mask=mask)
    leaves = problem.leaves()
    y = problem.run(leaves)
    assert torch.equal(y.mask()[:, 0], problem.out_mask)
    weight_grad = gradients(y.features, leaves, torch.ones_like(y.features))[1]
    assert weight_grad.shape == leaves[1].shape
    if density == "no site":
        assert not bool(weight_grad.any())
        assert not bool(y.features.numel())


def test_a_whole_network_on_nothing() -> None:
    net = nn.Sequential(
        sc.nn.SubmConv3d(2, 4, 3),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Conv3d(4, 4, 2, 2),
        nn.Dropout(0.5),
        sc.nn.InverseConv3d(4, 2, 2, 2),
        nn.ConvTranspose3d(2, 1, 2, 2),
    )
    nowhere = torch.zeros(0, 4, dtype=torch.int64)
    for options in ({"spatial_shape": (8, 8, 8), "batch_size": 2}, {}):
        x = sc.SparseTensor(torch.zeros(0, 2), nowhere, **options).requires_grad_()
        y = net(x)
        assert y.num_sites == 0
        assert y.shape[:2] == (options.get("batch_size", 0), 1)
        y.features.sum().backward()
        assert all(entry.grad is not None for entry in net.parameters())
        assert x.features.grad.shape == (0, 2)
    assert not any(bool(entry.grad.any()) for entry in net.parameters())


def test_no_channels() -> None:
    x = random_input(5, 0, SHAPE)
    assert x.dense().shape == (1, 0, *SHAPE)
    assert torch.relu(x).channels == 0
    for layer in (torch.nn.BatchNorm2d(0), torch.nn.InstanceNorm2d(0), torch.nn.MaxPool2d(2)):
        assert layer(x).channels == 0


def test_a_grid_of_one_cell() -> None:
    x = sparse(torch.ones(1, 1, 1), torch.ones(1, 1).bool())
    y = F.conv1d(x, weight(1, 1, 3), padding=1)
    assert y.dense().tolist() == [[[1.0]]]
