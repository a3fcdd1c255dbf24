"""SparseTensor: features on active sites, in the place of a dense tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sparseconv.autograd.dense import planes_of_rows, rows_of_planes
from sparseconv.autograd.padded import (
    jagged_rows,
    padded_rows,
    rows_of_jagged,
    rows_of_padded,
)
from sparseconv.autograd.segments import check_reduction, reduce_groups
from sparseconv.core.arguments import (
    Ints,
    as_bools,
    came,
    check_device,
    check_floating,
    check_integers,
    check_kind,
)
from sparseconv.core.dispatch import HANDLERS, handler_of
from sparseconv.core.dtypes import FLOATS
from sparseconv.core.foreign_names import TENSOR, native_keywords, no_attribute
from sparseconv.core.grid import Grids, check_grids
from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import refuse_jit, refuse_norm_of_other_axes
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.batches import some_samples
from sparseconv.sites.coordinates import grouped_sites, sites_from_coords
from sparseconv.sites.places import centres_of
from sparseconv.sites.sites import Sites
from sparseconv.tensor_methods import Methods


class _Features:
    """Check features that are set; they are read as any attribute is, from the instance."""

    def __set__(self, x: Any, features: Tensor) -> None:
        """Set ``x.features``, which must have one row for each of its sites."""
        _check_features(features)
        _check_match(features, x._sites.num_sites, x._sites.device)
        x.__dict__["features"] = features


class SparseTensor(Methods):
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

    features: Tensor = cast(Any, _Features())
    _sites: Any

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
            _check_alone(sites, coords, spatial_shape, batch_size, reduce)
            self._sites = sites
            self.features = features
            return
        _check_features(features)
        if isinstance(coords, Tensor):
            _check_match(features, coords.shape[0] if coords.ndim else 0, coords.device)
        if reduce is None:
            self._sites = sites_from_coords(coords, spatial_shape, batch_size)
            self.features = features
            return
        check_reduction(reduce)
        self._sites, groups = grouped_sites(coords, spatial_shape, batch_size)
        self.features = reduce_groups(features, groups, reduce)

    @classmethod
    def on_sites(cls, features: Tensor, sites: Sites) -> SparseTensor:
        """Return ``features`` ``[N, C]`` on existing sites, which stay shared."""
        x = cls.__new__(cls)
        x._sites = sites
        x.features = features
        return x

    @classmethod
    def unchecked(cls, features: Tensor, sites: Sites) -> SparseTensor:
        """Return the same of what a layer made: a row per site, on its device."""
        x = cls.__new__(cls)
        x._sites = sites
        x.__dict__["features"] = features
        return x

    def to_scipy(self) -> Any:
        """Return a SciPy array, see :func:`sparseconv.interop.to_scipy`."""
        return import_module("sparseconv.interop").to_scipy(self)

    @staticmethod
    def from_scipy(array: Any, axes: int | None = None) -> SparseTensor:
        """Return a tensor of a SciPy array, see :func:`sparseconv.interop.from_scipy`."""
        made: SparseTensor = import_module("sparseconv.interop").from_scipy(array, axes)
        return made

    @classmethod
    def from_dense(cls, t: Tensor, mask: Tensor | None = None) -> SparseTensor:
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
        active = (t.detach() != 0).any(dim=1) if mask is None else _checked_mask(t, mask)
        features = rows_of_planes(t.flatten(2), torch.nonzero(active.flatten())[:, 0])
        return cls(features, torch.nonzero(active), tuple(t.shape[2:]), t.shape[0])

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
        _check_match(self.features, sites.num_sites, sites.device)
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

    def with_grid(self, grid: Grids) -> SparseTensor:
        """Return the features on the same sites elsewhere in the world; None forgets where."""
        check_grids(grid, self.batch_size, self.ndim - 2)
        return SparseTensor.unchecked(self.features, self.sites.on_grid(grid))

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

    def from_padded(self, padded: Tensor) -> SparseTensor:
        """Return ``padded`` ``[B, L, C']``, in the order of :meth:`to_padded`, on these sites."""
        return self.replace(rows_of_padded(padded, self.sites.samples))

    def to_nested(self) -> Tensor:
        """Return the samples as a jagged nested tensor, in the order of :meth:`to_padded`."""
        return jagged_rows(self.features, self.sites.samples)

    def from_nested(self, nested: Tensor) -> SparseTensor:
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

    def replace(self, features: Tensor) -> SparseTensor:
        """Return other ``features`` ``[N, C']`` on the same sites."""
        rows = self.features
        if (
            isinstance(features, Tensor)
            and features.ndim == 2
            and (features.shape[0], features.dtype, features.device)
            == (rows.shape[0], rows.dtype, rows.device)
        ):  # what nearly every layer hands over
            return SparseTensor.unchecked(features, self.sites)
        return SparseTensor.on_sites(features, self.sites)

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        """Return the tensor in another dtype or on another device; arguments as of torch's.

        A ``memory_format`` is of the dense tensor, and says nothing here.
        """
        kwargs.pop("memory_format", None)
        like: Any = [entry.features if isinstance(entry, SparseTensor) else entry for entry in args]
        features = self.features.to(*like, **kwargs) if like or kwargs else self.features
        sites = self.sites.to(features.device, kwargs.get("non_blocking", False))
        return SparseTensor.on_sites(features, sites)

    def cpu(self) -> SparseTensor:
        """Return the tensor on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | str | torch.device | None = None) -> SparseTensor:
        """Return the tensor on a CUDA device."""
        return self.to(torch.device("cuda" if device is None else device))

    def half(self) -> SparseTensor:
        """Return the features in float16."""
        return self.replace(self.features.half())

    def bfloat16(self) -> SparseTensor:
        """Return the features in bfloat16."""
        return self.replace(self.features.bfloat16())

    def float(self) -> SparseTensor:
        """Return the features in float32."""
        return self.replace(self.features.float())

    def double(self) -> SparseTensor:
        """Return the features in float64."""
        return self.replace(self.features.double())

    def detach(self) -> SparseTensor:
        """Return the tensor cut off from autograd's graph."""
        return self.replace(self.features.detach())

    def requires_grad_(self, requires_grad: bool = True) -> SparseTensor:
        """Let autograd follow the features from here on; returns the tensor itself."""
        self.features.requires_grad_(requires_grad)
        return self

    def __getitem__(self, samples: int | slice | tuple[Any, ...]) -> SparseTensor:
        """Return one sample (a batch of one) or a slice of the batch, ``x[:, a:b]`` of channels."""
        if isinstance(samples, tuple):
            return self._some_channels(*samples)
        if not isinstance(samples, int) and not _is_slice(samples):
            raise SparseConvTypeError(
                f"x[...]: takes the index of a sample or a slice of samples, got {_index(samples)}"
            )
        if isinstance(samples, int) and not -len(self) <= samples < len(self):
            raise IndexError(f"sample {samples} is out of range for batch_size {len(self)}")
        chosen = range(len(self))[samples]
        numbers = [chosen] if isinstance(chosen, int) else list(chosen)
        rows, sites = some_samples(self.sites, numbers)
        return SparseTensor.on_sites(self.features[rows], sites)

    def _some_channels(
        self, samples: Any = slice(None), channels: Any = slice(None), *rest: Any
    ) -> SparseTensor:
        """Return a slice of the channels of some samples; the spatial axes stay."""
        whole = all(
            entry is Ellipsis or (isinstance(entry, slice) and entry == slice(None))
            for entry in rest
        )
        forward = _is_slice(channels) and (channels.step is None or channels.step > 0)
        if not whole or not forward:
            raise SparseConvTypeError(
                "x[...]: takes samples and a slice of channels, x[:, 2:5]; sparseconv.crop cuts "
                "the spatial axes"
            )
        everyone = isinstance(samples, slice) and samples == slice(None)
        x = self if everyone else self[samples]
        return x.replace(x.features[:, channels])

    def __len__(self) -> int:
        """Return the number of samples, over which a loop goes.

        There is no ``__iter__``: a sample is a batch of one, and a tool that walks through all
        that is iterable would walk for ever.
        """
        return self.batch_size

    def split(
        self, split_size_or_sections: int | Sequence[int] | None = None, dim: int = 0
    ) -> Sequence[SparseTensor]:
        """Return the samples, each a batch of one; given sizes and ``dim=1``, parts of channels."""
        if split_size_or_sections is None:
            return [self[sample] for sample in range(len(self))]
        split = handler_of(torch.split)
        parts: Sequence[SparseTensor] = split(self, split_size_or_sections, dim)
        return parts

    def type_as(self, other: Tensor | SparseTensor) -> SparseTensor:
        """Return the tensor in the dtype and on the device of another."""
        return self.to(other.device, other.dtype)

    def __add__(self, other: Any) -> SparseTensor:
        """Return ``self + other``; see :mod:`sparseconv.functional.values.arithmetic`."""
        return _call(torch.add, self, other)

    def __radd__(self, other: Any) -> SparseTensor:
        """Return ``other + self``."""
        return _call(torch.add, other, self)

    def __sub__(self, other: Any) -> SparseTensor:
        """Return ``self - other``."""
        return _call(torch.sub, self, other)

    def __rsub__(self, other: Any) -> SparseTensor:
        """Return ``other - self``."""
        return _call(torch.sub, other, self)

    def __mul__(self, other: Any) -> SparseTensor:
        """Return ``self * other``."""
        return _call(torch.mul, self, other)

    def __rmul__(self, other: Any) -> SparseTensor:
        """Return ``other * self``."""
        return _call(torch.mul, other, self)

    def __truediv__(self, other: Any) -> SparseTensor:
        """Return ``self / other``."""
        return _call(torch.div, self, other)

    def __rtruediv__(self, other: Any) -> SparseTensor:
        """Return ``other / self``."""
        return _call(torch.div, other, self)

    def __neg__(self) -> SparseTensor:
        """Return ``-self``."""
        return self.replace(-self.features)

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
            if issubclass(kind, Methods) and not issubclass(kind, SparseTensor):
                return NotImplemented  # the other kind knows what to do with both
        handler = HANDLERS.get(function) or handler_of(function)
        return handler(*args, **(kwargs or {}))


def tensor_on_sites(features: Tensor, sites: Sites) -> SparseTensor:
    """Return ``features`` on ``sites``; what a pickle of a tensor names."""
    return SparseTensor.on_sites(features, sites)


def _check_alone(sites: Any, *others: Any) -> None:
    """Raise unless these are sites, and no other argument says where the features lie."""
    check_kind("sites", sites, Sites, "the sites of a SparseTensor, x.sites")
    if any(entry is not None for entry in others):
        raise SparseConvTypeError(
            "sites: stand in place of coords, spatial_shape, batch_size and reduce; leave those out"
        )


def _call(function: Callable[..., Any], *args: Any) -> SparseTensor:
    for operand in args:
        if isinstance(operand, Methods) and not isinstance(operand, SparseTensor):
            return cast(SparseTensor, NotImplemented)  # as above
    result: SparseTensor = handler_of(function)(*args)
    return result


def _index(value: Any) -> str:
    """Return what an error says of an index: no dump of a tensor."""
    if isinstance(value, Tensor | SparseTensor):
        return f"{came(value)}; sparseconv.prune(x, keep) keeps some of the sites"
    return repr(value) if isinstance(value, str | float | slice) else came(value)


def _is_slice(value: Any) -> bool:
    """Return whether this is a slice from and to integers."""
    if not isinstance(value, slice):
        return False
    bounds = (value.start, value.stop, value.step)
    return all(bound is None or isinstance(bound, int) for bound in bounds) and value.step != 0


def _check_features(features: Any) -> None:
    check_floating("features", features)
    if features.dtype not in FLOATS:
        raise SparseConvTypeError(f"features: must be one of {FLOATS}, got {features.dtype}")
    if features.ndim != 2:
        raise SparseConvValueError(f"features: must have shape (N, C), got {tuple(features.shape)}")


def _check_match(features: Tensor, rows: int, device: torch.device) -> None:
    if features.shape[0] != rows:
        raise SparseConvValueError(
            f"features: must have one row per site, got {features.shape[0]} rows for {rows} sites"
        )
    check_device("features", features, device, "site set")


def _checked_mask(t: Tensor, mask: Tensor) -> Tensor:
    """Return ``mask`` as bool ``[B, *spatial]``."""
    mask = as_bools("mask", mask)
    spatial = tuple(t.shape[2:])
    allowed = ((t.shape[0], 1, *spatial), (t.shape[0], *spatial))
    if tuple(mask.shape) not in (*allowed, (1, 1, *spatial), (1, *spatial)):
        raise SparseConvValueError(
            f"mask: must have shape {allowed[0]} or {allowed[1]}, got {tuple(mask.shape)}"
        )
    check_device("mask", mask, t.device, "tensor")
    return mask.reshape(mask.shape[0], *spatial).expand(allowed[1])
