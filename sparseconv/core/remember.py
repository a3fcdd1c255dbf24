"""What is kept is built outside of every mode that the caller may be in.

A cache outlives the call that fills it. What is made under a transform of functions has no memory
of its own, what is made in inference mode can never be saved for a backward pass, autocast rounds
to half precision, and under a tracer there are no numbers. Sites and rulebooks do not depend on the
differentiated inputs, so they are built outside of all four.

Nor may Python's collector of reference cycles go through all of it while much is made at once.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator

import torch

from sparseconv.core.private_torch import (
    Arguments,
    Result,
    count_modes,
    outside_transforms,
    without_modes,
)

AUTOCAST_DEVICES = ("cpu", "cuda", "xpu")


def remembered(build: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let ``build``, which makes what a cache keeps, run as if no mode of PyTorch were on."""
    build = outside_transforms(build)

    @functools.wraps(build)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with contextlib.ExitStack() as modes:
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
            if count_modes():
                modes.enter_context(without_modes())
            for device in AUTOCAST_DEVICES:
                if torch.is_autocast_enabled(device):
                    modes.enter_context(torch.autocast(device, enabled=False))
            return build(*args, **kwargs)

    return wrapper


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Let no collection begin in the block.

    Much that is made at once, by importing or compiling, begins one, and it looks at all that
    PyTorch ever made. It took two thirds of the import of this package and an eighth of compiling.

    Example:
        >>> import gc
        >>> from sparseconv.core.remember import collector_paused
        >>> with collector_paused():
        ...     print(gc.isenabled())
        False
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
