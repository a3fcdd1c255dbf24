"""The table of convolutions, for whoever plans one, calls one, or asks what one reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseconv.core.geometry import Geometry, Kind, make_geometry, site_law

_REGULAR = ("stride", "padding", "dilation", "groups")
_ON_SITES = (*_REGULAR, "sites")
_TRANSPOSED = ("stride", "padding", "output_padding", "groups", "dilation")
_SUBMANIFOLD = ("dilation", "groups")
_PARTIAL = ("mask", "normalize")
_WINDOW = ("stride", "padding", "output_padding", "dilation")


@dataclass(frozen=True, eq=False)
class Convolution:
    """How a convolution is called, and which sites it joins.

    Attributes:
        name: of the function, PyTorch's or of :mod:`sparseconv.functional`.
        arguments: those behind ``input``, ``weight`` and ``bias``, in their order.
        kind: the site law of its geometry.
        axes: number of spatial axes; None where the weight tells it.
        inverse: whether it undoes the layer of its geometry.
        transposed: whether the weight is ``[C_in, C_out / groups, *kernel]``.
    """

    name: str
    arguments: tuple[str, ...]
    kind: Kind = Kind.REGULAR
    axes: int | None = None
    inverse: bool = False
    transposed: bool = False

    def bind(self, args: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments behind the bias by their names.

        Raises:
            TypeError: an argument that the convolution does not take, or that came twice.
        """
        bound = dict(zip(self.arguments, args, strict=False))
        got = f"{3 + len(args)} arguments" if len(args) > len(self.arguments) else ""
        for name in options:
            if name in bound or name not in self.arguments:
                got = name
        if got:
            raise TypeError(
                f"{self.name}() takes input, weight, bias, {', '.join(self.arguments)}, each at "
                f"most once, got {got}"
            )
        return bound | options

    def geometry(self, kernel_size: Sequence[int], bound: dict[str, Any]) -> Geometry:
        """Return the checked geometry of a call with the ``bound`` arguments."""
        window = {name: bound[name] for name in _WINDOW if name in bound}
        kind = site_law(bound["sites"]) if "sites" in bound else self.kind
        return make_geometry(kernel_size, kind=kind, **window)


def _table() -> dict[str, Convolution]:
    """Return the convolutions by name."""
    found = [
        Convolution("conv", _ON_SITES),
        Convolution("conv_transpose", _TRANSPOSED, Kind.TRANSPOSED, transposed=True),
        Convolution("subm_conv", _SUBMANIFOLD, Kind.SUBMANIFOLD),
        Convolution("inverse_conv", _ON_SITES, inverse=True, transposed=True),
        Convolution("conv4d", _ON_SITES, axes=4),
        Convolution("partial_conv", (*_REGULAR, *_PARTIAL)),
        Convolution("subm_partial_conv", (*_SUBMANIFOLD, *_PARTIAL), Kind.SUBMANIFOLD),
        Convolution(
            "partial_conv_transpose", (*_TRANSPOSED, *_PARTIAL), Kind.TRANSPOSED, transposed=True
        ),
    ]
    for axes in (1, 2, 3):  # PyTorch's own
        found.append(Convolution(f"conv{axes}d", _REGULAR, axes=axes))
        found.append(
            Convolution(
                f"conv_transpose{axes}d", _TRANSPOSED, Kind.TRANSPOSED, axes, transposed=True
            )
        )
    return {convolution.name: convolution for convolution in found}


CONVOLUTIONS = _table()


def line_of(function: Any) -> Convolution:
    """Return a function's line of the table."""
    return CONVOLUTIONS[function.__name__]
