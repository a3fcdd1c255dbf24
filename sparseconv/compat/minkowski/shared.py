"""The coordinate manager that all tensors share, where that was asked for."""

from __future__ import annotations

from typing import Any

from sparseconv.compat.minkowski.constants import SparseTensorOperationMode
from sparseconv.compat.minkowski.manager import CoordinateManager
from sparseconv.core.arguments import check_kind
from sparseconv.errors import SparseConvTypeError


class _Shared:
    """The manager of all tensors, where one was asked for."""

    mode = SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
    manager: CoordinateManager | None = None


def set_sparse_tensor_operation_mode(operation_mode: SparseTensorOperationMode) -> None:
    """Let new tensors share one manager, or have one each."""
    check_kind(
        "operation_mode", operation_mode, SparseTensorOperationMode, "a SparseTensorOperationMode"
    )
    _Shared.mode = operation_mode


def sparse_tensor_operation_mode() -> SparseTensorOperationMode:
    """Return whether new tensors share one manager."""
    return _Shared.mode


def global_coordinate_manager() -> CoordinateManager | None:
    """Return the shared manager, None before the first tensor."""
    return _Shared.manager


def set_global_coordinate_manager(coordinate_manager: CoordinateManager | None) -> None:
    """Set the shared manager."""
    _Shared.manager = coordinate_manager


def clear_global_coordinate_manager() -> None:
    """Let the shared manager go."""
    _Shared.manager = None


def manager_for(dimension: int) -> CoordinateManager:
    """Return the manager of a new tensor that names none."""
    if _Shared.mode is SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER:
        return CoordinateManager(dimension)
    if _Shared.manager is None:
        _Shared.manager = CoordinateManager(dimension)
    return _Shared.manager


class CoordsManager:
    """The name that version 0.4 had."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise SparseConvTypeError("CoordsManager: is CoordinateManager since version 0.5")


__all__ = [
    "CoordsManager",
    "clear_global_coordinate_manager",
    "global_coordinate_manager",
    "set_global_coordinate_manager",
    "set_sparse_tensor_operation_mode",
    "sparse_tensor_operation_mode",
]
