"""Write docs/functions.md: what functions do on a SparseTensor, and by which law.

Run ``python tools/function_table.py`` after registering a function; a test checks that the file is
current.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import sparseconv as sc
from sparseconv.core.dispatch import HANDLERS, MEANINGS, REFUSED

TARGET = Path(__file__).parents[1] / "docs" / "functions.md"

# In this order: the first namespace that holds a function names it.
NAMESPACES = (
    ("torch", torch),
    ("torch.nn.functional", torch.nn.functional),
    ("torch.linalg", torch.linalg),
    ("torch.Tensor", torch.Tensor),
    ("sparseconv.functional", sc.functional),
)

HEAD = """# Functions on a SparseTensor

Written by `tools/function_table.py` from the library's own registry; do not edit by hand.

A SparseTensor goes through these functions, and through the modules of `torch.nn` that call them,
as a dense tensor does. Its methods of the same names call them too.
"""


def names() -> dict[Callable[..., Any], str]:
    """Return the public name of every function that has one."""
    found: dict[Callable[..., Any], str] = {}
    for prefix, namespace in NAMESPACES:
        for name in sorted(dir(namespace)):
            value = getattr(namespace, name)
            if callable(value) and value.__hash__ is not None:
                found.setdefault(value, f"{prefix}.{name}")
    return found


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield name, meaning and law of every registered function.

    Raises:
        ValueError: a function of PyTorch has no meaning registered.
    """
    known = names()
    for function in HANDLERS:
        name = known.get(function)
        if function in MEANINGS:
            yield name or repr(function), *MEANINGS[function]
        elif name is not None and not name.startswith("torch."):
            first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
            yield name, first, ""
        elif name is not None:
            raise ValueError(f"{name}: registered without meaning= and law=")


def text() -> str:
    """Return the whole file."""
    known = names()
    supported = sorted(rows(), key=_place)
    lines = [HEAD, "| function | sparse meaning | law |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {meaning} | {law} |" for name, meaning, law in supported]
    lines += ["", "## Refused", "", "These raise `NotImplementedError`, as all others do.", ""]
    lines += ["| function | instead |", "| --- | --- |"]
    refused = sorted((known.get(entry, repr(entry)), how) for entry, how in REFUSED.items())
    lines += [f"| `{name}` | {how} |" for name, how in refused]
    return "\n".join(lines) + "\n"


def _place(row: tuple[str, str, str]) -> tuple[bool, str]:
    """Sort PyTorch's functions before ours."""
    return row[0].startswith("sparseconv"), row[0]


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET.name}")
