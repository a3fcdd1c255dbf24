"""Every kernel file names the benchmark rows that it serves, and they are rows of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cpu_shapes, files
from benchmarks.pays import KERNELS, rows_of

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
