"""Layers of spconv made from the problems of the other tests, and tensors of spconv."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from cases import Problem, shuffled
from torch import Tensor

from sparseconv.compat.spconv import pytorch as spconv

LAYERS = {"conv": "SparseConv", "transposed": "SparseConvTranspose", "subm": "SubMConv"}


def tensor_of(t: Tensor, mask: Tensor, seed: int | None = None) -> spconv.SparseConvTensor:
    """Return the masked sites of a dense ``[B, C, *size]``, rows shuffled where a seed is given."""
    indices = mask.nonzero()
    if seed is not None:
        indices = shuffled(indices, seed)
    features = t.movedim(1, -1)[tuple(indices.unbind(1))]
    return spconv.SparseConvTensor(features, indices.int(), list(t.shape[2:]), t.shape[0])


def plain(problem: Problem) -> Problem:
    """Return the problem as spconv can have it: no groups, padding in numbers."""
    layer = problem.layer
    padding, extra = layer.padding, layer.output_padding
    if isinstance(padding, str):
        padding = 0
    if layer.kernel == (1,) * layer.axes and layer.stride == (1,) * layer.axes:
        padding = extra = 0
    layer = replace(layer, groups=1, padding=padding, output_padding=extra)
    least = [
        max(1, d * (k - 1) + 1 - 2 * p)
        for d, k, p in zip(
            *(value if isinstance(value, tuple) else (value,) * layer.axes
              for value in (layer.dilation, layer.kernel, padding)),
            strict=True,
        )
    ]  # fmt: skip
    size = tuple(map(max, problem.size, least))
    return Problem(layer, size, problem.batch, problem.density, problem.empty_sample, problem.seed)


def module_of(problem: Problem, weight: Tensor, bias: Tensor | None) -> Any:
    """Return spconv's module with these parameters, which may want gradients."""
    layer = problem.layer
    channels = (layer.in_channels, layer.out_channels, layer.kernel)
    kind = getattr(spconv, f"{LAYERS[layer.kind]}{layer.axes}d")
    options = {"output_padding": layer.output_padding} if layer.kind == "transposed" else {}
    if options:  # spconv's own transposed layers take none
        module = spconv.SparseConvolution(
            layer.axes, *channels, layer.stride, layer.padding, layer.dilation,
            bias=bias is not None, transposed=True, **options,
        )  # fmt: skip
    else:
        module = kind(*channels, layer.stride, layer.padding, layer.dilation, bias=bias is not None)
    return with_parameters(module, weight, bias, layer.kind in ("transposed", "inverse"))


def with_parameters(module: Any, weight: Tensor, bias: Tensor | None, transposed: bool) -> Any:
    """Put PyTorch's parameters into a module of spconv, on autograd's tape."""
    del module.weight
    if transposed:
        weight = weight.transpose(0, 1)
    module.weight = spconv_weight(weight, module.conv1x1)
    if bias is not None:
        del module.bias
        module.bias = bias
    return module


def spconv_weight(weight: Tensor, is_matrix: bool) -> Tensor:
    """Return ``[C_out, C_in, *kernel]`` as spconv's ``[C_out, *kernel, C_in]``.

    A window of one cell with stride 1 is read as ``[C_in, C_out]`` of the same memory.
    """
    if is_matrix:
        return weight.flatten(1).T.reshape(weight.shape[0], *weight.shape[2:], weight.shape[1])
    return weight.movedim(1, -1)


def reads_inverse(problem: Problem, seed: int = 0) -> tuple[Any, Any]:
    """Return the strided layer that an inverse problem undoes, and the tensor that it reads."""
    layer = problem.layer
    mask = problem.mask
    ones = torch.ones(problem.batch, 1, *problem.size, dtype=torch.float64)
    fine = tensor_of(ones, mask, seed)
    kind = getattr(spconv, f"SparseConv{layer.axes}d")
    strided = kind(
        1, 1, layer.kernel, layer.stride, layer.padding, layer.dilation, indice_key="down"
    ).double()
    return strided, fine
