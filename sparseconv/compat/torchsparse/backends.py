"""Choices under ``torchsparse.backends``, and tuning; without effect."""

from __future__ import annotations

from typing import Any

allow_tf32 = False
allow_fp16 = False
benchmark = False
device = ""
hash_rsv_ratio = 2


def init() -> None:
    """Take the call, without effect."""


def tune(*args: Any, **kwargs: Any) -> None:
    """Take the call of the tuner, without effect: kernels here need none."""


__all__ = ["allow_fp16", "allow_tf32", "benchmark", "device", "hash_rsv_ratio", "init", "tune"]
