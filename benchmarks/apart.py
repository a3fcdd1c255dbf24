"""Measurements in a process of their own: peak memory, time to the first result."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


def apart(module: str, function: str, *arguments: Any, **environment: str) -> Any:
    """Return what ``module.function(*arguments)`` returns in a new process, through JSON."""
    code = f"import json, {module} as m; print(json.dumps(m.{function}(*{arguments!r})))"
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout.decode().splitlines()[-1])


def peak_during(run: Callable[[], object]) -> int:
    """Return by how many bytes the process's resident memory grew at its highest during a call.

    Linux keeps the highest mark and lets a process put it back; what was freed before is given
    back first, so that the call cannot hide in it.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def settle(run: Callable[[], object], threads: int) -> None:
    """Set the number of threads, and compile what a call needs by making it once."""
    torch.set_num_threads(threads)
    run()
