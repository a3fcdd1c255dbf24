"""Training in two processes, as `torchrun` starts them, against one on the joined batches."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import sparseconv as sc

HERE = Path(__file__).parent

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(HERE)
    module = importlib.import_module("training_twice")
    monkeypatch.setattr(module.training, "network_for", module.training.network_for)
    module.in_float64()
    return module


def test_two_processes_learn_what_one_learns_of_the_joined_batch(
    twice: ModuleType, tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(HERE / "training_twice.py"), str(tmp_path)]
    variables = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=150, check=False, env=variables
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["processes"] == 2

    settings = replace(twice.SETTINGS, batch_size=2)
    one = twice.trained(settings, twice.training.Team(), tmp_path / "one.pt")
    assert len(one.losses) == settings.steps
    assert one.losses[-1] < one.losses[0]  # it learns
    torch.testing.assert_close(found["whole"], one.losses, rtol=1e-9, atol=0)
    for name, value in one.finished().state_dict().items():
        expected = torch.tensor(found["weights"][name], dtype=value.dtype)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)

    # killed between two checkpoints, and gone on from the first of them: not a bit is lost
    assert found["resumed"] == pytest.approx(found["whole"], rel=1e-12)


def test_one_process_goes_on_with_the_same_bits(twice: ModuleType, tmp_path: Path) -> None:
    settings, alone = replace(twice.SETTINGS, batch_size=2), twice.training.Team()
    whole = twice.trained(settings, alone, tmp_path / "whole.pt")
    resumed = twice.killed_and_resumed(settings, alone, tmp_path / "resumed.pt")
    assert resumed.losses == whole.losses
    weights = resumed.network.state_dict()
    for name, value in whole.network.state_dict().items():
        if "running" not in name and "tracked" not in name:  # these count recomputed batches twice
            assert torch.equal(value, weights[name]), name


def test_a_checkpoint_of_another_run_is_refused(twice: ModuleType, tmp_path: Path) -> None:
    scans, alone = twice.scans()[:1], twice.training.Team()
    twice.training.Trainer(twice.SETTINGS, scans, alone).save(tmp_path / "saved.pt")
    other = twice.training.Trainer(replace(twice.SETTINGS, steps=21), scans, alone)
    with pytest.raises(sc.SparseConvError, match="give those, or leave out --resume"):
        other.resume(tmp_path / "saved.pt")
