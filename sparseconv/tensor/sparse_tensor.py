"""The class itself: how it is made, shown and pickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparseconv.autograd.segments import check_reduction, reduce_groups
from sparseconv.core.foreign_names import TENSOR, native_keywords, no_attribute
from sparseconv.sites.coordinates import grouped_sites, sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor.arithmetic import Arithmetic
from sparseconv.tensor.checks import check_alone, check_features, check_match
from sparseconv.tensor.conversions import Conversions
from sparseconv.tensor.forms import Forms
from sparseconv.tensor.selection import Selection


class SparseTensor(Arithmetic, Conversions, Forms, Selection):
    """Features on the active sites of a dense grid; everywhere else it behaves as padding does.

    Args:
        features: floating point ``[N, C]``; the only part that autograd sees.
        coords: integer ``[N, 1 + D]``, D from 1 to 4: the batch index, then the axes in the dense
            tensor's order, in voxels.
        spatial_shape: dense extent per axis; the largest coordinate + 1 where left out: strided
            layers then go on until no site is left out. None for an axis has no end on either side
            (and no dense form): negative coordinates are legal there, and no window depends on
            which other sites there are. An axis with negative coordinates is one where
            ``spatial_shape`` is left out.
        batch_size: number of samples; the largest batch index + 1 where left out.
        reduce: ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"first"`` or ``"last"`` merges rows
            on the same site and sorts the rows by site; without it such rows are an error.
        sites: existing sites in place of all of these, which stay shared.

    Raises:
        SparseConvTypeError: integer features, float coordinates, tensors on different devices.
        SparseConvValueError: row counts that differ, repeated sites, a site outside
            ``spatial_shape``, a batch index out of range, coordinates that cannot be packed.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 1], [0, 4, 2]]))
        >>> x.shape
        torch.Size([1, 3, 5, 3])
        >>> x.dense()[0, :, 4, 2]
        tensor([1., 1., 1.])
    """

    @native_keywords
    def __init__(
        self,
        features: Tensor,
        coords: Any = None,
        spatial_shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        reduce: str | None = None,
        *,
        sites: Sites | None = None,
    ) -> None:
        if sites is not None:
            check_alone(sites, coords, spatial_shape, batch_size, reduce)
            self._sites = sites
            self.features = features
            return
        check_features(features)
        if isinstance(coords, Tensor):
            check_match(features, coords.shape[0] if coords.ndim else 0, coords.device)
        if reduce is None:
            self._sites = sites_from_coords(coords, spatial_shape, batch_size)
            self.features = features
            return
        check_reduction(reduce)
        self._sites, groups = grouped_sites(coords, spatial_shape, batch_size)
        self.features = reduce_groups(features, groups, reduce)

    def __repr__(self) -> str:
        """Return the dense shape, the number of sites and the density."""
        return (
            f"SparseTensor(shape={tuple(self.shape)}, num_sites={self.num_sites}, "
            f"density={self.density:.3g}, dtype={self.dtype}, device={self.device})"
        )

    if not TYPE_CHECKING:  # what a class with this method has is not checked

        def __getattr__(self, name: str) -> Any:
            """Raise with the name to use, where ``name`` is another library's."""
            raise no_attribute("SparseTensor", name, TENSOR)

    def __reduce__(self) -> tuple[Callable[..., SparseTensor], tuple[Tensor, Sites]]:
        """Pickle features and sites; caches and the way back to parent sites stay behind."""
        return tensor_on_sites, (self.features, self.sites)


def tensor_on_sites(features: Tensor, sites: Sites) -> SparseTensor:
    """Return ``features`` on ``sites``; what a pickle of a tensor names."""
    return SparseTensor.on_sites(features, sites)
