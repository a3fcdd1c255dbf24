"""Print how large a package is: files, lines, its longest function, its longest list of parameters.

python tools/sizes.py [FOLDER ...]      # sparseconv where none is named
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the lines and the number of parameters of every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = node.args
            count = len([*every.posonlyargs, *every.args, *every.kwonlyargs])
            first = [entry.arg for entry in every.args[:1]]
            yield node.name, node.end_lineno - node.lineno + 1, count - (first == ["self"])


def sizes(folder: Path) -> str:
    """Return the sizes of all sources below a folder, in one line each."""
    paths = sorted(folder.rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    found = [(path.relative_to(folder), *entry) for path in paths for entry in functions(path)]
    longest, widest = (max(found, key=lambda entry, at=at: entry[at]) for at in (2, 3))
    largest = max(paths, key=lines.__getitem__)
    kernels = sum(1 for entry in found if entry[3] > 8)
    folders = {path.parent for path in paths}
    fullest = max(folders, key=lambda entry: len(list(entry.glob("*.py"))))
    return "\n".join(
        [
            f"{folder}: {len(paths)} files, {sum(lines.values()):,} lines",
            f"  largest file: {largest.relative_to(folder)}, {lines[largest]} lines",
            f"  fullest folder: {fullest.name}, {len(list(fullest.glob('*.py')))} files",
            f"  longest function: {longest[0]}:{longest[1]}, {longest[2]} lines",
            f"  most parameters: {widest[0]}:{widest[1]}, {widest[3]}; {kernels} take more than 8",
        ]
    )


if __name__ == "__main__":
    for name in sys.argv[1:] or [str(ROOT / "sparseconv")]:
        print(sizes(Path(name)))
