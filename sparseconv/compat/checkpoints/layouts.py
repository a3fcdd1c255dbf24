"""How each library lays out a weight.

A layout reads a tensor to ``[*kernel, G, C_in / G, C_out / G]`` and writes it back; see
:class:`~sparseconv.compat.checkpoints.layers.Layer`. Sources are the libraries' own files:

- spconv 2.x: ``[O, *k, I]`` since 2.2, before that ``[*k, O, I]`` where the algorithm was "Native".
  A kernel of one cell is *read* as ``[I, O]`` from the same memory, in all of 2.x.
- spconv 1.x and mmcv's fork of it: ``[*k, I, O]``.
- MinkowskiEngine: ``[K, I, O]``, the first axis fastest (``src/kernel_region.hpp``).
- TorchSparse: ``[K, I, O]``, the first axis fastest where K is odd, else the last
  (``nn/utils/kernel.py``).
- SparseConvNet: ``[K, G, I / G, O / G]``, the last axis fastest
  (``Metadata/RectangularRegions.h``).
- WarpConvNet: ``[K, I, O]`` or ``[K, G, I / G, O / G]``, the last axis fastest.
- fVDB: ``[O, I, *k]``, transposed layers too.
- Open3D: ``[*k, I, O]`` with the axes reversed, since its kernels are (depth, height, width) and
  its positions (x, y, z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparseconv.compat.checkpoints.layers import Layer
from sparseconv.core.arguments import Ints

Read = Callable[[Tensor, Layer], Tensor]


@dataclass(frozen=True)
class Layout:
    """How a library lays out a weight.

    Attributes:
        name: of the library, as ``source=`` takes it.
        leaf: name of the parameter.
        read: returns a tensor of this layout as ``layer.shape``; raises ValueError or RuntimeError
            where the shape is not one of the layer's.
        write: the inverse.
        bias_row: whether a bias has a row of its own, ``[1, O]``.
        norm: what lies between the name of a norm and the names of its parameters.
    """

    name: str
    leaf: str
    read: Read
    write: Read
    bias_row: bool = False
    norm: str = ""


def _fit(weight: Tensor, *shapes: Ints) -> Tensor:
    """Return the weight; raise unless it has one of the shapes."""
    if tuple(weight.shape) not in shapes:
        raise ValueError(f"shape {tuple(weight.shape)} is none of {shapes}")
    return weight


def _read_torch(weight: Tensor, layer: Layer) -> Tensor:
    groups, last = layer.groups, (2, 1)
    first, share = layer.c_out, layer.c_in // groups
    if layer.transposed:
        first, share, last = layer.c_in, layer.c_out // groups, (1, 2)
    weight = _fit(weight, (first, share, *layer.kernel)).unflatten(0, (groups, first // groups))
    return weight.permute(*range(3, weight.ndim), 0, *last)


def _write_torch(weight: Tensor, layer: Layer) -> Tensor:
    axes = len(layer.kernel)
    last = (axes + 1, axes + 2) if layer.transposed else (axes + 2, axes + 1)
    return weight.permute(axes, *last, *range(axes)).flatten(0, 1)


def _read_fvdb(weight: Tensor, layer: Layer) -> Tensor:
    shape = layer.c_out, layer.c_in, *layer.kernel
    short = (shape[:2],) if layer.volume == 1 else ()
    weight = _fit(weight, shape, *short).reshape(shape)
    return weight.movedim((1, 0), (-2, -1)).unsqueeze(-3)


def _write_fvdb(weight: Tensor, layer: Layer) -> Tensor:
    weight = _ungrouped(weight).movedim((-1, -2), (0, 1))
    return weight.flatten(1) if layer.volume == 1 and layer.kernel else weight


def _ungrouped(weight: Tensor) -> Tensor:
    """Return ``[*kernel, I, O]``; raise for a weight of several groups."""
    if weight.shape[-3] != 1:
        raise ValueError(f"it has no layers of {weight.shape[-3]} groups")
    return weight.squeeze(-3)


def _read_spconv(weight: Tensor, layer: Layer) -> Tensor:
    weight = _fit(weight, (layer.c_out, *layer.kernel, layer.c_in))
    if layer.matrix and layer.kernel:
        return weight.reshape(layer.shape)
    return weight.movedim(0, -1).unsqueeze(-3)


def _write_spconv(weight: Tensor, layer: Layer) -> Tensor:
    weight = _ungrouped(weight)
    if layer.matrix and layer.kernel:
        return weight.reshape(layer.c_out, *layer.kernel, layer.c_in)
    return weight.movedim(-1, 0)


def _read_spconv_native(weight: Tensor, layer: Layer) -> Tensor:
    if tuple(weight.shape) != (*layer.kernel, layer.c_out, layer.c_in):
        return _read_spconv(weight, layer)  # a layer of implicit GEMM
    if layer.matrix and layer.kernel:
        return weight.reshape(layer.shape)
    return weight.transpose(-1, -2).unsqueeze(-3)


def _write_spconv_native(weight: Tensor, layer: Layer) -> Tensor:
    weight = _ungrouped(weight)
    if layer.matrix and layer.kernel:
        return weight.reshape(*layer.kernel, layer.c_out, layer.c_in)
    return weight.transpose(-1, -2)


def _read_spconv1(weight: Tensor, layer: Layer) -> Tensor:
    return _fit(weight, (*layer.kernel, layer.c_in, layer.c_out)).unsqueeze(-3)


def _write_spconv1(weight: Tensor, layer: Layer) -> Tensor:
    return _ungrouped(weight)


def _read_open3d(weight: Tensor, layer: Layer) -> Tensor:
    weight = _fit(weight, (*layer.kernel[::-1], layer.c_in, layer.c_out))
    return _turned(weight, layer).unsqueeze(-3)


def _write_open3d(weight: Tensor, layer: Layer) -> Tensor:
    return _turned(_ungrouped(weight), layer)


def _turned(weight: Tensor, layer: Layer) -> Tensor:
    """Return the weight with the axes of its kernel in the other order."""
    axes = len(layer.kernel)
    return weight.permute(*reversed(range(axes)), *range(axes, weight.ndim))


def _read_cells(weight: Tensor, layer: Layer, first_fastest: bool) -> Tensor:
    """Read ``[K, I, O]``, ``[K, G, I / G, O / G]``, one cell's ``[I, O]``, depthwise ``[K, C]``."""
    cells, share = layer.volume, layer.shape[-3:]
    shapes = [(cells, *share)]
    if layer.groups == 1:
        shapes.append((cells, *share[1:]))
    if layer.groups == 1 and cells == 1:
        shapes.append(share[1:])
    if share[1:] == (1, 1):
        shapes.append((cells, share[0]))
    weight = _fit(weight, *shapes)
    if not first_fastest:
        return weight.reshape(layer.shape)
    return _turned(weight.reshape(*layer.kernel[::-1], *share), layer)


