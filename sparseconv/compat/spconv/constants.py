"""Names of spconv that choose how to compute; they are taken, and change nothing here."""

from __future__ import annotations

from enum import Enum, IntEnum

VERSION = "2.3.8"  # the version whose names these are
SPCONV_VERSION_NUMBERS = [2, 3, 8]

# What programs set on `spconv.constants`; nothing reads it.
ALL_WEIGHT_IS_KRSC = True
SAVED_WEIGHT_LAYOUT = ""
SPCONV_ALLOW_TF32 = False
SPCONV_DO_SORT = True
SPCONV_FX_TRACE_MODE = False
SPCONV_USE_DIRECT_TABLE = True


class ConvAlgo(Enum):
    """How spconv computes a layer; every one gives the same numbers here."""

    Native = 0
    MaskImplicitGemm = 1
    MaskSplitImplicitGemm = 2


class AlgoHint(Enum):
    """What spconv tunes for; without effect."""

    NoHint = 0
    Fowrard = 1
    BackwardInput = 2
    BackwardWeight = 4


class Activation(IntEnum):
    """Which function a layer applies to its output, as ``cumm.tensorview.gemm.Activation``."""

    None_ = 0
    ReLU = 1
    Sigmoid = 2
    LeakyReLU = 3


__all__ = [
    "ALL_WEIGHT_IS_KRSC",
    "SAVED_WEIGHT_LAYOUT",
    "SPCONV_ALLOW_TF32",
    "SPCONV_DO_SORT",
    "SPCONV_FX_TRACE_MODE",
    "SPCONV_USE_DIRECT_TABLE",
    "SPCONV_VERSION_NUMBERS",
    "AlgoHint",
    "ConvAlgo",
]
