"""Every Python block of the README and of a page runs and prints what stands under it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)
BLOCKS = BLOCK.findall(README)
PAGES = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if any(not code.startswith(">>>") for code, _ in BLOCK.findall(page.read_text("utf-8")))
]


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


@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")  # of PyTorch's exporter
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program, as a reader runs them one after the other."""
    if "import onnxruntime" in page.read_text("utf-8"):
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(ROOT)
    scope: dict[str, object] = {}
    for number, (code, expected) in enumerate(BLOCK.findall(page.read_text("utf-8"))):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}, block {number}", "exec"), scope)
        assert expected, "a block without its output proves nothing"
        assert printed.getvalue().strip() == expected.strip()
