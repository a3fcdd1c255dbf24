"""Choices of how to compute, without effect but for that of which sites a strided layer makes."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sparseconv.errors import SparseConvValueError

DOWNSAMPLE_MODES = ("spconv", "minkowski")


class Dataflow(Enum):
    """Taken without effect."""

    ImplicitGEMM = 0
    GatherScatter = 1
    FetchOnDemand = 2
    CodedCSR = 3


class ConvMode(Enum):
    """Taken without effect."""

    mode0 = 0
    mode1 = 1
    mode2 = 2


class ConvConfig(dict[str, Any]):
    """The choices, as entries and as attributes."""

    def __getattr__(self, name: str) -> Any:
        """Return an entry."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an entry."""
        self[name] = value


class _Global:
    config: Any = None
    mode = ConvMode.mode0
    kmap_mode = "hashmap_on_the_fly"
    downsample_mode = "spconv"


def get_default_conv_config(
    conv_mode: ConvMode = ConvMode.mode0, training: bool = False
) -> ConvConfig:
    """Return the choices that hold where nobody made others."""
    return ConvConfig(
        dataflow=Dataflow.ImplicitGEMM,
        ifsort=conv_mode is not ConvMode.mode0,
        kmap_mode=_Global.kmap_mode,
        downsample_mode=_Global.downsample_mode,
        split_mask_num=3 if conv_mode is ConvMode.mode2 else 1,
        split_mask_num_bwd=3,
        epsilon=0.0,
        mm_thresh=0,
        FOD_fusion=True,
    )


def get_global_conv_config() -> Any:
    """Return the choices for all layers, None where nobody made them."""
    return _Global.config


def set_global_conv_config(conv_config: Any) -> None:
    """Make choices for all layers."""
    _Global.config = conv_config


def clear_global_conv_config() -> None:
    """Take the choices for all layers back."""
    _Global.config = None


def get_conv_mode() -> ConvMode:
    """Return what was set; without effect."""
    return _Global.mode


def set_conv_mode(conv_mode: ConvMode) -> None:
    """Keep a choice, without effect."""
    _Global.mode = conv_mode


def get_kmap_mode() -> str:
    """Return what was set; without effect."""
    return _Global.kmap_mode


def set_kmap_mode(kmap_mode: str) -> None:
    """Keep a choice, without effect."""
    _Global.kmap_mode = kmap_mode


def get_downsample_mode() -> str:
    """Return which sites a strided layer makes where its choices do not say so."""
    return _Global.downsample_mode


def set_downsample_mode(downsample_mode: str) -> None:
    """Set which sites a strided layer makes: ``"spconv"`` or ``"minkowski"``."""
    check_mode(downsample_mode)
    _Global.downsample_mode = downsample_mode


def check_mode(downsample_mode: Any) -> None:
    """Raise unless this is one of the two modes."""
    if downsample_mode not in DOWNSAMPLE_MODES:
        raise SparseConvValueError(
            f"downsample_mode: must be one of {DOWNSAMPLE_MODES}, got {downsample_mode!r}"
        )


def mode_of(config: Any) -> str:
    """Return which sites a strided layer makes under its choices, or those for all layers."""
    config = _Global.config if config is None else config
    mode: str = dict(config or {}).get("downsample_mode", _Global.downsample_mode)
    check_mode(mode)
    return mode


__all__ = [
    "ConvMode",
    "Dataflow",
    "clear_global_conv_config",
    "get_conv_mode",
    "get_default_conv_config",
    "get_downsample_mode",
    "get_global_conv_config",
    "get_kmap_mode",
    "set_conv_mode",
    "set_downsample_mode",
    "set_global_conv_config",
    "set_kmap_mode",
]
