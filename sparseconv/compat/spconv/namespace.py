"""The paths under which programs import spconv, and which room holds what lies there."""

from __future__ import annotations

import importlib
from types import ModuleType

_ROOMS = "sparseconv.compat.spconv"
# The modules of spconv 2.x below its root, and the rooms whose public names each of them has.
_PATHS = {
    "pytorch.core": ("tensor",),
}


def modules(version: int) -> dict[str, ModuleType]:
    """Return the modules of a major version by the names that they are imported by."""
    root = importlib.import_module(_ROOMS)
    return {"spconv": root, "spconv.pytorch": root.pytorch} | facade("spconv")


def facade(root: str) -> dict[str, ModuleType]:
    """Return the modules below ``root.pytorch`` and ``root``, by their full names."""
    found = {}
    for path, rooms in _PATHS.items():
        name = f"{root}.{path}"
        module = ModuleType(name, f"``spconv.{path}``: names of {', '.join(rooms)}.")
        for room in rooms:
            held = importlib.import_module(f"{_ROOMS}.{room}")
            for public in held.__all__:
                setattr(module, public, getattr(held, public))
        found[name] = module
    return found
