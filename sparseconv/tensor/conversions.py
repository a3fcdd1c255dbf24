"""The tensor in another dtype, on another device, or cut off from autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sparseconv.tensor.base import Features

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self


class Conversions(Features):
    """Features in another dtype or place, on sites in the same place."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the tensor in another dtype or on another device; arguments as of torch's.

        A ``memory_format`` is of the dense tensor, and says nothing here.
        """
        kwargs.pop("memory_format", None)
        like: Any = [entry.features if isinstance(entry, Features) else entry for entry in args]
        features = self.features.to(*like, **kwargs) if like or kwargs else self.features
        sites = self.sites.to(features.device, kwargs.get("non_blocking", False))
        return self.on_sites(features, sites)

    def cpu(self) -> Self:
        """Return the tensor on the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | str | torch.device | None = None) -> Self:
        """Return the tensor on a CUDA device."""
        return self.to(torch.device("cuda" if device is None else device))

    def half(self) -> Self:
        """Return the features in float16."""
        return self.replace(self.features.half())

    def bfloat16(self) -> Self:
        """Return the features in bfloat16."""
        return self.replace(self.features.bfloat16())

    def float(self) -> Self:
        """Return the features in float32."""
        return self.replace(self.features.float())

    def double(self) -> Self:
        """Return the features in float64."""
        return self.replace(self.features.double())

    def detach(self) -> Self:
        """Return the tensor cut off from autograd's graph."""
        return self.replace(self.features.detach())

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let autograd follow the features from here on; returns the tensor itself."""
        self.features.requires_grad_(requires_grad)
        return self

    def type_as(self, other: Tensor | Features) -> Self:
        """Return the tensor in the dtype and on the device of another."""
        return self.to(other.device, other.dtype)
