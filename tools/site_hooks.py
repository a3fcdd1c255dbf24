"""What the site's builder does to docstrings and pages.

Examples in docstrings become code, roles plain names, formulas MathML. Each tutorial can be had as
a notebook and as a script, and the gallery of examples is a page.
"""

from __future__ import annotations

import html as entities
import re
import sys
from pathlib import Path
from typing import Any

import griffe
import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).resolve().parent))
from notebooks import notebook_of, script_of

ROLE = re.compile(r":(?:class|func|meth|mod|attr):<code>~?(?:\w+\.)*?([^<]*)</code>")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
HEAD = re.compile(r"^Example:$", re.MULTILINE)
BARE = re.compile(r"(?:^|(?<=\n\n))>>> .*?(?=\n\n|\Z)", re.DOTALL)  # a paragraph without a head
SCRIPT = re.compile(r"\]\((\w+\.py)\)")
TITLE = re.compile(r"\A(# .*\n)")
TUTORIALS = "tutorials/"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


class Examples(griffe.Extension):
    """Give examples the head by which they are read as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the head, or put one above an example that has none."""
        if obj.docstring is not None:
            text = HEAD.sub("Examples:", obj.docstring.value)
            obj.docstring.value = BARE.sub(_headed, text)


def _headed(match: re.Match[str]) -> str:
    lines = "\n".join(f"    {line}" for line in match[0].splitlines())
    return f"Examples:\n{lines}"


def on_files(files: Any, config: Any) -> Any:
    """Add the notebook and the script of each tutorial, the gallery and its examples."""
    for page in [file for file in files if file.src_uri.startswith(TUTORIALS)]:
        notebook = notebook_of(Path(page.abs_src_path))
        stem = page.src_uri.removesuffix(".md")
        made = {".ipynb": nbformat.writes(notebook), ".py": script_of(notebook)}
        for suffix, text in made.items():
            files.append(File.generated(config, stem + suffix, content=text))
    files.append(File.generated(config, "gallery.md", content=gallery()))
    for script in sorted(EXAMPLES.glob("*.py")):
        files.append(File.generated(config, f"examples/{script.name}", abs_src_path=str(script)))
    return files


def gallery() -> str:
    """Return the gallery of examples as a page of the site."""
    text = SCRIPT.sub(r"](examples/\1)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    return text.replace("../docs/", "")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a tutorial with links to its notebook and its script below the title."""
    if not page.file.src_uri.startswith(TUTORIALS):
        return markdown
    name = Path(page.file.src_uri).stem
    made = {"Notebook": f"{name}.ipynb", "Script": f"{name}.py"}
    links = [f'[{word}]({file}){{: download="{file}"}}' for word, file in made.items()]
    return TITLE.sub(f"\\1\n{' · '.join(links)}\n", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Return a page without the names of roles, which Markdown does not know, with formulas."""
    return FORMULA.sub(_mathml, ROLE.sub(r"<code>\1</code>", html))


def _mathml(match: re.Match[str]) -> str:
    """Return a formula as browsers draw it themselves."""
    display = "block" if match[1] == "div" else "inline"
    return str(convert(entities.unescape(match[2]), display=display))
