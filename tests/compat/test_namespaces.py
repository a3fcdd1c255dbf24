"""Programs that import another library find its names here, and what was there comes back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import sparseconv as sc


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back whatever a test installed."""
    yield
    sc.compat.uninstall()


def test_imports_find_the_names() -> None:
    sc.compat.install("spconv", force=True)
    spconv = importlib.import_module("spconv.pytorch")
    core = importlib.import_module("spconv.pytorch.core")
    assert core.SparseConvTensor is spconv.SparseConvTensor
    assert spconv.SparseConvTensor.__module__ == "sparseconv.compat.spconv.tensor"


def test_a_library_in_use_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without force an import that already happened stands; with force it comes back."""
    theirs = ModuleType("spconv")
    monkeypatch.setitem(sys.modules, "spconv", theirs)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", ModuleType("spconv.pytorch"))
    monkeypatch.setitem(sys.modules, "spconv.theirs", ModuleType("spconv.theirs"))
    with pytest.raises(sc.SparseConvError, match=r"spconv was imported .* force=True"):
        sc.compat.install("spconv")
    assert sys.modules["spconv"] is theirs
    sc.compat.install("spconv", force=True)
    assert sys.modules["spconv"] is not theirs
    assert "spconv.theirs" not in sys.modules
    sc.compat.uninstall()
    assert sys.modules["spconv"] is theirs
    assert "spconv.theirs" in sys.modules


def test_an_installed_library_is_hidden_with_a_warning(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "spconv", raising=False)
    (tmp_path / "spconv.py").write_text("")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match=r"spconv is installed .*uninstall"):
        sc.compat.install("spconv")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [(("torch",), {}, "libraries: must be some of"), ((), {"version": 3}, "version: must be 1 or")],
)
def test_wrong_calls(arguments: tuple[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(sc.SparseConvValueError, match=message):
        sc.compat.install(*arguments, **options)
