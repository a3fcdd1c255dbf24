"""Quotas of control groups count among the processors, and busy waiting is told once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sparseconv as sc
from sparseconv.engines import control_groups, processors
from sparseconv.engines.numba.machine import threads


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Eight processors, no neighbour; files in the returned folder are control groups."""
    monkeypatch.setattr(control_groups, "MOUNT", tmp_path)
    monkeypatch.setattr(control_groups, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(processors.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(processors.os, "getloadavg", lambda: (8.4, 0.0, 0.0), raising=False)
    monkeypatch.setattr(processors, "_said", False)
    monkeypatch.setattr(processors, "_next_look", 0.0)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    processors.quota.cache_clear()
    yield tmp_path
    processors.quota.cache_clear()
    torch.set_num_threads(before)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n", encoding="ascii")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("max 100000", None), ("200000 100000", 2), ("250000 100000", 2), ("20000 100000", 1)],
)
def test_version_2(groups: Path, text: str, allowed: int | None) -> None:
    (groups / "membership").write_text("0::/pod/box\n", encoding="ascii")
    group(groups / "pod" / "box", cpu_max="max 100000")
    group(groups / "pod", cpu_max=text)
    assert processors.quota() == allowed
    assert processors.usable() == (allowed or 8)


@pytest.mark.parametrize(("most", "allowed"), [("-1", None), ("150000", 3), ("10", 1)])
def test_version_1(groups: Path, most: str, allowed: int | None) -> None:
    text = "7:cpu,cpuacct:/docker/box\n4:memory:/docker/box\n1:name=systemd:/docker/box\n"
    (groups / "membership").write_text(text, encoding="ascii")
    group(groups / "cpu", cpu_cfs_quota_us=most, cpu_cfs_period_us="50000")
    assert processors.quota() == allowed


def test_without_control_groups_all_may_be_used() -> None:
    assert processors.quota() is None and processors.usable() == 8


def test_no_more_threads_run_than_the_quota_allows(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (groups / "membership").write_text("0::/\n", encoding="ascii")
    group(groups, cpu_max="200000 100000")
    torch.set_num_threads(4)
    members = []

    def launch(begin: int, count: int, *rest: int) -> int:
        members.append(count)
        return 0

    monkeypatch.setattr(threads._openmp, "begin", 1)
    threads.on_all_threads(launch, 10)
    assert members == [2]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sparseconv"]


def test_more_threads_than_processors_are_told_once(
    groups: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (groups / "membership").write_text("0::/\n", encoding="ascii")
    group(groups, cpu_max="200000 100000")
    torch.set_num_threads(3)
    x = sc.SparseTensor(torch.ones(4, 2), torch.arange(4)[:, None].expand(4, 2).clone())
    with caplog.at_level(logging.WARNING), sc.engine("numba"):
        for _ in range(3):
            sc.nn.SubmConv1d(2, 2, 3)(x)
            processors.look()
    (line,) = lines(caplog)
    assert "3 threads wait busily" in line and "2 of the 8 processors" in line and "\n" not in line


@pytest.mark.parametrize(
    ("load", "policy", "told"),
    [(9.4, "", True), (8.4, "", False), (30.0, "passive", False), (30.0, "ACTIVE", True)],
)
def test_busy_neighbours_are_told_unless_threads_sleep(
    load: float,
    policy: str,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(processors.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    torch.set_num_threads(2)
    with caplog.at_level(logging.WARNING):
        processors.look()
        processors.look()
    assert len(lines(caplog)) == told
    assert all("OMP_WAIT_POLICY=PASSIVE" in line for line in lines(caplog))


def test_a_look_that_found_nothing_is_repeated_later(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    monkeypatch.setattr(processors, "_crowded", lambda: looks.append(None))
    now = [100.0]
    monkeypatch.setattr(processors.time, "monotonic", lambda: now[0])
    for now[0] in (100.0, 101.0, 111.0, 112.0):
        processors.look()
    assert len(looks) == 2
