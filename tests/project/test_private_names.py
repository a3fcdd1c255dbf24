"""Names of Numba and llvmlite that may change are used in one folder, and checked there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sparseconv as sc
from sparseconv.engines.numba.machine import private_names

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "sparseconv" / "engines" / "numba" / "machine"
PRIVATE_OPTIONS = r"numba\.(core|np|cpython|misc)\b|\.entry_point\b|\.fndesc\b"
PRIVATE_CONTEXT = r"call_conv\b|make_array\b|\bmeminfo\b|cgutils\b|no_c(func|python)_wrapper"


def test_only_the_machine_folder_uses_private_names_of_numba() -> None:
    private = re.compile(f"{PRIVATE_OPTIONS}|{PRIVATE_CONTEXT}")
    assert any(private.search(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.py"))
    for path in (ROOT / "sparseconv" / "engines").rglob("*.py"):
        if path.parent != FOLDER:
            assert not private.search(path.read_text(encoding="utf-8")), path


def test_every_private_attribute_of_numba_is_checked() -> None:
    """What the launch takes from ``cgutils`` and from the context is on the list."""
    text = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py"))
    listed = {name.rpartition(".")[2] for name in private_names.PRIVATE_NAMES}
    used = set(re.findall(r"\bcgutils\.(\w+)|\bcontext\.(?!get_dummy_value)(\w+)", text))
    assert {name for pair in used for name in pair if name} <= listed


def test_a_missing_name_is_told_with_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    private_names.check()
    for name in ("numba.core.cgutils.gone", "numba.gone.function", "llvmlite.ir.Gone.method"):
        monkeypatch.setattr(private_names, "PRIVATE_NAMES", (name,))
        with pytest.raises(sc.SparseConvError, match=f"has no {re.escape(name)}.*tested from"):
            private_names.check()


def test_the_check_comes_first() -> None:
    """Before a module of the folder imports such a name itself."""
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    assert ast.unparse(tree.body[-1]) == "private_names.check()"


def test_the_tested_versions_are_those_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ((lowest, excluded),) = re.findall(r'"numba>=(\d+\.\d+),<(\d+\.\d+)"', text)
    first, last = private_names.TESTED["numba"]
    assert first == lowest
    assert tuple(map(int, last.split("."))) < tuple(map(int, excluded.split(".")))
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for package, (_, last) in private_names.TESTED.items():
        assert f"{package}=={last}." in pins
