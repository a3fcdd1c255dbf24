"""Wrappers of distributed training, on two processes with gloo, against one on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.mark.slow
def test_wrappers_train_as_one_process_on_the_joined_batch(tmp_path: Path) -> None:
    store = tmp_path / "store"
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "error::UserWarning", str(SCRIPT)]
    both = [
        subprocess.Popen(
            [*command, str(rank), str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **quiet},
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=150)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)
    assert outputs[0].count("passed: ") == 13
