"""Interleaved timing: every contender once per round, medians over the rounds."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

LONG = 4.0
COLLECTED = 0.3  # seconds of a round from which garbage is collected after it


def interleaved(
    contenders: dict[str, Callable[[], Any]],
    rounds: int = 7,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = float("inf"),
) -> dict[str, float]:
    """Return the median time of each contender in milliseconds.

    Every round runs each contender once, so that a machine that slows down for a while slows all
    of them, and begins with another one. The garbage collector stays off while the clock runs, and
    between short rounds too: a collection takes longer than most layers and empties the caches of
    what runs between them. ``time.process_time`` as clock counts the processor's time instead, for
    a machine that others work on.

    After ``seconds`` no further round begins once three are there; two are enough of those that
    take ``LONG`` seconds. A round that takes a third of the time needs no warming up, and is
    counted from the first.
    """
    gc.collect()
    gc.disable()
    try:
        kept = _rounds(contenders, rounds, warm_up, clock, seconds)
    finally:
        gc.enable()
    return {name: 1e3 * statistics.median(one[name] for one in kept) for name in contenders}


def _rounds(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    warm_up: int,
    clock: Callable[[], float],
    seconds: float,
) -> list[dict[str, float]]:
    """Return what each contender took in the rounds that count."""
    names = list(contenders)
    begin = time.perf_counter()
    measured: list[dict[str, float]] = []
    while len(measured) < warm_up + rounds:
        first = len(measured) % len(names)
        order = names[first:] + names[:first]
        measured.append({name: _time(contenders[name], clock) for name in order})
        spent = time.perf_counter() - begin
        if spent / len(measured) > seconds / 3:
            warm_up = 0
        least = 2 if spent / len(measured) > LONG else 3
        if spent > seconds and len(measured) >= warm_up + min(rounds, least):
            break
        if spent / len(measured) > COLLECTED:
            gc.collect()
    return measured[warm_up:]


def _time(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def machine() -> dict[str, Any]:
    """Return what a reader needs to know about the machine and the versions."""
    return {
        "processor": _processor(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def _processor() -> str:
    """Return the processor's model name and its widest vector extension."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {name.strip(): value.strip() for name, value in fields.items()}
    flags = found.get("flags", "").split()
    vectors = [name for name in ("avx512_bf16", "avx512f", "avx2") if name in flags][:1]
    return " ".join([found.get("model name", platform.machine()), *vectors])
