"""Names of other libraries, each with the name to use here; what lacks them answers with it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence

from sparseconv.core.private_torch import Arguments, Result
from sparseconv.errors import SparseConvAttributeError, SparseConvTypeError

_MAKE = "sparseconv.SparseTensor(features, coords, spatial_shape, batch_size)"
_SHARED = "leave it out, layers of one geometry on the same sites share their rulebook"

# spconv, MinkowskiEngine and TorchSparse, in this order
TENSOR = {
    "indices": "x.coords, the batch index first",
    "replace_feature": "x.replace(features)",
    "indice_dict": "x.sites, which caches the rulebooks by itself",
    "find_indice_pair": "x.sites, which caches the rulebooks by itself",
    "spatial_range": "x.spatial_shape",
    "sparity": "x.density",
    "F": "x.features",
    "C": "x.coords, the batch index first",
    "coordinates": "x.coords, the batch index first",
    "feats": "x.features",
    "D": "x.ndim - 2",
    "decomposed_features": "[sample.features for sample in x.split()]",
    "decomposed_coordinates": "[sample.coords[:, 1:] for sample in x.split()]",
    "features_at_coordinates": "x.at(coords) for rows, sparseconv.interpolate(x, points) between",
    "tensor_stride": "coordinates of the layer's own grid, they start at 0 and count by 1",
    "s": "coordinates of the layer's own grid, they start at 0 and count by 1",
    "coordinate_manager": "x.sites, which caches the rulebooks by itself",
    "coordinate_map_key": "x.sites, which tells site sets apart",
    "slice": "the PointMap of sparseconv.voxelize, to_points(x)",
}
PACKAGE = {
    "SparseConvTensor": _MAKE,
    "TensorField": "sparseconv.voxelize(points, voxel_size)",
    "SparseSequential": "torch.nn.Sequential",
    "SparseModule": "torch.nn.Module",
    "sparse_quantize": "sparseconv.voxelize(points, voxel_size)",
    "sparse_collate": "sparseconv.collate(tensors)",
    "sparse_collate_fn": "sparseconv.collate(tensors)",
    "batched_coordinates": "sparseconv.collate(tensors), or a list of samples to voxelize",
    "PointToVoxel": "sparseconv.voxelize(points, voxel_size)",
    "pytorch": "sparseconv itself and sparseconv.nn",
}
LAYERS = {
    "SparseSequential": "torch.nn.Sequential",
    "SparseModule": "torch.nn.Module",
    "SparseReLU": "torch.nn.ReLU",
    "SparseBatchNorm": "torch.nn.BatchNorm3d (1d, 2d: by the tensor's axes)",
    "MinkowskiConvolution": "sparseconv.nn.SubmConv3d with stride 1, torch.nn.Conv3d with others",
    "MinkowskiConvolutionTranspose": "sparseconv.nn.InverseConv3d",
    "MinkowskiGenerativeConvolutionTranspose": "torch.nn.ConvTranspose3d",
    "MinkowskiBatchNorm": "torch.nn.BatchNorm3d (1d, 2d: by the tensor's axes)",
    "MinkowskiInstanceNorm": "torch.nn.InstanceNorm3d (1d, 2d: by the tensor's axes)",
    "MinkowskiMaxPooling": "torch.nn.MaxPool3d",
    "MinkowskiAvgPooling": "torch.nn.AvgPool3d",
    "MinkowskiSumPooling": "torch.nn.AvgPool3d with divisor_override=1",
    "MinkowskiGlobalAvgPooling": "sparseconv.nn.GlobalAvgPool",
    "MinkowskiGlobalPooling": "sparseconv.nn.GlobalAvgPool",
    "MinkowskiGlobalMaxPooling": "sparseconv.nn.GlobalMaxPool",
    "MinkowskiPruning": "sparseconv.prune(x, keep)",
    "cat": "sparseconv.cat(tensors)",
}
# spellings of one layer for each number of axes; the first that matches counts
_FAMILIES = (
    (r"SubMConv([1-4])d", r"sparseconv.nn.SubmConv\1d"),
    (r"SparseInverseConv([1-4])d", r"sparseconv.nn.InverseConv\1d"),
    (r"SparseConv(Transpose)?([1-3])d", r"torch.nn.Conv\1\2d"),
    (r"SparseConv4d", "sparseconv.nn.Conv4d"),
    (r"Sparse(Max|Avg)Pool([1-3])d", r"torch.nn.\1Pool\2d"),
    (r"SparseGlobal(Max|Avg)Pool(?:ing)?", r"sparseconv.nn.Global\1Pool"),
    (r"Minkowski(Linear|ReLU|GELU|SiLU|ELU|Sigmoid|Tanh|Softmax|Dropout)", r"torch.nn.\1"),
    (r"BatchNorm1d", "torch.nn.BatchNorm3d on three axes (1d and 2d on one and two)"),
    (
        r"((?:Conv(?:Transpose)?|MaxPool|AvgPool|BatchNorm|InstanceNorm|Dropout)[1-3]d"
        r"|ReLU|Linear|Sequential|LayerNorm|GroupNorm|Dropout|Upsample|Identity|Flatten)",
        r"torch.nn.\1, which takes SparseTensors",
    ),
)
KEYWORDS = {
    "indice_key": _SHARED,
    "coordinate_map_key": _SHARED,
    "algo": "leave it out, sparseconv.engine(name) chooses how to compute",
    "stride": "leave it out, a submanifold layer has stride 1 (torch.nn.Conv3d strides) and "
    "coordinates count the cells of their own grid",
    "padding": "leave it out, a submanifold layer keeps the sites and so pads by itself",
    "padding_mode": "leave it out, an inactive site counts 0",
    "subm": "use sparseconv.nn.SubmConv3d for True, torch.nn.Conv3d for False",
    "transposed": "use torch.nn.ConvTranspose3d, or sparseconv.nn.InverseConv3d",
    "inverse": "use sparseconv.nn.InverseConv3d",
    "output_padding": "leave it out, an inverse layer knows the sites that it goes back to",
    "dimension": "leave it out, the layer's name says it: SubmConv1d to SubmConv4d",
    "kernel_generator": "give kernel_size",
    "coordinates": "say coords, integer (N, 1 + D) with the batch index first",
    "indices": "say coords, integer (N, 1 + D) with the batch index first",
    "feats": "say features, floating point (N, C)",
    "tensor_stride": "leave it out, coordinates count the cells of their own grid",
    "coordinate_manager": "leave it out, sites cache their rulebooks by themselves",
    "vsize_xyz": "say voxel_size, one number or one per axis in the order of xyz",
    "quantization_size": "say voxel_size, one number or one per axis",
    "coors_range_xyz": "say bounds",
    "point_cloud_range": "say bounds",
    "num_point_features": "leave it out, features tell it",
    "max_num_voxels": "leave it out, every point gets its voxel",
    "max_num_points_per_voxel": "leave it out, every point of a voxel counts",
    "quantization_mode": "say reduce='sum', 'mean', 'max' or 'first'",
}


def no_attribute(owner: str, name: str, table: Mapping[str, str]) -> SparseConvAttributeError:
    """Return the error for a name that ``owner`` lacks, with what ``table`` says to use."""
    instead = table.get(name) or (_family(name) if table is LAYERS else "")
    ending = f"; use {instead}" if instead else ""
    return SparseConvAttributeError(f"{owner} has no attribute {name!r}{ending}")


def _family(name: str) -> str:
    for pattern, instead in _FAMILIES:
        match = re.fullmatch(pattern, name)
        if match is not None:
            return match.expand(instead)
    return ""


def native_keywords(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let ``function`` answer a keyword that it lacks with what to do here."""
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for name in kwargs:
            if name not in known:
                raise no_keyword(name, known)
        return function(*args, **kwargs)

    return checked


def no_keyword(name: str, known: Sequence[str]) -> SparseConvTypeError:
    """Return the error for a keyword that is none of the ``known`` ones."""
    instead = KEYWORDS.get(name, f"there are {', '.join(known)}")
    return SparseConvTypeError(f"{name}: not an argument here; {instead}")
