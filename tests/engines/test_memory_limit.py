"""The pool looks at every limit on this process, can be asked, emptied, and outlives an error."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sparseconv as sc
from sparseconv.engines import control_groups, memory, memory_limit

LARGE = (memory.LEAST_BYTES // 64 + 1, 16)  # float32 rows: just large
MACHINE = 2**40


@pytest.fixture(autouse=True)
def empty_pool() -> Iterator[None]:
    gc.collect()
    memory.release()
    yield
    memory.release()


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 1 TiB without any limit; files in the returned folder are control groups."""
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory_limit, "_machine_bytes", lambda: MACHINE)
    monkeypatch.setattr(memory_limit, "_address_space", lambda: iter(()))
    monkeypatch.delenv(memory_limit.VARIABLE, raising=False)
    return tmp_path


def limit(folder: Path, file: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text + "\n", encoding="ascii")


def test_without_limits_it_is_the_machines(groups: Path) -> None:
    assert memory_limit.usable_bytes() == MACHINE
    (groups / "membership").write_text("0::/\n", encoding="ascii")
    limit(groups, "memory.max", "max")
    assert memory_limit.usable_bytes() == MACHINE
    assert memory_limit.most_idle_bytes() == MACHINE // 4


@pytest.mark.parametrize("level", ["", "pod", "pod/box"])
def test_version_2_counts_every_group_above(groups: Path, level: str) -> None:
    (groups / "membership").write_text("0::/pod/box\n", encoding="ascii")
    limit(groups / "pod" / "box", "memory.max", "max")
    limit(groups / level, "memory.max", str(2**31))
    assert memory_limit.usable_bytes() == 2**31


@pytest.mark.parametrize("level", ["", "docker/box"])
def test_version_1_counts_the_group_and_the_mount(groups: Path, level: str) -> None:
    """Inside a container the path is that of the host, and the mount is the container's group."""
    text = "7:cpu,cpuacct:/docker/box\n4:memory:/docker/box\n1:name=systemd:/docker/box\n"
    (groups / "membership").write_text(text, encoding="ascii")
    limit(groups / "memory" / level, "memory.limit_in_bytes", str(2**30))
    assert memory_limit.usable_bytes() == 2**30


def test_a_path_out_of_the_mount_is_not_followed(groups: Path) -> None:
    (groups / "membership").write_text("0::/../../outside\n", encoding="ascii")
    limit(groups, "memory.max", str(2**33))
    assert memory_limit.usable_bytes() == 2**33


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept by Linux")
def test_the_limit_of_the_address_space_counts_and_is_enough() -> None:
    """Under a limit large results still come, arenas as large as all before do not."""
    script = """
import resource, torch
from sparseconv.engines import control_groups, memory, memory_limit
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (size + room, size + room))
assert memory_limit.usable_bytes() == size + room
results = [memory.empty((2**20, 10), torch.float32) for _ in range(5)]  # 40 MiB each
del results
last = memory.empty((2**20, 50), torch.float32)  # fits only where idle arenas went
print(memory.held() >= last.nbytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("text", ["lots", "-1", "1e9", "1.5", " 5", "٣"])
def test_a_bound_that_is_no_number_of_bytes_is_refused(
    groups: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(memory_limit.VARIABLE, text)
    with pytest.raises(sc.SparseConvValueError, match="SPARSECONV_POOL_BYTES: must be a whole"):
        memory_limit.most_idle_bytes()


@pytest.mark.parametrize("bound", [0, 2**21, 2**40])
def test_the_variable_bounds_what_is_kept(bound: int) -> None:
    script = """
import torch, sparseconv as sc
from sparseconv.engines import memory
held = [memory.empty((2**20, 16), torch.float32) for _ in range(3)]
assert sc.memory.held() >= 3 * 2**26
del held
print(sc.memory.held())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, memory_limit.VARIABLE: str(bound)},
    )
    assert int(done.stdout) <= bound
    assert (int(done.stdout) > 0) == (bound > 2**26)


def test_held_and_release() -> None:
    assert sc.memory.held() == 0
    x = memory.empty(LARGE, torch.float32)
    assert sc.memory.held() == memory.ARENA_BYTES
    assert sc.memory.release() == 0  # a result lies there
    del x
    assert sc.memory.held() == memory.ARENA_BYTES
    assert sc.memory.release() == memory.ARENA_BYTES
    assert sc.memory.held() == 0


def test_an_error_while_memory_comes_back_does_not_close_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = memory.empty(LARGE, torch.float32)
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    def broken(most_idle: int) -> None:
        raise RuntimeError(f"injected, {most_idle}")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "_settle", broken)
        del x
    assert unraisable, "the error was met"
    assert memory._lock.acquire(timeout=1), "the lock is open"
    memory._lock.release()
    assert memory.empty(LARGE, torch.float32).shape == LARGE
    assert sc.memory.release() == memory.ARENA_BYTES
