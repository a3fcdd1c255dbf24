"""A tensor and its mask as one value: partial layers chain through ``torch.nn.Sequential``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.arguments import came
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.tensor import SparseTensor


class Masked(tuple[Any, Tensor]):
    """The pair ``(x, mask)``: functions act on ``x``, and the mask stays with the result.

    Partial layers return one where they are given a pair, and it unpacks as one. What changes the
    grid changes the mask too only where that is plain, as in nearest interpolation.
    """

    __slots__ = ()

    def __new__(cls, values: Any, mask: Tensor) -> Masked:
        """Make the pair."""
        return super().__new__(cls, (values, mask))

    @property
    def shape(self) -> Any:
        """Shape of the values."""
        return self[0].shape

    @property
    def ndim(self) -> int:
        """Number of axes of the values."""
        return len(self.shape)

    def dim(self) -> int:
        """Return the number of axes of the values."""
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        """Return the shape of the values, or one entry of it."""
        return self.shape if dim is None else self.shape[dim]

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a function on the values.

        Raises:
            SparseConvError: it changes the grid, or takes several pairs.
        """
        operands = [*args, *(kwargs or {}).values()]
        pairs = [operand for operand in operands if isinstance(operand, Masked)]
        if len(pairs) != 1:
            raise SparseConvTypeError(
                f"{function.__name__}: unpack the pairs (x, mask) and say what becomes of the "
                f"masks, it takes one pair here, got {len(pairs)}"
            )
        values, mask = pairs[0]
        plain = [values if isinstance(operand, Masked) else operand for operand in args]
        named = {
            name: values if isinstance(operand, Masked) else operand
            for name, operand in (kwargs or {}).items()
        }
        result = function(*plain, **named)
        return Masked(result, _mask_of(result, values, mask, function, (plain, named)))


def _mask_of(
    result: Any,
    values: Any,
    mask: Tensor,
    function: Callable[..., Any],
    call: tuple[list[Any], dict[str, Any]],
) -> Tensor:
    """Return the mask of a function's result."""
    if isinstance(result, Tensor | SparseTensor):
        sparse = isinstance(result, SparseTensor) and isinstance(values, SparseTensor)
        stays = (result.shape[0], *result.shape[2:]) == (values.shape[0], *values.shape[2:])
        if isinstance(result, SparseTensor) and isinstance(values, SparseTensor):
            stays = result.sites.same_as(values.sites)
        if stays and mask.shape[1] in (1, result.shape[1]):
            return mask
        if not sparse and function is F.interpolate and _is_nearest(call):
            larger: Tensor = _called_with(function, mask.to(result.dtype), call)
            return larger > 0
    raise SparseConvValueError(
        f"{function.__name__}: unpack the pair (x, mask), or use a layer of sparseconv.nn that "
        f"takes one: the mask of shape {tuple(mask.shape)} does not fit the result, "
        f"{came(result)}"
    )


def _is_nearest(call: tuple[list[Any], dict[str, Any]]) -> bool:
    args, kwargs = call
    mode = args[3] if len(args) > 3 else kwargs.get("mode", "nearest")
    return mode in ("nearest", "nearest-exact")


def _called_with(
    function: Callable[..., Any], input: Any, call: tuple[list[Any], dict[str, Any]]
) -> Any:
    """Return a function's result for another input than the call's first one."""
    args, kwargs = call
    if args:
        return function(input, *args[1:], **kwargs)
    return function(**{**kwargs, "input": input})
