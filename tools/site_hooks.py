"""What the site's builder does to docstrings and pages: examples become code, roles plain names."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr):<code>~?(?:\w+\.)*?([^<]*)</code>")
HEAD = re.compile(r"^Example:$", re.MULTILINE)
BARE = re.compile(r"(?:^|(?<=\n\n))>>> .*?(?=\n\n|\Z)", re.DOTALL)  # a paragraph without a head


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


def on_page_content(html: str, **_: Any) -> str:
    """Return a page without the names of roles, which Markdown does not know."""
    return ROLE.sub(r"<code>\1</code>", html)
