"""Each idea is written once: copies of functions, aliases and argument checks are found here."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparseconv

PACKAGE = Path(sparseconv.__file__).parent
# the reference shares nothing with what it judges, and readers run without torch
INDEPENDENT = ("reference/", "io/")
CHECKS = "core/arguments.py"
MIN_STATEMENTS = 4
Modules = dict[str, ast.Module]


@functools.cache
def modules() -> Modules:
    """Return the package's files, parsed, by their path in it."""
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


class _Renamed(ast.NodeTransformer):
    """Numbers a function's own names in the order in which they occur."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.numbers: dict[str, str] = {}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id not in self.names:
            return node
        number = self.numbers.setdefault(node.id, f"name{len(self.numbers)}")
        return ast.Name(number, node.ctx)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def body(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return the statements of a function without its docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return function.body[1:] if documented else function.body


def statements(function: ast.FunctionDef) -> int:
    return sum(isinstance(node, ast.stmt) for part in body(function) for node in ast.walk(part))


@functools.cache
def meaning(function: ast.FunctionDef) -> str:
    """Return the body as text in which the function's own names do not matter."""
    copy = ast.parse(ast.unparse(ast.Module(body(function), [])))
    arguments = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    stored = {
        node.id
        for node in ast.walk(copy)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return ast.dump(_Renamed(arguments | stored).visit(copy))


def copied_bodies(files: Modules) -> list[list[str]]:
    """Return functions of some length that do the same, whatever their names."""
    places = defaultdict(list)
    for name, tree in files.items():
        for function in functions(tree):
            if statements(function) >= MIN_STATEMENTS:
                places[meaning(function)].append(f"{name}:{function.name}")
    return [copies for copies in places.values() if len(copies) > 1]


def copied_functions(files: Modules) -> list[list[str]]:
    """Return functions of any length with one name and one body.

    ``_`` is a decorated shape, and a module lists its names by a ``__dir__`` of its own.
    """
    places = defaultdict(list)
    for name, tree in files.items():
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and function.name not in ("_", "__dir__"):
                places[function.name.strip("_"), meaning(function)].append(name)
    return [[key[0], *copies] for key, copies in places.items() if len(copies) > 1]


def copied_aliases(files: Modules) -> list[list[str]]:
    """Return module-level values that are written down in two files under one name.

    A plain number is no definition: two files may mean two things by a 4.
    """
    places = defaultdict(list)
    for name, tree in files.items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target: ast.expr = node.targets[0]
            elif isinstance(node, ast.AnnAssign):
                target = node.target
            else:
                continue
            if isinstance(target, ast.Name) and not isinstance(node.value, ast.Constant | None):
                places[target.id.strip("_"), ast.dump(node.value)].append(name)
    return [[key[0], *copies] for key, copies in places.items() if len(copies) > 1]


# isinstance(x, bool) beside isinstance(x, int), in either order and negated or not
INT_BUT_NO_BOOL = re.compile(
    r"isinstance\((.+?), bool\).*isinstance\(\1, int|isinstance\((.+?), int.*isinstance\(\2, bool\)"
)


def private_checks(files: Modules) -> list[str]:
    """Return checks for an int that is no bool, and messages that name the type that came."""
    places = []
    for name, tree in files.items():
        if name == CHECKS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.BoolOp) and INT_BUT_NO_BOOL.search(ast.unparse(node)):
                places.append(f"{name}:{node.lineno}: is_int")
            if isinstance(node, ast.JoinedStr) and "got {type(" in ast.unparse(node):
                places.append(f"{name}:{node.lineno}: came")
    return places


def shared() -> Modules:
    """Return the files that may share what they define."""
    return {name: tree for name, tree in modules().items() if not name.startswith(INDEPENDENT)}


def test_no_function_is_written_twice() -> None:
    assert copied_bodies(shared()) == []
    assert copied_functions(shared()) == []


def test_no_alias_or_constant_is_written_twice() -> None:
    assert copied_aliases(shared()) == []


def test_arguments_are_checked_in_one_place() -> None:
    assert private_checks(shared()) == []


PLANTED = {
    "a body under other names": (
        copied_bodies,
        """
def another_sum(values):
    '''Add by halves.'''
    if values.shape[0] == 0:
        return values.sum(dim=0)
    while values.shape[0] > 1:
        middle = values.shape[0] // 2
        both = values[:middle] + values[middle:2 * middle]
        values = torch.cat([both, values[2 * middle:]]) if values.shape[0] % 2 else both
    return values[0]
""",
    ),
    "a short function": (
        copied_functions,
        "def _wider(kind):\n    return torch.float32 if kind in HALVES else kind\n",
    ),
    "an alias": (copied_aliases, "_Size = int | Sequence[int]\n"),
    "a constant": (copied_aliases, "HALVES = (torch.float16, torch.bfloat16)\n"),
    "a check of an int": (
        private_checks,
        "def check(n):\n    return isinstance(n, bool) or not isinstance(n, int) or n < 1\n",
    ),
    "a check of an int, turned": (
        private_checks,
        "def check(n):\n    return isinstance(n, int) and not isinstance(n, bool)\n",
    ),
    "what came": (
        private_checks,
        "def text(n):\n    return f'n: must be 1, got {type(n).__name__}'\n",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_copy_is_found(planted: str) -> None:
    find, text = PLANTED[planted]
    copies = find(shared() | {"planted.py": ast.parse(text)})
    assert any("planted.py" in str(copy) for copy in copies)
