"""The versions that are declared, and those that the tests run with, are the same ones."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import sparseconv as sc

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def declared() -> dict[str, Requirement]:
    """Return every requirement of pyproject.toml, extras included, by its name."""
    tables = PYPROJECT.partition("dependencies = [")[2].partition("[project.scripts]")[0]
    found = [Requirement(text) for text in re.findall(r'"([\w.-]+(?:\[[\w,]+\])?[^"]*)"', tables)]
    return {entry.name: entry for entry in found if entry.name not in {"version", "sparseconv"}}


def pinned(name: str) -> dict[str, list[Version]]:
    """Return the versions that a file of constraints names; some depend on that of Python."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[Version]] = {}
    for entry in (Requirement(line) for line in lines if line and not line.startswith("#")):
        (pin,) = entry.specifier
        assert pin.operator == "==", entry
        found.setdefault(entry.name, []).append(Version(pin.version))
    return found


def test_the_lowest_versions_are_those_that_make_lowest_installs() -> None:
    bounds = {
        name: Version(bound.version)
        for name, entry in declared().items()
        for bound in entry.specifier
        if bound.operator == ">="
    }
    assert bounds.keys() == declared().keys()
    lowest = pinned("constraints-lowest.txt")
    assert lowest.keys() == bounds.keys()
    for name, bound in bounds.items():
        (version,) = lowest[name]
        assert version.release[: len(bound.release)] == bound.release, name


def test_the_newest_versions_are_those_that_make_test_installs() -> None:
    newest = pinned("constraints.txt")
    for name, entry in declared().items():
        assert all(version in entry.specifier for version in newest[name]), name
        for bound in entry.specifier:
            if bound.operator == "<":  # the first version that was not tested
                last = max(newest[name])
                first = (last.major, last.minor + 1)
                assert Version(bound.version).release == first, name


def test_the_version_is_that_of_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## ([\d.]+)", text, re.MULTILINE)
    assert versions[0] == sc.__version__


def test_the_citation_names_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {sc.__version__}\n" in citation
