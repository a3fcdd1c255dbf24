"""The names of spconv: `sparseconv.compat.spconv.pytorch` is what `spconv.pytorch` is there.

pytorch: all names of `spconv.pytorch`. tensor: the tensor. place: where its rows lie. layers: the
modules. functional: sums of several tensors. ops: extents and pairs. voxels: from points to
voxels. tensorview: arrays as `cumm` calls them. constants: choices without effect. flat: the names
of spconv 1.x and of mmcv's fork. namespace: the paths of spconv's modules.
"""

from typing import Any

from sparseconv.compat.spconv import constants, pytorch
from sparseconv.compat.spconv.constants import SPCONV_VERSION_NUMBERS, AlgoHint, ConvAlgo
from sparseconv.compat.spconv.constants import VERSION as __version__
from sparseconv.compat.spconv.namespace import lay_paths

lay_paths()

__all__ = ["SPCONV_VERSION_NUMBERS", "AlgoHint", "ConvAlgo", "__version__", "constants", "pytorch"]


def __getattr__(name: str) -> Any:
    """Return a name of `spconv.pytorch`, where spconv 1.x has it."""
    if name in pytorch.__all__:
        return getattr(pytorch, name)
    raise AttributeError(f"spconv has no attribute {name!r}")
