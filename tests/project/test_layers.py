"""The import contract can fail: each kind of circle, planted in a copy, breaks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
ONE_WAY = "imports point one way"
NO_CIRCLE = "no room has a circle in it"
DOORS = "nobody imports what fills the doors"
FLOORS = "the Numba engine is built in floors"
FOR_A_TYPE = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "

PLANTS = {
    "at the top": ("core/index.py", "from sparseconv.sites import sites\n", ONE_WAY),
    "inside a function": (
        "core/index.py",
        "def planted():\n    from sparseconv.sites import sites\n    return sites\n",
        ONE_WAY,
    ),
    "for a type": (
        "core/index.py",
        FOR_A_TYPE + "from sparseconv import tensor\n",
        ONE_WAY,
    ),
    "between neighbours": ("core/index.py", "from sparseconv.io import lzf\n", ONE_WAY),
    "of a room that nobody placed": ("planted.py", "", ONE_WAY),
    "inside a room": (
        "sites/taps.py",
        FOR_A_TYPE + "from sparseconv.sites import sites\n",
        NO_CIRCLE,
    ),
    "of what fills the doors": ("tensor/base.py", "from sparseconv.tracing import sites\n", DOORS),
    "of what fills the doors, from above": (
        "cli/command.py",
        "import sparseconv.tracing.rules\n",
        DOORS,
    ),
    "between floors of an engine": (
        "engines/numba/keys/index.py",
        "from sparseconv.engines.numba.products import tiles\n",
        FLOORS,
    ),
}


def broken(folder: Path) -> set[str]:
    """Return the contracts that the package in ``folder`` breaks."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", LINT, "--no-cache"]
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)", run.stdout, flags=re.MULTILINE))
    assert {ONE_WAY, NO_CIRCLE, DOORS, FLOORS} <= set(verdicts), run.stdout + run.stderr
    assert (run.returncode == 0) == (set(verdicts.values()) == {"KEPT"})
    return {name for name, verdict in verdicts.items() if verdict == "BROKEN"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sparseconv", tmp_path / "sparseconv", ignore=ignored)
    return tmp_path


def test_the_package_keeps_every_contract(copy: Path) -> None:
    assert broken(copy) == set()


@pytest.mark.parametrize("name", PLANTS)
def test_an_import_against_the_layers_is_seen(name: str, copy: Path) -> None:
    file, code, contract = PLANTS[name]
    with (copy / "sparseconv" / file).open("a") as planted:
        planted.write(code)
    assert contract in broken(copy)
