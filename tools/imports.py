"""Write which room imports which into CONTRIBUTING.md; a circle is an error.

    python tools/imports.py           # write the table
    python tools/imports.py --check   # compare it with the imports as they are

A room is a package or module directly under ``sparseconv/``. Every import counts: those inside
functions and those for type checkers alone. The package's own ``__init__`` and ``__main__`` import
everything and are left out.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sparseconv"
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: made by python tools/imports.py -->", "<!-- end of rooms -->"
Graph = dict[str, set[str]]


def files(room: str, package: Path = PACKAGE) -> list[Path]:
    """Return the sources of a room."""
    folder = package / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [package / f"{room}.py"]


def rooms(package: Path = PACKAGE) -> list[str]:
    """Return all rooms, by name."""
    names = {path.stem for path in package.glob("*.py")}
    names |= {path.parent.name for path in package.glob("*/__init__.py")}
    return sorted(names - {"__init__", "__main__"})


def imported(source: str, names: set[str], package: str) -> set[str]:
    """Return the rooms, of ``names``, that a source imports anywhere."""
    found: list[list[str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [[*node.module.split("."), alias.name] for alias in node.names]
    heads = {parts[1] for parts in found if parts[0] == package and len(parts) > 1}
    return heads & names


def graph(package: Path = PACKAGE) -> Graph:
    """Return the rooms that each room imports."""
    names = set(rooms(package))
    made: Graph = {}
    for room in sorted(names):
        sources = [path.read_text(encoding="utf-8") for path in files(room, package)]
        reached = [imported(source, names, package.name) for source in sources]
        made[room] = set().union(*reached) - {room}
    return made


def heights(arrows: Graph) -> dict[str, int]:
    """Return each room's longest way down; raises ``graphlib.CycleError`` where two meet."""
    found: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        found[room] = 1 + max((found[below] for below in arrows[room]), default=-1)
    return found


def job(room: str | Path) -> str:
    """Return the first line of a room's docstring, without its marks of cross-references."""
    first = PACKAGE / room / "__init__.py"
    source = (first if first.exists() else PACKAGE / f"{room}.py").read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].rstrip(".")
    return re.sub(r"(?::\w+:)?`+([^`]+)`+", r"`\1`", line)


def table() -> str:
    """Return the rooms from the top of the house to its ground; every arrow points down."""
    arrows = graph()
    height = heights(arrows)
    order = sorted(arrows, key=lambda room: (-height[room], room))
    lines = ["| room | what it is | imports |", "| --- | --- | --- |"]
    for room in order:
        below = ", ".join(other for other in order if other in arrows[room]) or "nothing"
        lines.append(f"| `{room}` | {job(room)} | {below} |")
    count = sum(map(len, arrows.values()))
    lines += ["", f"{len(arrows)} rooms, {count} arrows, none of which runs back up.", ""]
    lines += ["The larger rooms have rooms of their own:", ""]
    lines += ["| room | what it is |", "| --- | --- |"]
    for first in sorted(PACKAGE.glob("*/**/__init__.py")):
        inner = first.parent.relative_to(PACKAGE)
        if len(inner.parts) > 1:
            lines.append(f"| `{inner}` | {job(inner)} |")
    return "\n".join(lines)


def replaced(page: str, inside: str) -> str:
    """Return a page with the text between its two marks replaced."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{inside}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail where it differs")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    current = replaced(page, table())
    if not options.check:
        PAGE.write_text(current, encoding="utf-8")
    elif page != current:
        sys.exit("CONTRIBUTING.md draws other imports: python tools/imports.py writes them")


if __name__ == "__main__":
    main()
