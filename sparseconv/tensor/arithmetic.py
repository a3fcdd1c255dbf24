"""The operators of arithmetic, each the torch function behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from sparseconv.core.dispatch import handler_of
from sparseconv.tensor.base import Features
from sparseconv.tensor.methods import Methods

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = TypeVar("Kind", bound=Features)


class Arithmetic(Features):
    """What ``+ - * /`` mean."""

    def __add__(self, other: Any) -> Self:
        """Return ``self + other``; see :mod:`sparseconv.functional.values.arithmetic`."""
        return _call(self, torch.add, self, other)

    def __radd__(self, other: Any) -> Self:
        """Return ``other + self``."""
        return _call(self, torch.add, other, self)

    def __sub__(self, other: Any) -> Self:
        """Return ``self - other``."""
        return _call(self, torch.sub, self, other)

    def __rsub__(self, other: Any) -> Self:
        """Return ``other - self``."""
        return _call(self, torch.sub, other, self)

    def __mul__(self, other: Any) -> Self:
        """Return ``self * other``."""
        return _call(self, torch.mul, self, other)

    def __rmul__(self, other: Any) -> Self:
        """Return ``other * self``."""
        return _call(self, torch.mul, other, self)

    def __truediv__(self, other: Any) -> Self:
        """Return ``self / other``."""
        return _call(self, torch.div, self, other)

    def __rtruediv__(self, other: Any) -> Self:
        """Return ``other / self``."""
        return _call(self, torch.div, other, self)

    def __neg__(self) -> Self:
        """Return ``-self``."""
        return self.replace(-self.features)


def _call(x: Kind, function: Callable[..., Any], *args: Any) -> Kind:
    """Return what the function is of operands, ``x`` among them."""
    for operand in args:
        if isinstance(operand, Methods) and not isinstance(operand, Features):
            return cast(Kind, NotImplemented)  # the other kind knows what to do with both
    result: Kind = handler_of(function)(*args)
    return result
