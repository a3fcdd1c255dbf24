"""Functions of spconv below its layers: extents, and the pairs of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from sparseconv.compat.spconv.constants import ConvAlgo
from sparseconv.compat.spconv.layers.pairs import IndiceData, layer_geometry, pairs_of
from sparseconv.compat.spconv.tensor import SparseConvTensor
from sparseconv.core.arguments import Size


def get_conv_output_size(
    input_size: Sequence[int], kernel_size: Size, stride: Size, padding: Size, dilation: Size
) -> list[int]:
    """Return the extent of a convolution's output."""
    geometry = layer_geometry(len(input_size), kernel_size, stride, padding, dilation)
    return list(geometry.output_shape(tuple(input_size)))


def get_deconv_output_size(
    input_size: Sequence[int],
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    output_padding: Size,
) -> list[int]:
    """Return the extent of a transposed convolution's output."""
    geometry = layer_geometry(
        len(input_size), kernel_size, stride, padding, dilation, output_padding, transposed=True
    )
    return list(geometry.output_shape(tuple(input_size)))


def get_indice_pairs(
    indices: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    algo: ConvAlgo,
    ksize: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    out_padding: Size,
    subm: bool = False,
    transpose: bool = False,
    num_out_act_bound: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output indices of a layer, its pairs, and how many each kernel cell has.

    Returns:
        int32 ``[M, 1 + D]``; rows int32 ``[2, K, max(N, M)]``, -1 behind the last of each cell;
        int32 ``[K]``.
    """
    x = SparseConvTensor(indices.new_zeros(indices.shape[0], 0), indices, spatial_shape, batch_size)
    geometry = layer_geometry(
        len(spatial_shape), ksize, stride, padding, dilation, out_padding, subm, transpose
    )
    layer: Any = SimpleNamespace(indice_key="pairs", algo=algo)
    data: IndiceData = pairs_of(layer, x, geometry, subm).indice_dict["pairs"]
    return data.out_indices, data.indice_pairs, data.indice_pair_num


__all__ = ["ConvAlgo", "get_conv_output_size", "get_deconv_output_size", "get_indice_pairs"]
