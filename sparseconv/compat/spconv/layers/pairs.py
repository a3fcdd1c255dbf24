"""The sites and the pairs of a layer, and what an ``indice_key`` keeps of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparseconv.compat.place import Place
from sparseconv.compat.spconv.layers.containers import SparseModule
from sparseconv.compat.spconv.place import place_of_sites
from sparseconv.compat.spconv.tensor import SparseConvTensor
from sparseconv.core.arguments import Ints, Size, per_axis
from sparseconv.core.geometry import Geometry, Kind, make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError


class WindowModule(SparseModule):
    """What layers with a window share: extents per axis, a key, and a count of output sites.

    Attributes:
        ndim: number of spatial axes.
        kernel_size, stride, padding, dilation: one entry per axis.
        subm: whether the output lies on the input's sites.
        indice_key: under which later layers find this one's sites.
        geometry: window and site law.
    """

    ndim: int
    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    output_padding: list[int] | int = 0
    subm: bool
    transposed: bool = False
    indice_key: str | None

    @cached_property
    def geometry(self) -> Geometry:
        """Window and site law of the layer."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding)
        return layer_geometry(self.ndim, *window, self.subm, self.transposed)

    def record_voxels(self, record: bool, device: Any = None) -> None:
        """Keep the largest number of output sites in a buffer, where that is asked for."""
        self.record_voxel_count = record
        if record:
            counted = torch.zeros(1, dtype=torch.int32, device=device)
            self.register_buffer("max_num_voxels_during_training", counted)

    def get_max_num_voxels(self) -> Tensor | None:
        """Return the largest number of output sites so far, where it is recorded."""
        return getattr(self, "max_num_voxels_during_training", None)

    def output(self, x: SparseConvTensor, features: Tensor, pairs: Pairs) -> SparseConvTensor:
        """Return the output of the layer on ``x``."""
        if self.record_voxel_count:
            counted = self.get_max_num_voxels()
            if counted is not None:
                counted.clamp_(min=features.shape[0])
        return x.moved(features, pairs.place, pairs.spatial_shape, pairs.indice_dict)


@dataclass(eq=False)
class IndiceData:
    """What a layer with an ``indice_key`` leaves in a tensor's ``indice_dict``.

    Attributes:
        layer: the layer that left it.
        geometry: its window and site law.
        source, target: the places of its input and of its output.
        rulebook: the pairs from the one to the other.
        spatial_shape, out_spatial_shape: the extents of both.
        is_subm: whether the output lies on the input's sites.
    """

    layer: WindowModule
    geometry: Geometry
    source: Place
    target: Place
    rulebook: Rulebook
    spatial_shape: list[int]
    out_spatial_shape: list[int]
    is_subm: bool
    voxel_num: Any = None

    @property
    def algo(self) -> Any:
        """How spconv would have computed it."""
        return getattr(self.layer, "algo", None)

    @property
    def ksize(self) -> list[int]:
        """Kernel size per axis."""
        return list(self.geometry.kernel_size)

    @property
    def stride(self) -> list[int]:
        """Stride per axis."""
        return list(self.geometry.stride)

    @property
    def padding(self) -> list[int]:
        """Padding per axis."""
        return list(self.geometry.padding)

    @property
    def dilation(self) -> list[int]:
        """Dilation per axis."""
        return list(self.geometry.dilation)

    @property
    def indices(self) -> Tensor:
        """The indices of the layer's input."""
        return self.source.indices

    @property
    def out_indices(self) -> Tensor:
        """The indices of the layer's output."""
        return self.target.indices

    @property
    def indice_pair_num(self) -> Tensor:
        """Number of pairs of each kernel cell, int32 ``[K]``."""
        splits = torch.tensor(self.rulebook.splits, dtype=torch.int32)
        return splits.diff().to(self.rulebook.in_rows.device)

    @property
    def indice_pairs(self) -> Tensor:
        """The rows of the pairs, int32 ``[2, K, max(N, M)]``, -1 behind the last of each cell."""
        book = self.rulebook
        longest = max(book.n_in, book.n_out)
        pairs = torch.full((2, book.num_cells, longest), -1, dtype=torch.int32)
        for cell, (start, end) in enumerate(zip(book.splits, book.splits[1:], strict=False)):
            pairs[0, cell, : end - start] = book.in_rows[start:end].cpu()
            pairs[1, cell, : end - start] = book.out_rows[start:end].cpu()
        return pairs.to(book.in_rows.device)


class Pairs(NamedTuple):
    """Where a layer's output lies, the pairs that lead there, and what it leaves behind."""

    place: Place
    spatial_shape: list[int]
    rulebook: Any
    indice_dict: dict[str, Any]


