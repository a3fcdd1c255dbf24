"""The ends of a sparse block as modules."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv import functional
from sparseconv.core.foreign_names import native_keywords
from sparseconv.functional.checks import Input
from sparseconv.tensor import SparseTensor


class ToDense(torch.nn.Module):
    """The end of a sparse block: from a SparseTensor to the dense ``[B, C, *spatial]``.

    A dense tensor passes unchanged, so that a network runs on either.

    Args:
        fill: the value of inactive sites.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 1]]), (3,))
        >>> sc.nn.ToDense()(x)
        tensor([[[0., 1., 0.]]])
    """

    @native_keywords
    def __init__(self, fill: float = 0) -> None:
        super().__init__()
        self.fill = fill

    def forward(self, input: Input) -> Tensor:
        """Return :func:`sparseconv.functional.to_dense` of ``input``."""
        return functional.to_dense(input, self.fill)

    def extra_repr(self) -> str:
        """Return the fill."""
        return f"fill={self.fill}"


class ToSites(torch.nn.Module):
    """The beginning of a sparse block: from a dense ``[B, C, *spatial]`` to its active sites.

    ``layer(x)`` takes the sites with any non-zero channel, ``layer(x, mask)`` those of a bool mask.
    A SparseTensor passes unchanged.

    Example:
        >>> import torch, sparseconv as sc
        >>> sc.nn.ToSites()(torch.tensor([[[0.0, 2.0, 0.0]]])).coords
        tensor([[0, 1]])
    """

    def forward(self, input: Input, mask: Tensor | None = None) -> SparseTensor:
        """Return :func:`sparseconv.functional.to_sites` of ``input``.

        Args:
            input: ``[B, C, *spatial]``.
            mask: bool ``[B, 1, *spatial]`` or ``[B, *spatial]``, the active sites.
        """
        return functional.to_sites(input, mask)
