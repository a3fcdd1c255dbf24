"""The paths under which programs import TorchSparse, and which room holds what lies there."""

from __future__ import annotations

import importlib
from types import ModuleType

from sparseconv.compat import paths

_ROOMS = "sparseconv.compat.torchsparse"
_VERSION_1 = f"{_ROOMS}.version1"
_NN = ("layers.convolution", "layers.values")
_FUNCTIONAL = tuple(
    f"functional.{room}" for room in ("config", "conv", "levels", "points", "values")
)
# The modules of TorchSparse 2.1, and the rooms whose public names each of them has.
_PATHS = {
    "backbones": ("backbones",),
    "backbones.modules": ("backbones",),
    "backend": ("backend",),
    "backends": ("backends",),
    "operators": ("operators",),
    "utils": ("sizes", "dense"),
    "utils.collate": ("data.collate",),
    "utils.quantize": ("data.quantize",),
    "utils.utils": ("sizes",),
    "nn": _NN,
    "nn.modules": _NN,
    "nn.functional": _FUNCTIONAL,
    "nn.functional.count": ("functional.points",),
    "nn.functional.devoxelize": ("functional.points",),
    "nn.functional.hash": ("functional.points",),
    "nn.functional.query": ("functional.points",),
    "nn.functional.voxelize": ("functional.points",),
    "nn.utils": ("sizes", "functional.values"),
    "nn.utils.kernel": ("sizes",),
    "tensor": ("tensor",),
    "utils.tensor_cache": ("caches",),
    "utils.to_dense": ("dense",),
    "utils.tune": ("backends",),
}
_SHARED = {path: tuple(f"{_ROOMS}.{room}" for room in rooms) for path, rooms in _PATHS.items()}
_LEGACY = f"{_ROOMS}.legacy"
# Those of 1.4 and 2.0: what they have in another way comes last.
_OLD_PATHS = _SHARED | {
    "nn": (*_SHARED["nn"], _LEGACY),
    "nn.modules": (*_SHARED["nn"], _LEGACY),
    "nn.functional": (*_SHARED["nn.functional"], _LEGACY),
    "nn.functional.devoxelize": (*_SHARED["nn.functional.devoxelize"], _LEGACY),
    "tensor": (*_SHARED["tensor"], _LEGACY),
}


def modules(version: int) -> dict[str, ModuleType]:
    """Return the modules of a major version by the names that they are imported by."""
    if version != 1:
        return paths.modules_at(_ROOMS, _PATHS, "torchsparse")
    importlib.import_module(_VERSION_1)
    return paths.modules_at(_VERSION_1, _OLD_PATHS, "torchsparse")


def lay_paths() -> None:
    """Let imports find the paths of TorchSparse 2.1 below this package, too."""
    paths.lay_paths(_ROOMS, _PATHS, "torchsparse")


def lay_old_paths() -> None:
    """Let imports find the paths of TorchSparse 1.4 below the package of that version."""
    paths.lay_paths(_VERSION_1, _OLD_PATHS, "torchsparse")
