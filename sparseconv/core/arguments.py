"""Checks of arguments, each written once: the text is ``name: must be ..., got ...``."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sparseconv.core.dtypes import INTEGERS
from sparseconv.errors import SparseConvTypeError, SparseConvValueError

Ints: TypeAlias = tuple[int, ...]
Size: TypeAlias = int | Sequence[int]
_INT = frozenset((int,))
LARGEST = 2**31 - 1  # larger strides and the like could overflow 64-bit coordinates


def came(value: Any) -> str:
    """Return what an error says that it got instead: the kind of the value.

    >>> came([1]), came(torch.zeros(3, 4))
    ('list', 'float32 (3, 4)')
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def check_kind(name: str, value: Any, kind: Any, text: str) -> None:
    """Raise unless ``value`` is an instance of ``kind``, which ``text`` names."""
    if not isinstance(value, kind):
        raise SparseConvTypeError(f"{name}: must be {text}, got {came(value)}")


def check_tensor(name: str, value: Any) -> None:
    """Raise unless ``value`` is a dense tensor."""
    check_kind(name, value, Tensor, "a torch.Tensor")


def check_floating(name: str, value: Any) -> None:
    """Raise unless ``value`` is a dense tensor of floating point numbers."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise SparseConvTypeError(
            f"{name}: must be a floating point torch.Tensor, got {came(value)}"
        )


def check_bools(name: str, value: Any, hint: str = "") -> None:
    """Raise unless ``value`` is a dense bool tensor; ``hint`` ends the message."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        raise SparseConvTypeError(f"{name}: must be a bool torch.Tensor, got {came(value)}{hint}")


def as_bools(name: str, value: Any) -> Tensor:
    """Return a mask as bools: of numbers, where all of them are 0 or 1.

    Raises:
        SparseConvTypeError: it is no dense tensor, or holds other numbers.
    """
    if isinstance(value, Tensor) and value.dtype != torch.bool and not value.is_complex():
        bools = value != 0
        if bool((bools == value).all()):
            return bools
    check_bools(name, value, "; mask > 0 makes one of numbers that are not 0 and 1")
    checked: Tensor = value
    return checked


def check_integers(name: str, value: Any, hint: str = "") -> None:
    """Raise unless ``value`` is a dense tensor of integers; ``hint`` ends the message."""
    if not isinstance(value, Tensor) or value.dtype not in INTEGERS:
        raise SparseConvTypeError(
            f"{name}: must be an integer torch.Tensor, got {came(value)}{hint}"
        )


def check_device(name: str, value: Any, device: torch.device, other: str = "input") -> None:
    """Raise unless a tensor is on the device that the tensor called ``other`` is on."""
    if value.device != device:
        raise SparseConvTypeError(
            f"{name}: must be on {device} as the {other} is, got {value.device}; move one of them"
        )


def is_int(value: Any) -> bool:
    """Return whether this is an int, which a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether this is an int or a float, which a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_int(name: str, value: Any, least: int | None = None) -> int:
    """Return an integer of any library as Python's own.

    Raises:
        SparseConvTypeError: it is no integer, or a bool.
        SparseConvValueError: it is smaller than ``least``.
    """
    number = plain(value)
    if not is_int(number):
        raise SparseConvTypeError(f"{name}: must be an int, got {value!r}")
    if least is not None and number < least:
        raise SparseConvValueError(f"{name}: must be at least {least}, got {number}")
    return int(number)


def per_axis(name: str, value: Any, axes: int, least: int = 1) -> Ints:
    """Return one number, or one per axis, as ``axes`` ints.

    Args:
        name: the argument's.
        value: an int, or a sequence or an array of any library with one entry or ``axes``.
        axes: the number of spatial axes.
        least: the smallest legal entry; the largest is :data:`LARGEST`.

    Raises:
        SparseConvTypeError: an entry that is no integer.
        SparseConvValueError: another number of entries, an entry out of range.

    >>> per_axis("stride", 2, 3), per_axis("padding", [0, 1], 2, least=0)
    ((2, 2, 2), (0, 1))
    """
    # the common cases, at every call
    if type(value) is int and least <= value <= LARGEST:
        return (value,) * axes
    if type(value) is tuple and len(value) == axes and _INT.issuperset(map(type, value)):
        values: tuple[Any, ...] = value
    else:
        values = numbers_per_axis(name, value, axes)
    if not _INT.issuperset(map(type, values)) and not all(map(is_int, values)):
        raise SparseConvTypeError(f"{name}: must be integers, got {values}")
    if max(values, default=least) > LARGEST:
        raise SparseConvValueError(f"{name}: must be at most {LARGEST}, got {values}")
    if min(values, default=least) < least:
        raise SparseConvValueError(f"{name}: must be at least {least}, got {values}")
    return values


def numbers_per_axis(name: str, value: Any, axes: int) -> tuple[Any, ...]:
    """Return one number, or one per axis, as ``axes`` ints or floats, with no bounds.

    Raises:
        SparseConvTypeError: an entry that is no number.
        SparseConvValueError: another number of entries.
    """
    values = entries_of(value)
    if values is None:
        if not isinstance(value, int | float) and not hasattr(value, "__index__"):
            raise SparseConvTypeError(f"{name}: must be one number or one per axis, got {value!r}")
        values = (value,)
    values = tuple(map(plain, values))
    if len(values) == 1:
        values = values * axes
    if len(values) != axes:
        raise SparseConvValueError(
            f"{name}: must be one number or {axes} (one per axis), got {len(values)}: {values}"
        )
    if not all(map(is_number, values)):
        raise SparseConvTypeError(f"{name}: must be numbers, got {values}")
    return values


def entries_of(value: Any) -> tuple[Any, ...] | None:
    """Return the entries of a sequence or of an array of any library, None for anything else."""
    if isinstance(value, int | float | str):
        return None
    if isinstance(value, Sequence):
        return tuple(value)
    listed = value.tolist() if hasattr(value, "tolist") else None
    return tuple(listed) if isinstance(listed, list) else None


def plain(entry: Any) -> Any:
    """Return an integer of any library as Python's own, and anything else as it is."""
    if isinstance(entry, int | float) or not hasattr(entry, "__index__"):
        return entry
    try:
        return operator.index(entry)
    except TypeError:  # an array of several numbers has the method, too
        return entry
