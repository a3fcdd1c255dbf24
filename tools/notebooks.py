"""Notebooks and scripts of the tutorials, made from their pages: the page is the only source."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat

OUTPUT = re.compile(r"\A\s*```text\n(.*?)```", re.DOTALL)  # what the block above prints
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)")  # to a page of the site
NOTE = "*Run it from the root of a checkout of sparseconv: it reads scans of the folder `data`.*"


def notebook_of(page: Path) -> Any:
    """Return a page as a notebook: its blocks are cells, what they print are their outputs."""
    notebook = jupytext.reads(page.read_text(encoding="utf-8"), "md")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    cells = [nbformat.v4.new_markdown_cell(NOTE)]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            printed = OUTPUT.match(cell.source)
            if printed:
                cells[-1].outputs = [nbformat.v4.new_output("stream", text=printed[1])]
                cell.source = cell.source[printed.end() :].strip()
            _attach_pictures(cell, page.parent)
            cell.source = LINK.sub(r"\1", cell.source)
        if cell.source:
            cells.append(cell)
    for number, cell in enumerate(cells):  # a page gives the same file every time
        cell.id, cell.metadata = f"{page.stem}-{number}", {}
    notebook.cells = cells
    nbformat.validate(notebook)
    return notebook


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