def pairs_of(layer: WindowModule, x: SparseConvTensor, geometry: Geometry, subm: bool) -> Pairs:
    """Return the pairs of a layer whose output its geometry tells.

    Args:
        layer: has an ``indice_key``.
        x: its input.
        geometry: its window and site law.
        subm: whether the output lies on the input's sites.

    Raises:
        SparseConvValueError: an output size below 1; a key that another geometry or other sites
            have used.
    """
    sites = x.sites
    shape = tuple(x.spatial_shape)
    target = shape if subm else geometry.output_shape(shape)
    # an even window under the submanifold law is one of a regular layer on given sites
    like = sites if subm and geometry.kind is not Kind.SUBMANIFOLD else None
    out_sites, rulebook = sites.convolve(geometry, like)
    place = x.place
    if out_sites is not sites:
        place = place_of_sites(out_sites, target, x.batch_size)
    left, key = x.indice_dict, layer.indice_key
    if key is not None:
        data = left.get(key)
        if data is None:
            shapes = list(shape), list(target)
            data = IndiceData(layer, geometry, x.place, place, rulebook, *shapes, subm)
            left = {**left, key: data}
        else:
            _check_reuse(layer, data, x, geometry)
    return Pairs(place, list(target), rulebook, left)


def inverse_pairs_of(layer: WindowModule, x: SparseConvTensor, kernel_size: Ints) -> Pairs:
    """Return the pairs that lead back to where the layer with the same key came from.

    Raises:
        SparseConvValueError: no layer left the key, or one that does not fit.
    """
    data = x.find_indice_pair(layer.indice_key)
    if data is None:
        raise SparseConvValueError(
            f"indice_key: {layer.indice_key!r} of {_named(layer)} was left by no layer before it; "
            f"known are {sorted(x.indice_dict)}"
        )
    if data.is_subm:
        raise _misfit(layer, data, "is submanifold, and an inverse layer undoes a strided one")
    if data.geometry.kernel_size != kernel_size:
        raise _misfit(layer, data, f"has kernel_size {data.ksize}, this one {list(kernel_size)}")
    if data.out_spatial_shape != x.spatial_shape:
        raise _misfit(
            layer, data, f"made spatial_shape {data.out_spatial_shape}, this has {x.spatial_shape}"
        )
    grid = tuple(data.spatial_shape), int(x.batch_size)
    source = data.source.sites_on(*grid)
    _, rulebook = x.sites.inverse(data.geometry, source)
    return Pairs(data.source, data.spatial_shape, rulebook, x.indice_dict)


def _check_reuse(
    layer: WindowModule, data: IndiceData, x: SparseConvTensor, geometry: Geometry
) -> None:
    """Raise unless a layer may use the key that another one has left."""
    if data.geometry != geometry or data.geometry.kind != geometry.kind:
        raise _misfit(layer, data, f"has {data.geometry}, this one {geometry}")
    if data.spatial_shape != x.spatial_shape:
        raise _misfit(
            layer, data, f"read spatial_shape {data.spatial_shape}, this one {x.spatial_shape}"
        )
    if data.source.num_rows != x.num_rows:
        raise _misfit(layer, data, f"read {data.source.num_rows} sites, this one {x.num_rows}")


def _misfit(layer: WindowModule, data: IndiceData, why: str) -> SparseConvValueError:
    return SparseConvValueError(
        f"indice_key: {layer.indice_key!r} of {_named(layer)} was left by {_named(data.layer)}, "
        f"which {why}; give each geometry a key of its own"
    )


def _named(layer: WindowModule) -> str:
    """Return what a message calls a layer: its path where it has one."""
    name = layer._sparse_unique_name or layer.name
    return f"{name} ({layer})" if name else str(layer)


def layer_geometry(
    ndim: int,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    output_padding: Size = 0,
    subm: bool = False,
    transposed: bool = False,
) -> Geometry:
    """Return the window and site law of a layer from spconv's arguments.

    A submanifold layer has stride 1 and its window around each site, cell ``k // 2`` on it,
    whatever stride and padding say. An even window under that law is a regular layer's on given
    sites.

    Raises:
        SparseConvError: an argument that no layer can have.
    """
    kernel = per_axis("kernel_size", kernel_size, ndim)
    if not subm:
        return make_geometry(
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_padding=output_padding,
            kind=Kind.TRANSPOSED if transposed else Kind.REGULAR,
        )
    if all(size % 2 for size in kernel):
        return make_geometry(kernel, dilation=dilation, kind=Kind.SUBMANIFOLD)
    steps = per_axis("dilation", dilation, ndim)
    before = tuple(step * (size // 2) for size, step in zip(kernel, steps, strict=True))
    windows = tuple(step * (size - 1) for size, step in zip(kernel, steps, strict=True))
    after = tuple(window - low for window, low in zip(windows, before, strict=True))
    geometry = make_geometry(kernel, dilation=dilation, padding=before)
    return replace(geometry, padding_end=after)


ImplicitGemmIndiceData = IndiceData  # whichever way spconv would have computed

__all__ = ["ImplicitGemmIndiceData", "IndiceData"]
