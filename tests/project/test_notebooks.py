"""A tutorial's notebook and script hold what its page holds, and run as it does."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest

from tests.project.test_docs import BLOCK, ROOT

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
sys.path.insert(0, str(ROOT / "tools"))
from notebooks import notebook_of, script_of  # noqa: E402

PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def code_cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Return the code of each cell and what it prints."""
    return [
        (cell.source.strip(), "".join(output.text for output in cell.outputs).strip())
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_has_the_blocks_of_its_page_and_their_outputs(page: Path) -> None:
    written = nbformat.writes(notebook_of(page))
    assert written == nbformat.writes(notebook_of(page))
    notebook = nbformat.reads(written, as_version=4)
    nbformat.validate(notebook)
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    assert code_cells(notebook) == [(code.strip(), text.strip()) for code, text in blocks]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert page.read_text(encoding="utf-8").splitlines()[0] in prose
    assert ".md)" not in prose  # no link to a page that does not lie beside the notebook
    assert "```text" not in prose


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_script_is_the_code_of_its_notebook_in_its_order(page: Path) -> None:
    notebook = notebook_of(page)
    script = script_of(notebook)
    compile(script, page.stem, "exec")
    place = 0
    for code, _ in code_cells(notebook):
        place = script.index(code, place) + len(code)


def test_a_notebook_and_a_script_print_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    notebook = notebook_of(ROOT / "docs" / "tutorials" / "batches.md")
    scope: dict[str, object] = {}
    for code, expected in code_cells(notebook):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "cell", "exec"), scope)
        assert printed.getvalue().strip() == expected
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(script_of(notebook), "script", "exec"), {})
    assert printed.getvalue().split() == " ".join(text for _, text in code_cells(notebook)).split()
