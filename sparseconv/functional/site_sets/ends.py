"""The ends of a sparse block: from dense to sparse and back."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from sparseconv.core.dispatch import dispatched, implements
from sparseconv.functional.checks import Input
from sparseconv.tensor import SparseTensor


@dispatched
def _to_dense(input: Tensor, fill: float = 0) -> Tensor:
    return input


@implements(_to_dense)
def _sparse_to_dense(input: SparseTensor, fill: float = 0) -> Tensor:
    return input.dense(fill)


@dispatched
def _to_sites(input: Tensor, mask: Tensor | None = None) -> Any:
    return SparseTensor.from_dense(input, mask)


@implements(_to_sites)
def _sparse_to_sites(input: SparseTensor, mask: Tensor | None = None) -> SparseTensor:
    return input


def to_dense(input: Input, fill: float = 0) -> Tensor:
    """Return the dense tensor ``[B, C, *spatial]``; a dense input as it is.

    Args:
        input: ``[B, C, *spatial]``, a SparseTensor or dense.
        fill: the value of inactive sites.
    """
    return cast(Tensor, _to_dense(input, fill))


def to_sites(input: Input, mask: Tensor | None = None) -> SparseTensor:
    """Return the active sites of a dense tensor; a SparseTensor as it is.

    Args:
        input: ``[B, C, *spatial]``, dense or a SparseTensor.
        mask: as of :meth:`SparseTensor.from_dense`.
    """
    return cast(SparseTensor, _to_sites(input, mask))
