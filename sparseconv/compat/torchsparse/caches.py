"""What tensors of one input share, and whether all tensors share it."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sparseconv.compat.place import Place
from sparseconv.core.arguments import check_kind


class TensorCacheMode(Enum):
    """Whether tensors share one cache."""

    SEPARATE_TENSOR_CACHE = 0
    GLOBAL_TENSOR_CACHE = 1


class TensorCache:
    """Coordinates by stride, and the maps of layers by their sizes.

    Attributes:
        cmaps: the coordinates of each stride that a tensor of this input has had, in 2.x with the
            extent.
        kmaps: the pairs of each layer, by stride, kernel size, its own stride, and dilation.
        hashmaps: stays empty: sites have an index of their own.
        places: where the rows of these coordinates lie, by the numbers of the coordinates.
    """

    def __init__(self) -> None:
        self.cmaps: dict[Any, Any] = {}
        self.kmaps: dict[Any, Any] = {}
        self.hashmaps: dict[Any, Any] = {}
        self.places: dict[int, Place] = {}

    def keep(self, place: Place) -> Place:
        """Return a place, whose sites live as long as the tensors of this input from now on."""
        self.places[id(place.indices)] = place
        return place


class _Shared:
    mode = TensorCacheMode.SEPARATE_TENSOR_CACHE
    cache: TensorCache | None = None


def set_tensor_cache_mode(mode: TensorCacheMode) -> None:
    """Let new tensors share one cache, or have one each."""
    check_kind("mode", mode, TensorCacheMode, "a TensorCacheMode")
    _Shared.mode = mode


def get_tensor_cache_mode() -> TensorCacheMode:
    """Return whether new tensors share one cache."""
    return _Shared.mode


def get_global_tensor_cache() -> TensorCache | None:
    """Return the shared cache, None before the first tensor."""
    return _Shared.cache


def set_global_tensor_cache(tensor_cache: TensorCache | None) -> None:
    """Set the shared cache."""
    _Shared.cache = tensor_cache


def clear_global_tensor_cache() -> None:
    """Let the shared cache go."""
    _Shared.cache = None


def new_cache() -> TensorCache:
    """Return the cache of a new tensor."""
    if _Shared.mode is TensorCacheMode.SEPARATE_TENSOR_CACHE:
        return TensorCache()
    if _Shared.cache is None:
        _Shared.cache = TensorCache()
    return _Shared.cache


__all__ = [
    "TensorCache",
    "TensorCacheMode",
    "clear_global_tensor_cache",
    "get_global_tensor_cache",
    "get_tensor_cache_mode",
    "set_global_tensor_cache",
    "set_tensor_cache_mode",
]
