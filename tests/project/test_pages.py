"""Every line of a page in docs/ that looks like a Python session runs, and prints what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if ">>> " in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_its_first_line_to_its_last(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\n```\n", "\n\n")
    options = doctest.ELLIPSIS
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    printed: list[str] = []
    result = doctest.DocTestRunner(optionflags=options).run(test, out=printed.append)
    assert not result.failed, "".join(printed)
    assert result.attempted > 10
