"""The paths under which programs import spconv, and which room holds what lies there."""

from __future__ import annotations

import importlib
from types import ModuleType

from sparseconv.compat import paths

_ROOMS = "sparseconv.compat.spconv"
# What spconv's modules of layers import themselves, and so have as well.
_BELOW = ("layers.containers", "layers.pairs", "tensor", "constants")
# The modules of spconv 2.x, and the rooms whose public names each of them has.
_PATHS = {
    "constants": ("constants",),
    "core": ("constants",),
    "utils": ("voxels",),
    "pytorch.constants": ("constants",),
    "pytorch.conv": ("layers.convolution", "layers.named", *_BELOW),
    "pytorch.core": ("tensor", "layers.pairs", "constants"),
    "pytorch.functional": ("functional", "tensor"),
    "pytorch.identity": ("layers.containers",),
    "pytorch.modules": ("layers.convolution", *_BELOW),
    "pytorch.ops": ("ops",),
    "pytorch.pool": ("layers.pooling", *_BELOW),
    "pytorch.tables": ("layers.tables", *_BELOW),
    "pytorch.utils": ("voxels",),
}


def modules(version: int) -> dict[str, ModuleType]:
    """Return the modules of a major version by the names that they are imported by."""
    if version == 1:
        flat = importlib.import_module(f"{_ROOMS}.flat")
        return {"spconv": flat} | {f"spconv.{path}": module for path, module in flat.PATHS.items()}
    found = paths.modules_at(_ROOMS, _PATHS, "spconv")
    found["spconv.pytorch"] = importlib.import_module(f"{_ROOMS}.pytorch")
    view = importlib.import_module(f"{_ROOMS}.tensorview")
    cumm = ModuleType("cumm", "What spconv's voxelisers take from it.")
    vars(cumm)["tensorview"] = view
    return found | {"cumm": cumm, "cumm.tensorview": view}


def mmcv_modules(version: int) -> dict[str, ModuleType]:
    """Return the sparse operators of mmcv, which are those of spconv 1.x."""
    return {"mmcv.ops": importlib.import_module(f"{_ROOMS}.flat")}


def lay_paths() -> None:
    """Let imports find the paths of spconv 2.x below this package, too."""
    paths.lay_paths(_ROOMS, _PATHS, "spconv")
