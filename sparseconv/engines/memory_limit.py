"""How much memory this process may use: the machine's, its container's, its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sparseconv.engines import control_groups
from sparseconv.errors import SparseConvValueError

VARIABLE = "SPARSECONV_POOL_BYTES"
UNKNOWN_MACHINE_BYTES = 2**32  # where the system does not tell: Windows


def most_idle_bytes() -> int:
    """Return how many bytes the pool may keep for later results.

    A quarter of what this process may use at most, or what ``SPARSECONV_POOL_BYTES`` says.

    Raises:
        SparseConvValueError: the variable holds no whole number of bytes, 0 or more.
    """
    bound = os.environ.get(VARIABLE)
    if not bound:
        return usable_bytes() // 4
    if not (bound.isascii() and bound.isdigit()):
        raise SparseConvValueError(
            f"{VARIABLE}: must be a whole number of bytes, 0 or more, got {bound!r}"
        )
    return int(bound)


def usable_bytes() -> int:
    """Return the smallest of the limits on this process's memory, in bytes."""
    return min([_machine_bytes(), *_cgroup_limits(), *_address_space()])


def _machine_bytes() -> int:
    if not hasattr(os, "sysconf"):
        return UNKNOWN_MACHINE_BYTES
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _address_space() -> Iterator[int]:
    """Yield RLIMIT_AS where it is set."""
    try:
        import resource  # noqa: PLC0415  # Unix alone has it
    except ImportError:
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft


def _cgroup_limits() -> Iterator[int]:
    """Yield the limits of this process's control group and of all above it, versions 1 and 2."""
    for _, limit in control_groups.limits("memory", ("memory.max", "memory.limit_in_bytes")):
        if limit.isdigit():  # "max" is no limit
            yield int(limit)
