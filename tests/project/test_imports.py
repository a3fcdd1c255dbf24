"""The table of rooms in CONTRIBUTING is that of the imports, and no arrow runs back up."""

from __future__ import annotations

import importlib
from graphlib import CycleError
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("imports")


def test_the_table_is_that_of_the_imports(imports: ModuleType) -> None:
    page = imports.PAGE.read_text(encoding="utf-8")
    assert page.count(imports.BEGIN) == page.count(imports.END) == 1
    assert imports.replaced(page, imports.table()) == page, "python tools/imports.py writes it"


def test_every_room_says_what_it_is(imports: ModuleType) -> None:
    assert [room for room in imports.rooms() if not imports.job(room)] == []


@pytest.mark.parametrize(
    "back",
    [
        "from house.upper import x",
        "import house.upper.attic",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import upper",
        "def f():\n    from house.upper.attic import x",
    ],
)
def test_an_arrow_that_runs_back_up_is_seen(imports: ModuleType, tmp_path: Path, back: str) -> None:
    house = tmp_path / "house"
    (house / "upper").mkdir(parents=True)
    (house / "__init__.py").write_text("from house import upper\n")
    (house / "upper" / "__init__.py").touch()
    (house / "upper" / "attic.py").write_text("from house.lower import x\n")
    (house / "lower.py").write_text("import upper\n")  # of another package
    assert imports.graph(house) == {"upper": {"lower"}, "lower": set()}
    assert imports.heights(imports.graph(house)) == {"upper": 1, "lower": 0}
    (house / "lower.py").write_text(back)
    with pytest.raises(CycleError):
        imports.heights(imports.graph(house))
