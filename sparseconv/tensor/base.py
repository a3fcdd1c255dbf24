"""Features on sites: what every part of a SparseTensor reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sparseconv.core.arguments import Ints
from sparseconv.core.dispatch import HANDLERS, NUMPY_NAMES, handler_of, native_names
from sparseconv.core.grid import Grids, check_grids
from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import refuse_jit, refuse_norm_of_other_axes
from sparseconv.sites.places import centres_of
from sparseconv.sites.sites import Sites
from sparseconv.tensor.checks import check_features, check_match
from sparseconv.tensor.methods import Methods

if TYPE_CHECKING:
    from typing_extensions import Self


class _CheckedFeatures:
    """Check features that are set; they are read as any attribute is, from the instance."""

    def __set__(self, x: Any, features: Tensor) -> None:
        """Set ``x.features``, which must have one row for each of its sites."""
        check_features(features)
        check_match(features, x._sites.num_sites, x._sites.device)
        x.__dict__["features"] = features


class Features(Methods):
    """Features ``[N, C]``, the sites they lie on, and what both say of the dense tensor."""

    features: Tensor = cast(Any, _CheckedFeatures())
    _sites: Any

    @classmethod
    def on_sites(cls, features: Tensor, sites: Sites) -> Self:
        """Return ``features`` ``[N, C]`` on existing sites, which stay shared."""
        x = cls.__new__(cls)
        x._sites = sites
        x.features = features
        return x

    @classmethod
    def unchecked(cls, features: Tensor, sites: Sites) -> Self:
        """Return the same of what a layer made: a row per site, on its device."""
        x = cls.__new__(cls)
        x._sites = sites
        x.__dict__["features"] = features
        return x

    @property
    def sites(self) -> Sites:
        """The active sites: coordinates, their index and the rulebooks cached on them."""
        if torch.compiler.is_compiling():
            view: Sites = DOORS.view(self._sites)
            return view
        if type(self._sites) is not Sites:  # a graph that has run left what stands for them
            self._sites = self._sites.resolve()
        sites: Sites = self._sites
        return sites

    @sites.setter
    def sites(self, sites: Sites) -> None:
        """Set sites with as many rows, on the same device."""
        check_match(self.features, sites.num_sites, sites.device)
        self._sites = sites

    @property
    def coords(self) -> Tensor:
        """A copy of the coordinates ``[N, 1 + D]``, batch first, in voxels."""
        return self.sites.coords

    @property
    def spatial_shape(self) -> Ints:
        """Dense extent per axis."""
        return self.sites.spatial_shape

    @property
    def batch_size(self) -> int:
        """Number of samples, empty ones counted."""
        return self.sites.batch_size

    @property
    def grid(self) -> Grids:
        """Where the sites lie in the world; None where nobody knows.

        A :class:`sparseconv.Grid`: origin, voxel size, unit and circular axes. Strided layers scale
        it; tensors whose grids are known and differ do not add or join. Samples that were
        collated from grids of their own have one each, a tuple.
        """
        return self.sites.grid

    def centres(self) -> Tensor:
        """Return the centres of the sites, float64 ``[N, D]``, in the unit of their grid.

        Raises:
            SparseConvValueError: nobody knows where the sites lie.
        """
        return centres_of(self.sites)

    def with_grid(self, grid: Grids) -> Self:
        """Return the features on the same sites elsewhere in the world; None forgets where."""
        check_grids(grid, self.batch_size, self.ndim - 2)
        return self.unchecked(self.features, self.sites.on_grid(grid))

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.features.shape[1]

    @property
    def num_sites(self) -> int:
        """Number of active sites N."""
        return self.features.shape[0]

    @property
    def density(self) -> float:
        """Share of the grid's cells that are active; 0 for a grid without cells."""
        cells = self.batch_size * math.prod(self.sites.extent)
        return self.num_sites / cells if cells else 0.0

    @property
    def shape(self) -> torch.Size:
        """Shape of the dense tensor, ``(B, C, *spatial)``; negative cells count too."""
        return torch.Size((self.batch_size, self.channels, *self.sites.extent))

    @property
    def ndim(self) -> int:
        """Number of axes of the dense tensor, 2 + D."""
        return 2 + self.sites.dimensions

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the features."""
        return self.features.dtype

    @property
    def device(self) -> torch.device:
        """Device of features and coordinates."""
        return self.features.device

    @property
    def requires_grad(self) -> bool:
        """Whether autograd follows the features."""
        return self.features.requires_grad

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return the dense shape, or one entry of it."""
        if dim == 1:
            return self.channels
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return the number of axes of the dense tensor."""
        axes = self.sites.dimensions
        if not torch.compiler.is_compiling():
            refuse_norm_of_other_axes(axes)
        return 2 + axes

    def is_floating_point(self) -> bool:
        """Return True: features always are."""
        return True

    def replace(self, features: Tensor) -> Self:
        """Return other ``features`` ``[N, C']`` on the same sites."""
        rows = self.features
        if (
            isinstance(features, Tensor)
            and features.ndim == 2
            and (features.shape[0], features.dtype, features.device)
            == (rows.shape[0], rows.dtype, rows.device)
        ):  # what nearly every layer hands over
            return self.unchecked(features, self.sites)
        return self.on_sites(features, self.sites)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the sparse meaning of one of PyTorch's functions (or of ours)."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            refuse_jit()
        for kind in types:
            if issubclass(kind, Methods) and not issubclass(kind, Features):
                return NotImplemented  # the other kind knows what to do with both
        handler = HANDLERS.get(function) or handler_of(function)
        kwargs = kwargs or {}
        for name in NUMPY_NAMES:  # a loop is what torch.compile follows
            if name in kwargs:
                return handler(*args, **native_names(kwargs))
        return handler(*args, **kwargs)
