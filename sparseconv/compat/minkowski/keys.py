"""Keys of coordinates, and tensor strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparseconv.core.arguments import Ints
from sparseconv.errors import SparseConvValueError

Key = tuple[Ints, str]


class CoordinateMapKey:
    """Which set of coordinates a tensor lies on: a tensor stride and a name.

    Args:
        coordinate_size: 1 + D, for a key that is set later; or the tensor stride, one per axis.
        string_id: the name of a set beside others of its tensor stride.
    """

    def __init__(self, coordinate_size: int | Sequence[int], string_id: str = "") -> None:
        self._key: Key | None = None
        if isinstance(coordinate_size, int):
            self._size = coordinate_size
        else:
            self._size = len(coordinate_size) + 1
            self.set_key(coordinate_size, string_id)

    def set_key(self, tensor_stride: Any, string_id: str | None = None) -> None:
        """Set the key, from its two parts or from what :meth:`get_key` returns."""
        if string_id is None:
            tensor_stride, string_id = tensor_stride
        self._key = tuple(int(entry) for entry in tensor_stride), str(string_id)

    def is_key_set(self) -> bool:
        """Return whether the key is set."""
        return self._key is not None

    @property
    def key(self) -> Key:
        """The tensor stride and the name.

        Raises:
            SparseConvValueError: they are not set.
        """
        if self._key is None:
            raise SparseConvValueError("coordinate_map_key: is not set")
        return self._key

    def get_key(self) -> tuple[list[int], str]:
        """Return the tensor stride and the name."""
        return list(self.key[0]), self.key[1]

    def get_tensor_stride(self) -> list[int]:
        """Return the tensor stride, one per axis."""
        return list(self.key[0])

    def get_coordinate_size(self) -> int:
        """Return 1 + D."""
        return self._size

    def __eq__(self, other: object) -> bool:
        """Return whether both are set, to the same."""
        return isinstance(other, CoordinateMapKey) and None is not self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        """Return the key."""
        return f"coordinate map key:{self._key}"


def times(stride: Ints, steps: Ints) -> Ints:
    """Return the tensor stride after a layer of so many steps."""
    return tuple(a * b for a, b in zip(stride, steps, strict=True))


def by(stride: Ints, steps: Ints) -> Ints:
    """Return the tensor stride after a transposed layer of so many steps."""
    if any(a % b for a, b in zip(stride, steps, strict=True)):
        raise SparseConvValueError(
            f"stride: must divide the tensor stride {list(stride)}, got {list(steps)}"
        )
    return tuple(a // b for a, b in zip(stride, steps, strict=True))


def ratio(coarse: Ints, fine: Ints) -> Ints:
    """Return the step between two tensor strides, 1 between origins."""
    if any(b and (a % b or a < b) for a, b in zip(coarse, fine, strict=True)):
        raise SparseConvValueError(
            f"coordinates: tensor stride {list(coarse)} must be a multiple of {list(fine)}"
        )
    return tuple(a // b if b else 1 for a, b in zip(coarse, fine, strict=True))


__all__ = ["CoordinateMapKey"]
