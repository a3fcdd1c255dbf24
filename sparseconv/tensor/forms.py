"""The tensor in other forms: dense, padded, nested, as arrays of SciPy, and one site of it."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparseconv.autograd.dense import planes_of_rows, rows_of_planes
from sparseconv.autograd.padded import jagged_rows, padded_rows, rows_of_jagged, rows_of_padded
from sparseconv.core.arguments import check_device, check_floating, check_integers
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.tensor.base import Features
from sparseconv.tensor.checks import checked_mask

if TYPE_CHECKING:
    from typing_extensions import Self


class Forms(Features):
    """What a tensor becomes, and comes from."""

    def to_scipy(self) -> Any:
        """Return a SciPy array, see :func:`sparseconv.interop.to_scipy`."""
        return import_module("sparseconv.interop").to_scipy(self)

    @classmethod
    def from_scipy(cls, array: Any, axes: int | None = None) -> Self:
        """Return a tensor of a SciPy array, see :func:`sparseconv.interop.from_scipy`."""
        made: Self = import_module("sparseconv.interop").from_scipy(array, axes)
        return made

    @classmethod
    def from_dense(cls, t: Tensor, mask: Tensor | None = None) -> Self:
        """Return the active sites of a dense tensor; gradients flow back into it.

        Args:
            t: floating point ``[B, C, *spatial]``.
            mask: bool (or 0 and 1) ``[B, 1, *spatial]`` or ``[B, *spatial]``, the active sites, or
                of a batch of 1 for every sample; a site whose
                features are all zero survives where the mask has it. Without a mask the sites are
                those with any non-zero channel.
        """
        check_floating("t", t)
        if t.layout is not torch.strided:
            raise SparseConvTypeError(
                f"t: must be dense, got {t.layout}; t.to_dense() is, and of a coalesced t, "
                f"SparseTensor(t.values(), t.indices().T) takes the sites"
            )
        if not 3 <= t.ndim <= 6:
            raise SparseConvValueError(
                f"t: must have shape (B, C, *spatial) with 1 to 4 spatial axes, "
                f"got {tuple(t.shape)}"
            )
        active = (t.detach() != 0).any(dim=1) if mask is None else checked_mask(t, mask)
        features = rows_of_planes(t.flatten(2), torch.nonzero(active.flatten())[:, 0])
        sites = sites_from_coords(torch.nonzero(active), tuple(t.shape[2:]), t.shape[0])
        return cls.on_sites(features, sites)

    def dense(self, fill: float = 0) -> Tensor:
        """Return the dense tensor ``[B, C, *spatial]``, ``fill`` at inactive sites.

        Raises:
            SparseConvValueError: a site has a negative coordinate.
        """
        self._num_cells()
        shape = self.batch_size, math.prod(self.spatial_shape)
        planes = planes_of_rows(self.features, self._cells(), shape, fill)
        return planes.reshape(self.batch_size, self.channels, *self.spatial_shape)

    def mask(self) -> Tensor:
        """Return bool ``[B, 1, *spatial]``, True at active sites."""
        cells = self._num_cells()
        flat = torch.zeros(cells, dtype=torch.bool, device=self.device)
        flat[self._cells()] = True
        return flat.reshape(self.batch_size, 1, *self.spatial_shape)

    def _num_cells(self) -> int:
        """Return the number of cells of the dense grid, which must be one that memory can hold."""
        cells = self.batch_size * math.prod(self.spatial_shape)
        if cells * max(self.channels, 1) >= 2**48:
            raise SparseConvValueError(
                f"dense: shape {tuple(self.shape)} holds {cells:.3g} cells, more than any memory"
            )
        return cells

    def _cells(self) -> Tensor:
        """Return the row-major number of each site's cell in the dense grid."""
        if min(self.sites.lower, default=0) < 0:
            low = self.sites.index.packing.lower[1:]
            if min(low) < 0:
                raise SparseConvValueError(
                    f"dense: sites have negative coordinates (down to {low}), which no "
                    f"dense tensor holds; subtract coords.amin(0) from the spatial columns first"
                )
            raise SparseConvValueError(
                f"dense: give spatial_shape, or cut a box by sparseconv.crop(x, low, high): axes "
                f"have no end, {self.sites.ends[1:]}"
            )
        samples, *columns = self.sites.shared_coords.long().unbind(1)
        for size, column in zip(self.spatial_shape, columns, strict=True):
            samples = samples * size + column
        return samples

    def to_padded(self) -> tuple[Tensor, Tensor]:
        """Return the samples side by side, as attention takes them.

        Returns:
            Features ``[B, L, C]``, L the sites of the largest sample, in ascending order of the
            sites and 0 behind them; bool ``[B, L]``, True where a site is.

        Example:
            >>> import torch, sparseconv as sc
            >>> x = sc.SparseTensor(torch.ones(3, 1), torch.tensor([[0, 1], [1, 0], [1, 4]]))
            >>> padded, mask = x.to_padded()
            >>> padded.shape, mask.tolist()
            (torch.Size([2, 2, 1]), [[True, False], [True, True]])
            >>> x.from_padded(2 * padded).features.flatten()
            tensor([2., 2., 2.])
        """
        return padded_rows(self.features, self.sites.samples)

    def from_padded(self, padded: Tensor) -> Self:
        """Return ``padded`` ``[B, L, C']``, in the order of :meth:`to_padded`, on these sites."""
        return self.replace(rows_of_padded(padded, self.sites.samples))

    def to_nested(self) -> Tensor:
        """Return the samples as a jagged nested tensor, in the order of :meth:`to_padded`."""
        return jagged_rows(self.features, self.sites.samples)

    def from_nested(self, nested: Tensor) -> Self:
        """Return a jagged nested tensor, in the order of :meth:`to_nested`, on these sites."""
        return self.replace(rows_of_jagged(nested, self.sites.samples))

    def at(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Look up coordinates through the hash index.

        Args:
            coords: integer ``[M, 1 + D]``, anywhere.

        Returns:
            rows int64 ``[M]`` (-1 where the site is not active) and found bool ``[M]``.
        """
        check_integers("coords", coords)
        if coords.ndim != 2 or coords.shape[1] != self.ndim - 1:
            raise SparseConvValueError(
                f"coords: must have shape (M, {self.ndim - 1}), got {tuple(coords.shape)}"
            )
        check_device("coords", coords, self.device, "tensor")
        return self.sites.rows_of(coords)
