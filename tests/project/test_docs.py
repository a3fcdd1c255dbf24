"""Every Python block of the README runs and prints what stands under it; the first by line 25."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_block(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    code, expected = BLOCKS[number]
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"README block {number}", "exec"), {})
    assert expected, "a block without its output proves nothing"
    assert printed.getvalue().strip() == expected.strip()


def test_first_block_begins_by_line_25() -> None:
    lines = README.splitlines()
    assert lines.index("```python") < 25
    assert len(BLOCKS) >= 3


def test_every_path_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`?((?:examples|data|tools)/[\w./]+\.\w+)", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
