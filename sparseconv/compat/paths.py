"""The paths by which programs import another library, over rooms that hold what lies there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


def public_names(*rooms: ModuleType) -> dict[str, Any]:
    """Return the public names of several modules, and what they are."""
    return {name: getattr(room, name) for room in rooms for name in room.__all__}


def lay_paths(root: str, paths: Mapping[str, Sequence[str]], library: str) -> None:
    """Let imports find another library's paths below a package of ours.

    Args:
        root: the package.
        paths: for each path below it the rooms, modules below it or by their full names, whose
            public names it has; of one name in several the last.
        library: what its documentation calls it.
    """
    for path, rooms in paths.items():
        held = [importlib.import_module(_absolute(root, room)) for room in rooms]
        name = f"{root}.{path}"
        module = held[0]
        if len(held) > 1:
            module = ModuleType(name, f"``{library}.{path}``: {', '.join(rooms)}.")
            vars(module).update(public_names(*held))
        sys.modules.setdefault(name, module)
        parent, _, last = name.rpartition(".")
        if not callable(getattr(sys.modules[parent], last, None)):  # a class or function stays
            setattr(sys.modules[parent], last, module)


def _absolute(root: str, room: str) -> str:
    return room if room.startswith("sparseconv.") else f"{root}.{room}"


def modules_at(
    root: str, paths: Mapping[str, Sequence[str]], library: str
) -> dict[str, ModuleType]:
    """Return the modules by the names that programs import them by."""
    found = {library: importlib.import_module(root)}
    return found | {f"{library}.{path}": sys.modules[f"{root}.{path}"] for path in paths}
