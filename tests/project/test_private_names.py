"""PyTorch's private names are touched in one file, and what lacks one is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sparseconv
from sparseconv.core import private_torch

PACKAGE = Path(sparseconv.__file__).parent
ALLOWED = ("core/private_torch.py", "engines/numba/machine/")
OF_TENSORS = {"_is_view", "_version", "_base", "_current_level"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def root(node: ast.expr) -> str:
    """Return the name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_names(code: str) -> Iterator[str]:
    """Return the private names of PyTorch in ``code``."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            path = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, path)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                path = alias.name.split(".")
                yield from filter(is_private, path if path[0] == "torch" else ())
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr in OF_TENSORS or root(node) in ("torch", "forward_ad"):
                yield node.attr
        elif isinstance(node, ast.Constant) and node.value in private_torch._HOOKS:
            yield node.value


def test_private_names_live_in_one_file() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        names = [] if name.startswith(ALLOWED) else sorted(private_names(path.read_text()))
        if names:
            found[name] = names
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo",
        "from torch._C import f",
        "from torch.nn.modules.conv import _ConvNd",
        "torch._C._f()",
        "t._version",
        "result._is_view()",
        "getattr(module, '_forward_hooks')",
        "forward_ad._current_level",
    ],
)
def test_a_private_name_is_seen(code: str) -> None:
    assert list(private_names(code))


def test_a_version_that_lacks_a_name_is_named() -> None:
    with pytest.raises(ImportError, match=r"Tensor has no _renamed"):
        private_torch.check(((torch.Tensor, "_renamed"),))


def test_the_error_at_start_up_names_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.nn.modules.conv, "_ConvNd")
    code = Path(private_torch.__file__).read_text()
    with pytest.raises(
        ImportError, match=f"^torch: version {re.escape(torch.__version__)}.*_ConvNd"
    ):
        exec(compile(code, "private_torch", "exec"), {"__name__": "planted"})
