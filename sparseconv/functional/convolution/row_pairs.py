"""Which input rows and output rows of a layer belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparseconv.core.arguments import check_kind, per_axis
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.tensor import SparseTensor


class Pairs(NamedTuple):
    """The pairs of a layer, in ascending order of their kernel cells.

    Attributes:
        in_rows, out_rows: int64 ``[P]``, rows of the layer's input and output.
        cells: int64 ``[P]``, the kernel cell where they meet, as in ``weight.flatten(2)``.
        coords: integer ``[M, 1 + D]``, the output's coordinates.
    """

    in_rows: Tensor
    out_rows: Tensor
    cells: Tensor
    coords: Tensor


def pairs(
    input: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    submanifold: bool = False,
    like: SparseTensor | None = None,
) -> Pairs:
    """Return the rows that a layer reads and writes together, as its rulebook has them.

    Those of an inverse layer are the same with input and output exchanged.

    Args:
        input: ``[B, C, *spatial]``.
        kernel_size, stride, padding, dilation: of the layer, int or one per axis.
        submanifold: whether the output sites are the input sites.
        like: the output sites, instead of those of the layer.

    Raises:
        SparseConvError: what no layer can have.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(3, 1), torch.tensor([[0, 1], [0, 2], [0, 3]]), (4,))
        >>> found = sc.functional.pairs(x, 2, stride=2)
        >>> found.in_rows, found.out_rows, found.cells
        (tensor([1, 0, 2]), tensor([1, 0, 1]), tensor([0, 1, 1]))
    """
    check_kind("input", input, SparseTensor, "a SparseTensor")
    if like is not None:
        check_kind("like", like, SparseTensor, "a SparseTensor or None")
    check_kind("submanifold", submanifold, bool, "a bool")
    kernel = per_axis("kernel_size", kernel_size, input.ndim - 2)
    kind = Kind.SUBMANIFOLD if submanifold else Kind.REGULAR
    geometry = make_geometry(kernel, stride=stride, padding=padding, dilation=dilation, kind=kind)
    sites, rulebook = input.sites.convolve(geometry, None if like is None else like.sites)
    counts = torch.tensor(rulebook.splits).diff()
    cells = torch.repeat_interleave(torch.arange(len(counts)), counts).to(input.device)
    return Pairs(rulebook.in_rows.long(), rulebook.out_rows.long(), cells, sites.coords)
