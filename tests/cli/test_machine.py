"""``sparseconv warmup`` and ``sparseconv engines``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparseconv.cli import machine
from sparseconv.cli.command import main


def test_kernels_can_be_kept_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    seen = []

    def steps() -> list[str]:
        seen.append(os.environ["NUMBA_CACHE_DIR"])
        return ["a step"]

    monkeypatch.setattr(machine, "warm_up", steps)
    folder = tmp_path / "kernels"
    assert main(["warmup", "--to", str(folder)]) == 0
    assert seen == [str(folder)] and folder.is_dir()
    assert f"NUMBA_CACHE_DIR={folder}" in capsys.readouterr().out


@pytest.mark.parametrize(("policy", "word"), [("PASSIVE", "asleep"), ("", "busy")])
def test_engines_says_how_threads_wait(
    policy: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert main(["engines"]) == 0
    assert word in capsys.readouterr().out
