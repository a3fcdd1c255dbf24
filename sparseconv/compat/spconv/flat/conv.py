"""The convolutions of spconv 1.x, whose weights are ``[*kernel, C_in, C_out]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparseconv.compat.spconv.layers import convolution, named


class SparseConvolution(convolution.SparseConvolution):
    """Base of all convolutions: as that of version 2, but for the weight's layout."""

    checkpoint_layout = "spconv-1"

    def __init__(self, *args: Any, use_hash: bool = False, **kwargs: Any) -> None:
        """Make the layer; ``use_hash`` is taken without effect."""
        super().__init__(*args, **kwargs)

    def _weight_shape(self) -> list[int]:
        return [*self.kernel_size, self.in_channels, self.out_channels]

    def _weight_cells(self) -> Tensor:
        return self.weight.reshape(-1, 1, self.in_channels, self.out_channels)


for _name in named.__all__:
    _current = getattr(named, _name)
    _members = {"__doc__": _current.__doc__, "__module__": __name__}
    globals()[_name] = type(_name, (SparseConvolution, _current), _members)

__all__ = ["SparseConvolution"]
__all__ += named.__all__

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # those that the loop makes
