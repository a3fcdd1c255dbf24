"""The paths under which programs import spconv, and which room holds what lies there."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

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
    root = importlib.import_module(_ROOMS)
    found = {"spconv": root, "spconv.pytorch": root.pytorch}
    found |= {f"spconv.{path}": sys.modules[f"{_ROOMS}.{path}"] for path in _PATHS}
    view = importlib.import_module(f"{_ROOMS}.tensorview")
    cumm = ModuleType("cumm", "What spconv's voxelisers take from it.")
    vars(cumm)["tensorview"] = view
    return found | {"cumm": cumm, "cumm.tensorview": view}


def mmcv_modules(version: int) -> dict[str, ModuleType]:
    """Return the sparse operators of mmcv, which are those of spconv 1.x."""
    return {"mmcv.ops": importlib.import_module(f"{_ROOMS}.flat")}


def lay_paths() -> None:
    """Let imports find the paths of spconv 2.x below this package, too."""
    for path, rooms in _PATHS.items():
        held = [importlib.import_module(f"{_ROOMS}.{room}") for room in rooms]
        name = f"{_ROOMS}.{path}"
        module = held[0]
        if len(held) > 1:
            module = ModuleType(name, f"``spconv.{path}``: {', '.join(rooms)}.")
            vars(module).update(
                {public: getattr(room, public) for room in held for public in room.__all__}
            )
        sys.modules.setdefault(name, module)
        parent, _, last = name.rpartition(".")
        setattr(sys.modules[parent], last, module)
