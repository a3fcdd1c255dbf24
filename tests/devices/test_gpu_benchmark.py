"""The benchmark of cards runs from end to end on the pretended one, so that no minute is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from devices import bench

from benchmarks import gpu

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")


def test_all_phases_run_and_each_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "toy.json"
    gpu.main(["--toy", "--device", bench.NAME, "--out", str(out)])
    results = json.loads(out.read_text())
    assert list(results["phases"]) == list(gpu.PHASES) and results["card"] == bench.NAME
    rows = {row["what"]: row for phase in results["phases"].values() for row in phase["rows"]}
    unmeasured = {what for what, row in rows.items() if "not measured" in row}
    assert {what.partition(",")[0] for what in unmeasured} == {"pytest -m gpu", "spconv"}
    assert all(not phase["no time for"] for phase in results["phases"].values())
    assert all(f"{name}: " in capsys.readouterr().out for name in list(gpu.PHASES)[:1])


def test_a_phase_without_time_names_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.PHASES, "maps", (gpu.PHASES["maps"][0], -1.0))
    device = gpu.torch.device("cpu")
    (results,) = gpu.run(gpu.Bench(device, toy=True), ["maps"])
    assert not results["phases"]["maps"]["rows"] and results["phases"]["maps"]["no time for"]


def test_the_cpu_runs_the_toy_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu"])
    assert "--toy" in capsys.readouterr().err
