"""What layers with a kernel share: which coordinates they write, and the pairs."""

from __future__ import annotations

from typing import Any

from sparseconv.compat.minkowski.kernel import KernelGenerator, block, window
from sparseconv.compat.minkowski.keys import CoordinateMapKey, by, times
from sparseconv.compat.minkowski.layers.values import MinkowskiModuleBase
from sparseconv.compat.minkowski.tensor import SparseTensor
from sparseconv.core.arguments import check_kind
from sparseconv.core.geometry import Kind
from sparseconv.core.rulebook import Rulebook
from sparseconv.errors import SparseConvValueError


class WindowModule(MinkowskiModuleBase):
    """What modules with a kernel share.

    Attributes:
        kernel_generator: the shape of the kernel.
        dimension: number of spatial axes.
        is_transpose: whether it goes back to a finer tensor stride.
    """

    kernel_generator: KernelGenerator
    dimension: int
    is_transpose: bool = False

    def check_input(self, input: Any) -> None:
        """Raise unless the input is a tensor of the module's number of axes."""
        check_kind("input", input, SparseTensor, "a SparseTensor")
        if self.dimension != input.D:
            raise SparseConvValueError(
                f"input: has {input.D} spatial axes, this layer {self.dimension}"
            )

    def plan(
        self, input: SparseTensor, coordinates: Any = None, pool: bool = False
    ) -> tuple[CoordinateMapKey, Rulebook]:
        """Return the key of the output and the pairs.

        Args:
            input: of the layer.
            coordinates: on which to compute, a tensor, a key or integer ``[M, 1 + D]``.
            pool: whether a window as wide as the stride begins on its site, as pooling has it.
        """
        kernel, manager, key = self.kernel_generator, input.coordinate_manager, input.key
        numbers = (kernel.kernel_size, kernel.kernel_stride, kernel.kernel_dilation)
        stride, out = tuple(kernel.kernel_stride), None
        if coordinates is not None and not kernel.expand_coordinates:
            level = (by if self.is_transpose else times)(key.key[0], stride)
            out = manager.key_of(coordinates, level)
        elif self.is_transpose or kernel.expand_coordinates:
            kind = Kind.TRANSPOSED if self.is_transpose else Kind.REGULAR
            size, steps, dilation = (tuple(entries[::-1]) for entries in numbers)
            whole = pool and size == steps
            geometry = block(steps, kind) if whole else window(size, steps, dilation, kind)
            out, rulebook = manager.region(key, geometry, kernel.expand_coordinates)
            if rulebook is not None:
                return out, rulebook
        else:
            out = manager.stride(key, stride)
        return out, manager.pairs(key, out, numbers, self.is_transpose, pool)

    def __repr__(self) -> str:
        """Return the arguments."""
        kernel = self.kernel_generator
        return (
            f"{type(self).__name__}(kernel_size={kernel.kernel_size}, "
            f"stride={kernel.kernel_stride}, dilation={kernel.kernel_dilation})"
        )
