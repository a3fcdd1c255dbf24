"""The example runs, and both of its networks agree."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import sparseconv as sc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "from_spconv.py"


@pytest.mark.slow
def test_the_example_compares_what_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--quick"])
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        sc.compat.uninstall()
    printed = capsys.readouterr().out
    assert "layer 7:" in printed
    assert "weights loaded" in printed
    assert float(re.findall(r"largest difference (\S+)", printed)[0]) < 1e-4
