"""The example of an engine of one's own: it runs, and gives the numbers of the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import sparseconv as sc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "new_engine.py"


def test_it_runs_beside_the_others_and_agrees() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("SPARSECONV_ENGINE", None)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*sc.engines.ENGINES, "joined"]
    for line in lines:
        gaps = [float(number) for number in re.findall(r"by ([\d.e+-]+)", line)]
        assert len(gaps) == 2
        assert max(gaps) < 1e-5
    assert min(gaps) > 0  # another order of summation: the engine's own product ran
