"""Write docs/functions.md: what functions do on a SparseTensor, and by which law.

Run ``python tools/function_table.py`` after registering a function; a test checks that the file is
current.
"""

from __future__ import annotations

import inspect
import re
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

<!-- Written by tools/function_table.py from the library's own registry; do not edit by hand. -->

A SparseTensor goes through these functions, and through the modules of `torch.nn` that call them,
as a dense tensor does. Its methods of the same names call them too.
"""

# Titles of the sections, in their order, by the room where the sparse meaning is defined.
SECTIONS = {
    "convolution": "Convolution",
    "pooling": "Pooling",
    "values.norm": "Normalisation",
    "values.dropout": "Dropout",
    "values.pointwise": "Functions of each value",
    "values.rows": "Functions of each site",
    "values.channels": "Channels",
    "values.arithmetic": "Arithmetic",
    "values.reduce": "Reductions",
    "site_sets": "Sites",
    "values.plain": "Plain tensors beside a sparse one",
    "values.operators": "Operators and functions in place",
}

_ZERO = "an inactive site counts 0"
_HOLE = "an inactive site is a hole: it is not summed and not counted"
# The laws of the library's own functions, by name.
LAWS = {
    "avg_pool": f"{_ZERO}, and in the divisor as padding does (count_include_pad)",
    "max_pool": "an inactive site counts minus infinity",
    "conv": _ZERO,
    "conv4d": _ZERO,
    "conv_transpose": _ZERO,
    "deform_conv": f"{_ZERO}, also between sites, where it is interpolated",
    "inverse_conv": f"{_ZERO}; output sites are those that the layer to undo read",
    "locally_connected": _ZERO,
    "partial_conv": _HOLE,
    "partial_conv_transpose": _HOLE,
    "subm_conv": f"{_ZERO}; output sites are the input sites",
    "subm_partial_conv": f"{_HOLE}; output sites are the input sites",
    "partial_avg_pool": _HOLE,
    "partial_max_pool": _HOLE,
}


def names() -> dict[Callable[..., Any], str]:
    """Return the public name of every function that has one."""
    found: dict[Callable[..., Any], str] = {}
    for prefix, namespace in NAMESPACES:
        for name in sorted(dir(namespace)):
            value = getattr(namespace, name)
            if callable(value) and value.__hash__ is not None:
                found.setdefault(value, f"{prefix}.{name}")
    return found


def modules(name: str) -> str:
    """Return the modules that are called like a function, PyTorch's or ours."""
    home, _, function = name.rpartition(".")
    plain = function.replace("_", "")
    known = dir(sc.nn) if home == "sparseconv.functional" else torch.nn.modules.__all__
    found = [
        f"`{entry}`"
        for entry in sorted(known)
        if entry[0].isupper() and plain in (entry.lower(), re.sub(r"[1-4]d$", "", entry).lower())
    ]
    return ", ".join(found)


def section(function: Callable[..., Any], name: str) -> str:
    """Return the title that a function stands under."""
    handler = HANDLERS[function]
    module = inspect.unwrap(getattr(handler, "func", handler)).__module__
    room = module.removeprefix("sparseconv.functional.")
    if name.endswith("_"):  # x.add_(y), and x += y, which is __iadd__
        room = "values.operators"
    return next(title for place, title in SECTIONS.items() if room.startswith(place))


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield section, name, meaning and law of every registered function.

    Raises:
        ValueError: a function of PyTorch has no meaning registered.
        KeyError: one of the library's own has no law.
    """
    known = names()
    for function in HANDLERS:
        name = known.get(function)
        if function in MEANINGS:
            label = name or repr(function)
            yield section(function, label), label, *MEANINGS[function]
        elif name is not None and not name.startswith("torch."):
            first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
            meaning = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first).replace("``", "`")
            yield section(function, name), name, meaning, LAWS[name.rpartition(".")[2]]
        elif name is not None:
            raise ValueError(f"{name}: registered without meaning= and law=")


def text() -> str:
    """Return the whole file."""
    known = names()
    supported = sorted(rows(), key=lambda row: (row[1].startswith("sparseconv"), row[1]))
    lines = [HEAD]
    for title in SECTIONS.values():
        lines += [f"## {title}", "", "| function | modules | sparse meaning | law |"]
        lines += ["| --- | --- | --- | --- |"]
        for _, name, meaning, law in (row for row in supported if row[0] == title):
            lines.append(f"| `{name}` | {modules(name)} | {meaning} | {law} |")
        lines.append("")
    lines += ["## Refused", "", "These raise `NotImplementedError`, as all others do.", ""]
    lines += ["| function | instead |", "| --- | --- |"]
    refused = sorted((known.get(entry, repr(entry)), how) for entry, how in REFUSED.items())
    lines += [f"| `{name}` | {how} |" for name, how in refused]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")
    print(f"wrote {TARGET.name}")
