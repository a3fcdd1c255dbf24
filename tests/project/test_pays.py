"""Every kernel file names the benchmark rows that it serves, and they are rows of the benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import sparseconv as sc
from benchmarks import cpu, cpu_shapes, deform, files
from benchmarks.pays import KERNELS, PAYS, pays, rows_of
from sparseconv.engines.numba.products.narrow import NarrowWeight

RESULTS = files.RESULTS.parent
FILES = sorted(
    path for path in KERNELS.rglob("*.py") if path.name not in ("__init__.py", "engine.py")
)


def known() -> set[tuple[str, str]]:
    """Return the rows on file, and those of shapes that are still to be measured."""
    rows = {(entry["group"], entry["what"]) for entry in files.read()}
    rows |= {
        ("shape", f"submanifold k={kernel}, {c_in} to {c_out}, {groups} groups, forward")
        for c_in, c_out, kernel, groups in cpu_shapes.SHAPES
    }
    deform = json.loads((RESULTS / "deform.json").read_text(encoding="utf-8"))
    return rows | {("deform", run["case"]) for run in deform.values()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KERNELS)))
def test_a_kernel_file_names_its_rows(path: Path) -> None:
    rows = rows_of(path)
    assert rows, "a line 'Benchmark: <group> <what>' in the docstring"
    assert set(rows) <= known()


@pytest.mark.parametrize("name", ["rows/affine.py", "products/narrow.py", "products/deform.py"])
def test_what_a_file_is_worth_is_measured_with_it_and_without_it(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a row, whose ratio is that of its two times, and a verdict that follows from them."""
    layout = NarrowWeight.__dict__["of"]
    monkeypatch.setattr(deform, "SIZE", 8)
    coords = torch.ones(2, 6, 6, 6).nonzero()
    x = sc.SparseTensor(torch.zeros(len(coords), 1), coords, (6, 6, 6), batch_size=2)
    pays(name, {group: functions for group, (functions, _) in cpu.GROUPS.items()}, "toy", x)
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows_of(KERNELS / name))
    found = [
        re.fullmatch(r".*: ([\d.e+-]+) ms with it, ([\d.e+-]+) ms by .*: x([\d.]+)", line)
        for line in lines
    ]
    ratios = []
    for match in found:
        assert match, lines
        with_it, without_it, ratio = map(float, match.groups())
        assert ratio == pytest.approx(without_it / with_it, abs=0.01, rel=0.01)
        ratios.append(ratio)
    if abs(max(ratios) - PAYS) > 0.01:  # the ratios were rounded
        assert verdict.endswith("pays" if max(ratios) > PAYS else "delete it")
    assert NarrowWeight.__dict__["of"] is layout  # everything is back in its place
