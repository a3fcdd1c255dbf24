"""The paths under which programs import MinkowskiEngine, and which room holds what lies there."""

from __future__ import annotations

from types import ModuleType

from sparseconv.compat import paths

_ROOMS = "sparseconv.compat.minkowski"
_PATHS = {
    "MinkowskiBroadcast": ("layers.broadcast",),
    "MinkowskiChannelwiseConvolution": ("layers.convolution",),
    "MinkowskiCommon": ("kernel", "layers.values"),
    "MinkowskiConvolution": ("layers.convolution", "tensor", "kernel"),
    "MinkowskiCoordinateManager": ("manager", "shared"),
    "MinkowskiFunctional": ("functional",),
    "MinkowskiInterpolation": ("layers.sets",),
    "MinkowskiKernelGenerator": ("kernel",),
    "MinkowskiNetwork": ("layers.values",),
    "MinkowskiNonlinearity": ("layers.values",),
    "MinkowskiNormalization": ("layers.norm",),
    "MinkowskiOps": ("layers.stacks", "layers.values", "tensor"),
    "MinkowskiPooling": ("layers.pooling",),
    "MinkowskiPruning": ("layers.sets",),
    "MinkowskiSparseTensor": ("tensor", "constants", "shared"),
    "MinkowskiTensor": ("constants", "shared"),
    "MinkowskiTensorField": ("field",),
    "MinkowskiUnion": ("layers.sets",),
    "modules": ("modules",),
    "modules.resnet_block": ("modules.resnet_block",),
    "modules.senet_block": ("modules.senet_block",),
    "utils": ("utils",),
    "utils.collation": ("utils.collation",),
    "utils.init": ("utils.init",),
    "utils.quantization": ("utils.quantization",),
}


def modules(version: int) -> dict[str, ModuleType]:
    """Return the modules by the names that they are imported by; there is one version."""
    return paths.modules_at(_ROOMS, _PATHS, "MinkowskiEngine")


def lay_paths() -> None:
    """Let imports find the paths of MinkowskiEngine below this package, too."""
    paths.lay_paths(_ROOMS, _PATHS, "MinkowskiEngine")
