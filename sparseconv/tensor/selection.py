"""Samples and channels of the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from sparseconv.core.dispatch import handler_of
from sparseconv.errors import SparseConvTypeError
from sparseconv.sites.batches import some_samples
from sparseconv.tensor.base import Features
from sparseconv.tensor.checks import is_slice, shown_index

if TYPE_CHECKING:
    from typing_extensions import Self


class Selection(Features):
    """What an index takes."""

    def __getitem__(self, samples: int | slice | tuple[Any, ...]) -> Self:
        """Return one sample (a batch of one) or a slice of the batch, ``x[:, a:b]`` of channels."""
        if isinstance(samples, tuple):
            return self._some_channels(*samples)
        if not isinstance(samples, int) and not is_slice(samples):
            raise SparseConvTypeError(
                f"x[...]: takes the index of a sample or a slice of samples, "
                f"got {shown_index(samples)}"
            )
        if isinstance(samples, int) and not -len(self) <= samples < len(self):
            raise IndexError(f"sample {samples} is out of range for batch_size {len(self)}")
        chosen = range(len(self))[samples]
        numbers = [chosen] if isinstance(chosen, int) else list(chosen)
        rows, sites = some_samples(self.sites, numbers)
        return self.on_sites(self.features[rows], sites)

    def _some_channels(
        self, samples: Any = slice(None), channels: Any = slice(None), *rest: Any
    ) -> Self:
        """Return a slice of the channels of some samples; the spatial axes stay."""
        whole = all(
            entry is Ellipsis or (isinstance(entry, slice) and entry == slice(None))
            for entry in rest
        )
        forward = is_slice(channels) and (channels.step is None or channels.step > 0)
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
    ) -> Sequence[Self]:
        """Return the samples, each a batch of one; given sizes and ``dim=1``, parts of channels."""
        if split_size_or_sections is None:
            return [self[sample] for sample in range(len(self))]
        split = handler_of(torch.split)
        parts: Sequence[Self] = split(self, split_size_or_sections, dim)
        return parts