def _write_cells(weight: Tensor, layer: Layer, first_fastest: bool) -> Tensor:
    """Write ``[K, I, O]``, or of more groups ``[K, G, I / G, O / G]``."""
    weight = _turned(weight, layer) if first_fastest else weight
    cells = weight.reshape(layer.volume, *layer.shape[-3:])
    return cells if layer.groups > 1 else cells.squeeze(1)


def _write_minkowski(weight: Tensor, layer: Layer) -> Tensor:
    cells = _write_cells(weight, layer, first_fastest=True)
    if layer.groups > 1:
        if layer.shape[-2:] != (1, 1):
            raise ValueError(f"it has no layers of {layer.groups} groups")
        return cells.flatten(1)
    return cells[0] if layer.matrix else cells


def _read_torchsparse(weight: Tensor, layer: Layer) -> Tensor:
    return _read_cells(weight, layer, first_fastest=layer.volume % 2 == 1)


def _write_torchsparse(weight: Tensor, layer: Layer) -> Tensor:
    _ungrouped(weight)
    cells = _write_cells(weight, layer, first_fastest=layer.volume % 2 == 1)
    return cells[0] if layer.matrix else cells


def _read_last_fastest(weight: Tensor, layer: Layer) -> Tensor:
    return _read_cells(weight, layer, first_fastest=False)


def _write_last_fastest(weight: Tensor, layer: Layer) -> Tensor:
    return _write_cells(weight, layer, first_fastest=False)


def _write_sparseconvnet(weight: Tensor, layer: Layer) -> Tensor:
    return weight.reshape(layer.volume, *layer.shape[-3:])


def _read_minkowski(weight: Tensor, layer: Layer) -> Tensor:
    return _read_cells(weight, layer, first_fastest=True)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("torch", "weight", _read_torch, _write_torch),
        Layout("spconv", "weight", _read_spconv, _write_spconv),
        Layout("spconv-2.0", "weight", _read_spconv_native, _write_spconv_native),
        Layout("spconv-1", "weight", _read_spconv1, _write_spconv1),
        Layout("mmcv", "weight", _read_spconv1, _write_spconv1),
        Layout("minkowski", "kernel", _read_minkowski, _write_minkowski, True, "bn"),
        Layout("torchsparse", "kernel", _read_torchsparse, _write_torchsparse),
        Layout("sparseconvnet", "weight", _read_last_fastest, _write_sparseconvnet),
        Layout("warpconvnet", "weight", _read_last_fastest, _write_last_fastest),
        Layout("fvdb", "weight", _read_fvdb, _write_fvdb),
        Layout("open3d", "kernel", _read_open3d, _write_open3d),
    )
}
