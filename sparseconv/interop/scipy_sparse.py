"""SciPy's sparse arrays: of tensors, of rulebooks, of who neighbours whom."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from sparseconv.core.arguments import check_int
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.interop.torch_sparse import entries_of, from_entries
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor


def to_scipy(x: SparseTensor) -> Any:
    """Return a SciPy array of a tensor, zeros of active sites included.

    Returns:
        With one sample and one channel an array over the spatial axes, of two axes a
        ``csr_array``; else a ``coo_array`` ``[B, C, *spatial]``.

    Raises:
        SparseConvError: SciPy is not installed; coordinates are negative.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor.from_dense(torch.eye(3)[None, None])
        >>> sc.interop.to_scipy(x).nnz
        3
    """
    sparse = _scipy("sparse")
    indices, values, shape = entries_of(x)
    numbers = values.detach().cpu()
    if numbers.dtype in (torch.float16, torch.bfloat16):  # SciPy has none of them
        numbers = numbers.float()
    places = indices.cpu().numpy()
    if shape[:2] != (1, 1):
        return sparse.coo_array((numbers.numpy(), tuple(places)), shape=shape)
    array = sparse.coo_array((numbers.numpy(), tuple(places[2:])), shape=shape[2:])
    return array.tocsr() if len(shape) == 4 else array


def from_scipy(array: Any, axes: int | None = None) -> SparseTensor:
    """Return a tensor whose sites are the entries of a SciPy array, explicit zeros too.

    Args:
        array: any of SciPy's sparse arrays or matrices; entries that come twice are summed.
        axes: the number of spatial axes: all of them where left out, for one sample and channel;
            two fewer than the array has for ``[B, C, *spatial]``.

    Raises:
        SparseConvError: SciPy is not installed, it is no sparse array, or `axes` does not fit.
    """
    sparse = _scipy("sparse")
    if not sparse.issparse(array):
        raise SparseConvTypeError("array: must be one of SciPy's sparse arrays")
    axes = array.ndim if axes is None else check_int("axes", axes, least=1)
    if axes not in (array.ndim, array.ndim - 2):
        raise SparseConvValueError(
            f"axes: must be {array.ndim} or {array.ndim - 2} for an array of {array.ndim} axes"
        )
    entries = sparse.coo_array(array)
    entries.sum_duplicates()
    values = torch.from_numpy(np.array(entries.data))
    values = values if values.is_floating_point() else values.float()
    places = np.stack([np.asarray(axis, np.int64) for axis in entries.coords])
    shape = tuple(array.shape)
    if axes == array.ndim:
        places = np.concatenate([np.zeros((2, places.shape[1]), np.int64), places])
        shape = (1, 1, *shape)
    return from_entries(torch.from_numpy(places), values, shape)


def rulebook_to_scipy(rulebook: Rulebook) -> Any:
    """Return a ``csr_array`` ``[n_out, n_in]``: how many kernel cells join two rows.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor.from_dense(torch.ones(1, 1, 4))
        >>> y = torch.nn.Conv1d(1, 1, 2, stride=2)(x)
        >>> (rulebook,) = x.sites.rulebooks.values()
        >>> sc.interop.rulebook_to_scipy(rulebook).toarray()
        array([[1, 1, 0, 0],
               [0, 0, 1, 1]])
    """
    sparse = _scipy("sparse")
    rows, columns = (part.cpu().numpy() for part in (rulebook.out_rows, rulebook.in_rows))
    ones = np.ones(len(rows), np.int64)
    pairs = sparse.coo_array((ones, (rows, columns)), shape=(rulebook.n_out, rulebook.n_in))
    return pairs.tocsr()


def neighbours(x: SparseTensor | Sites, kernel_size: int = 3) -> Any:
    """Return a symmetric ``csr_array`` ``[N, N]`` that joins sites in one another's window.

    Args:
        x: a tensor, or its sites.
        kernel_size: of the window, odd; a site is its own neighbour, too.

    Raises:
        SparseConvError: SciPy is not installed; an even kernel.
    """
    sites = x.sites if isinstance(x, SparseTensor) else x
    if check_int("kernel_size", kernel_size, least=1) % 2 == 0:
        raise SparseConvValueError(f"kernel_size: must be odd, got {kernel_size}")
    geometry = make_geometry((kernel_size,) * sites.dimensions, kind=Kind.SUBMANIFOLD)
    return rulebook_to_scipy(sites.convolve(geometry)[1])


def _scipy(module: str) -> Any:
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError as error:
        raise SparseConvError(
            "this needs SciPy, which is not installed: pip install scipy"
        ) from error
