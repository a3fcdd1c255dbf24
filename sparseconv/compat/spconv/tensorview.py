"""What programs use of ``cumm.tensorview``: arrays on their way into and out of a voxeliser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from sparseconv.compat.spconv.constants import Activation
from sparseconv.core.dtypes import Array

gemm = SimpleNamespace(Activation=Activation)


class Tensor:
    """A NumPy array under the name that ``cumm.tensorview`` gives to one."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def shape(self) -> list[int]:
        """Extent per axis."""
        return list(self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def dtype(self) -> Any:
        """Dtype of the array."""
        return self._array.dtype

    def numpy(self) -> Array:
        """Return a copy."""
        return self._array.copy()

    def numpy_view(self) -> Array:
        """Return the array itself."""
        return self._array


def from_numpy(arr: Array) -> Tensor:
    """Return an array as a tensor of this module."""
    return Tensor(np.asarray(arr))


def array_of(value: Any) -> Array:
    """Return the array of a tensor of this module, or of anything that NumPy reads."""
    return value.numpy_view() if isinstance(value, Tensor) else np.asarray(value)


__all__ = ["Tensor", "from_numpy", "gemm"]
