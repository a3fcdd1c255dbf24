"""The names of MinkowskiEngine and TorchSparse: all here, or with a reason, and in their order."""

from __future__ import annotations

import importlib
import json

import pytest
from make_peer_names import FILES, FIXTURES

from tools import compat_table

NAMES = {
    library: json.loads((FIXTURES / f"{library}_names.json").read_text(encoding="utf-8"))
    for library in FILES
}
PATHS = [(library, path) for library, modules in NAMES.items() for path in modules]


@pytest.mark.parametrize("library", FILES)
def test_every_name_is_here_and_tested_or_has_a_reason(library: str) -> None:
    for line in compat_table.lines(library):
        assert line.supported != "no", line
        assert line.tests or line.supported.startswith("no: "), line


@pytest.mark.parametrize(("library", "path"), PATHS)
def test_parameters_are_theirs_and_in_their_order(library: str, path: str) -> None:
    """A call by position means the same."""
    module = importlib.import_module(f"sparseconv.compat.{library}.{path}".rstrip("."))
    for name, parameters in NAMES[library][path].items():
        if hasattr(module, name):
            own = compat_table.parameters_of(getattr(module, name))
            known = [parameter for parameter in parameters if parameter in own]
            assert own[: len(known)] == known, name
