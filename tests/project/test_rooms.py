"""Every folder is a room: its docstring lists what is in it, and that is not too much."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sparseconv

PACKAGE = Path(sparseconv.__file__).parent
# inside of an engine its entrance, engine.py, lists the functions by name
ROOMS = [
    room
    for path in sorted(PACKAGE.rglob("__init__.py"))[1:]
    if not (room := str(path.parent.relative_to(PACKAGE))).startswith("engines/")
]
ENTRY = re.compile(r"(?:^|[.:] )((?:[a-z_0-9]+, )*[a-z_0-9]+): ")


def contents(room: Path) -> set[str]:
    """Return the names of a folder's modules and folders."""
    modules = {path.stem for path in room.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in room.glob("*/__init__.py")}


def listed(text: str) -> set[str]:
    """Return the names before a colon at the beginning of a sentence, below the first line."""
    _, _, rooms = text.partition("\n")
    entries = ENTRY.findall(" ".join(rooms.split()))
    return {name for names in entries for name in names.split(", ")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_what_is_in_it(room: str) -> None:
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert text is not None
    assert listed(text) == contents(PACKAGE / room)


def test_names_before_colons_are_entries() -> None:
    text = "A room: the first line.\n\none, two: files, as\nthese: here. three: a folder."
    assert listed(text) == {"one", "two", "three"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_at_most_twelve_files(room: str) -> None:
    assert len(list((PACKAGE / room).glob("*.py"))) <= 12


def test_the_root_holds_at_most_eight_files() -> None:
    assert sum(path.is_file() for path in PACKAGE.iterdir()) <= 8
