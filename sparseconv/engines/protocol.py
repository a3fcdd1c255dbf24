"""What an engine is: a module with the functions below, no state, the same bits twice.

Arguments are checked above the engines, once; an engine may trust them. Products and sums add in
an order that depends on nothing but the pairs of one output row, so that results do not change
with the number of threads, the order of other rows or what a sample is batched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sparseconv.core.geometry import Geometry
from sparseconv.core.index import Index, Packing
from sparseconv.core.rulebook import Rulebook, Taps


class Epilogue(NamedTuple):
    """What is done to each row of a product: ``relu(row * factor + bias + other)``.

    Attributes:
        bias: ``[G * c_out]`` or None.
        other: ``[n_out, G * c_out]`` or None.
        relu: whether negative values become 0.
        factor: ``[n_out, 1]`` or None; float32 for half precisions.
    """

    bias: Tensor | None = None
    other: Tensor | None = None
    relu: bool = False
    factor: Tensor | None = None

    def apply(self, rows: Tensor) -> Tensor:
        """Return ``rows`` with the epilogue, step by step."""
        dtype = rows.dtype
        if self.factor is not None:
            rows = rows * self.factor
        if self.bias is not None:
            rows = rows + self.bias
        if self.other is not None:
            rows = rows + self.other
        return (torch.relu(rows) if self.relu else rows).to(dtype)


def running_affine(
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift ``[C]``, in ``dtype``, by which rows are normalised."""
    scale = (variance.to(dtype) + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.to(dtype)
    shift = -mean.to(dtype) * scale
    return scale, shift if bias is None else shift + bias.to(dtype)


class Engine(Protocol):
    """The contract; :mod:`sparseconv.engines.torch.engine` is its plain version."""

    def why_not(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Return why this engine cannot run there, or None if it can."""

    def bounds(self, coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the smallest and the largest value per column of ``coords`` ``[N, 1 + D]``."""

    def build_index(self, coords: Tensor, packing: Packing) -> Index:
        """Return the index of integer ``coords`` ``[N, 1 + D]``, which lie in the packing's box.

        Rows at one place stay next to each other, in their order.
        """

    def ascends(self, keys: Tensor) -> bool:
        """Return whether each of the int64 ``keys`` is larger than the one before."""

    def lookup(self, index: Index, keys: Tensor) -> Tensor:
        """Return the int64 rows ``[M]`` of ``keys`` ``[M]``, -1 where a key is absent."""

    def reached_keys(self, index: Index, geometry: Geometry, packing: Packing) -> Tensor:
        """Return the ascending keys (in ``packing``) of the sites that the site law makes active.

        ``packing`` bounds them: a site outside its box is not made active.
        """

    def build_rulebook(self, fine: Index, coarse: Index, geometry: Geometry) -> Rulebook:
        """Return the pairs (fine row, coarse row): ``i = o * stride - padding + k * dilation``."""

    def gather_gemm_scatter(self, features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
        """Return ``out[o] = sum over pairs (k, i, o) of features[i] @ weight[k]``.

        ``features`` ``[n_in, G * c_in]``, ``weight`` ``[K, G, c_in, c_out]``, result
        ``[n_out, G * c_out]``; half precisions accumulate in float32.
        """

    def pack_weight(self, weight: Tensor) -> Any:
        """Return ``weight`` ``[K, G, c_in, c_out]`` as :meth:`gather_gemm_epilogue` takes it."""

    def gather_gemm_epilogue(
        self, features: Tensor, packed: Any, rulebook: Rulebook, epilogue: Epilogue
    ) -> Tensor:
        """Return :meth:`gather_gemm_scatter`, of a packed weight, with its epilogue.

        It has no derivative.
        """

    def gather_gemm_reduce(
        self, features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int
    ) -> Tensor:
        """Return ``weight[k] = sum over pairs (k, i, o) of features[i]^T @ grad[o]``.

        ``features`` ``[n_in, G * c_in]``, ``grad`` ``[n_out, G * c_out]``, result
        ``[K, G, c_in, c_out]``; half precisions accumulate in float32.
        """

    def scaled_rows(self, rows: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``rows * factor`` in the dtype of ``rows`` ``[N, C]``, and the sum of ``rows``.

        ``factor`` is ``[N, 1]`` or ``[N, C]``, float32 for half precisions.
        """

    def column_sum(self, rows: Tensor) -> Tensor:
        """Return the sum ``[C]`` of ``rows`` ``[N, C]``, in an order that N alone decides."""

    def normalised_rows(
        self,
        rows: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        """Return ``(rows - mean) / sqrt(variance + eps) * weight + bias``; no derivative.

        ``rows`` are ``[N, C]``, all others ``[C]``; None is 1 and 0.
        """

    def segment_sum(self, values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        """Return the sums ``[S, C]`` of ``values`` ``[N, C]`` over segments of rows.

        Segment ``s`` holds the rows ``order[starts[s]:starts[s + 1]]``, added in this order.
        """

    def segment_statistics(
        self, values: Tensor, order: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums ``[S, C]`` over segments, and of the squares of what is off their means.

        Segments as of :meth:`segment_sum`; float32 for half precisions.
        """

    def merge_statistics(
        self, sums: Tensor, squares: Tensor, counts: Tensor, order: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums, squares off the mean, and numbers of rows of segments of segments.

        ``sums``, ``squares`` ``[N, C]`` and int64 ``counts`` ``[N]`` are those of the parts;
        segments as of :meth:`segment_sum`.

        Source:
            Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
            sample variances", equation 2.1, for any number of parts.
        """

    def segment_moment(
        self, left: Tensor, right: Tensor, centre: Tensor, order: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sums ``[S, C]`` of ``right``, and of ``(left - centre) * right``.

        ``left``, ``right`` ``[N, C]``, ``centre`` ``[S, C]`` (float32 for half precisions, as are
        the sums); segments as of :meth:`segment_sum`.
        """

    def affine_rows(
        self, terms: Sequence[tuple[Tensor, Tensor]], shift: Tensor, segment: Tensor | None
    ) -> Tensor:
        """Return ``sum of rows * scale[segment], + shift[segment]`` over one or two terms.

        A term is rows ``[N, C]`` and their scale ``[S, C]``; ``shift`` ``[S, C]``, ``segment``
        int64 ``[N]`` or None where S is 1. The result has the dtype of the rows, the scales and
        the shift are float32 for half precisions.
        """

    def segment_argmax(self, values: Tensor, order: Tensor, starts: Tensor) -> Tensor:
        """Return int64 ``[S, C]``: the row of each (non-empty) segment's first largest value.

        NaN counts as larger than everything.
        """

    def window_max(self, features: Tensor, rulebook: Rulebook) -> Tensor:
        """Return the first result of :meth:`window_argmax`."""

    def window_argmax(self, features: Tensor, rulebook: Rulebook) -> tuple[Tensor, Tensor]:
        """Return each window's first largest value, and (int16 or 32) the cell that holds it.

        Both ``[n_out, C]``. A window holds the rows ``i`` of the pairs ``(k, i, o)`` in the order
        of their cells; 0 and any number where it holds none. NaN counts as larger than everything,
        the last one most of all, as in torch's max pooling.
        """

    def window_sum(self, features: Tensor, rulebook: Rulebook, divisor: float) -> Tensor:
        """Return ``out[o] = sum over pairs (k, i, o) of features[i] / divisor``, ``[n_out, C]``.

        Half precisions are added and divided in float32.
        """

    def window_scatter(self, values: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
        """Return ``out[i, c] = sum of values[o, c]`` over pairs ``(k, i, o)`` that were chosen.

        That is, ``chosen[o, c] = k``. ``values`` and ``chosen`` (of :meth:`window_argmax`)
        ``[n_out, C]``, result ``[n_in, C]``; half precisions accumulate in float32.
        """

    def window_pick(self, features: Tensor, chosen: Tensor, rulebook: Rulebook) -> Tensor:
        """Return ``out[o, c] = features[i, c]`` of the pair ``(k, i, o)`` that was chosen.

        ``chosen`` (of :meth:`window_argmax`) and result ``[n_out, C]``; 0 in an empty window.
        """

    def sample_gemm(self, features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
        """Return ``out[o] = sum over k, q of shares[h, k, q, o] * features[i] @ weight[k]``.

        ``i = taps.rows[h, k, q, o]``, where h is the offset group of the channel; an absent row
        counts 0. ``features`` ``[n_in, G * c_in]``, ``shares`` ``[H, K, Q, n_out]``, ``weight``
        ``[K, G, c_in, c_out]``, result ``[n_out, G * c_out]``; half precisions accumulate in
        float32.
        """

    def sample_gemm_grads(
        self, features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of ``<sample_gemm(features, shares, weight), grad>`` by the three.

        ``grad`` ``[n_out, G * c_out]``; an absent row's share has the gradient 0.
        """
