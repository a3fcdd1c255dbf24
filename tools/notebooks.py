"""Notebooks and scripts of the tutorials, made from their pages: the page is the only source."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat

# a block, and what it prints
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)")  # to a page of the site
NOTE = "*Run it from the root of a checkout of sparseconv: it reads scans of the folder `data`.*"


def notebook_of(page: Path) -> Any:
    """Return a page as a notebook: its Python blocks are cells, what they print their outputs."""
    text, end = page.read_text(encoding="utf-8"), 0
    cells = [nbformat.v4.new_markdown_cell(NOTE)]
    for block in BLOCK.finditer(text):
        cells += _prose(text[end : block.start()], page.parent)
        printed = [nbformat.v4.new_output("stream", text=block[2])] if block[2] else []
        cells.append(nbformat.v4.new_code_cell(block[1].rstrip(), outputs=printed))
        end = block.end()
    cells += _prose(text[end:], page.parent)
    for number, cell in enumerate(cells):  # a page gives the same file every time
        cell.id = f"{page.stem}-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=about)
    nbformat.validate(notebook)
    return notebook


def _prose(text: str, folder: Path) -> list[Any]:
    """Return the cell of what stands between two blocks, none where that is nothing."""
    if not text.strip():
        return []
    cell = nbformat.v4.new_markdown_cell(LINK.sub(r"\1", text.strip()))
    _attach_pictures(cell, folder)
    return [cell]


def _attach_pictures(cell: Any, folder: Path) -> None:
    """Put the pictures that a cell shows into it."""

    def attached(match: re.Match[str]) -> str:
        path = (folder / match[2]).resolve()
        kind = "image/jpeg" if path.suffix == ".jpg" else f"image/{path.suffix[1:]}"
        picture = base64.b64encode(path.read_bytes()).decode("ascii")
        cell.setdefault("attachments", {})[path.name] = {kind: picture}
        return f"![{match[1]}](attachment:{path.name})"

    cell.source = PICTURE.sub(attached, cell.source)


def script_of(notebook: Any) -> str:
    """Return a notebook as a Python script whose comments are its text."""
    text: str = jupytext.writes(notebook, "py:percent")
    return PICTURE.sub(r"(picture: \1)", text)
