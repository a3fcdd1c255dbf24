"""The names of MinkowskiEngine 0.5: ``import sparseconv.compat.minkowski as ME``.

base, tensor, field: the tensors. keys, levels, manager, shared: their coordinates by key. kernel:
the shape of kernels. layers: the modules. functional: functions of the features. modules: blocks.
utils: collation and quantization. constants: choices. namespace: the paths of its modules.
"""

from typing import Any as _Any

from sparseconv.compat.minkowski import (
    constants,
    field,
    functional,
    kernel,
    manager,
    modules,
    shared,
    tensor,
    utils,
)
from sparseconv.compat.minkowski.layers import (
    broadcast,
    convolution,
    norm,
    pooling,
    sets,
    stacks,
    values,
)
from sparseconv.compat.minkowski.namespace import lay_paths as _lay_paths
from sparseconv.compat.paths import public_names as _public_names

MinkowskiFunctional, MinkowskiOps = functional, stacks
__version__ = constants.VERSION
_NAMES = _public_names(
    *(constants, field, kernel, manager, shared, tensor),
    *(broadcast, convolution, norm, pooling, sets, stacks, values),
)
globals().update(_NAMES)
_lay_paths()

__all__ = ["MinkowskiFunctional", "MinkowskiOps", "__version__", "modules", "utils"]
__all__ += list(_NAMES)


def __getattr__(name: str) -> _Any:
    """Raise for what is not here; type checkers take it for the names above."""
    raise AttributeError(f"MinkowskiEngine has no attribute {name!r} in sparseconv.compat")
