"""How many processors this process may use, and what threads do while they wait."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator

import torch

from sparseconv.engines import control_groups

LOOK_SECONDS = 10.0  # between two looks at how busy the machine is, until something was said
_said = False
_next_look = 0.0


@functools.cache
def quota() -> int | None:
    """Return how many processors the control groups allow at a time, 1 at least; None for any.

    A quota of 2.5 is 2: a third thread would be stopped half of the time, and the others wait.
    """
    shares = list(_shares())
    return max(1, int(min(shares))) if shares else None


def _shares() -> Iterator[float]:
    """Yield the quota of each control group above this process, in processors."""
    for folder, text in control_groups.limits("cpu", ("cpu.max", "cpu.cfs_quota_us")):
        most, _, period = text.partition(" ")
        try:
            period = period or (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if most.isdigit() and period.isdigit() and int(period):  # "max" and -1 are no limit
            yield int(most) / int(period)


def usable() -> int:
    """Return how many processors this process may use: the machine's, its affinity, its quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    allowed = quota()
    return count if allowed is None else min(count, allowed)


def wait_busily() -> bool:
    """Return whether the threads of PyTorch's OpenMP library spin while they wait for work."""
    environment = os.environ
    asleep = (
        environment.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE",
        environment.get("GOMP_SPINCOUNT", "").strip() == "0",
        environment.get("KMP_BLOCKTIME", "").strip() == "0",
    )
    return not any(asleep)


def look() -> None:
    """Say once, in one line, where threads that spin take the processors from each other.

    Each member of PyTorch's team waits for the others by spinning. Where there are more busy
    threads than processors, those who wait keep off the processor the one that they wait for.
    """
    global _next_look, _said  # noqa: PLW0603  # every launch comes here: a lookup, no more
    if _said or time.monotonic() < _next_look:
        return
    _next_look = time.monotonic() + LOOK_SECONDS
    reason = _crowded()
    if reason is not None:
        _said = True
        logging.getLogger("sparseconv").warning(
            "PyTorch's %d threads wait busily for each other, and %s: set OMP_WAIT_POLICY=PASSIVE "
            "before Python starts, or torch.set_num_threads(1)",
            torch.get_num_threads(),
            reason,
        )


def _crowded() -> str | None:
    """Return why the threads cannot all run at a time, or None."""
    if not wait_busily():
        return None
    threads, mine = torch.get_num_threads(), usable()
    if threads > mine:
        return f"this process may use {mine} of the {os.cpu_count()} processors"
    if not hasattr(os, "getloadavg"):
        return None
    # the load counts these threads too, which keep as many processors busy as there are of them
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load >= processors + 1:
        return f"{load:.1f} threads want the {processors} processors"
    return None
