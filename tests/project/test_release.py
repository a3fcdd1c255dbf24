"""A release is what is committed: a dirty tree, a tag that exists, an old changelog are refused."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, with a build that writes two empty archives and a check that believes them."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("release")

    def build(folder: Path, *, source: bool) -> list[Path]:
        assert source
        folder.mkdir()
        archives = [folder / "a.whl", folder / "a.tar.gz"]
        for archive in archives:
            archive.touch()
        return archives

    monkeypatch.setattr(module, "build", build)
    module.checked = []
    monkeypatch.setattr(module, "check", module.checked.append)
    return module


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of version 1.2.3, all of it committed."""
    (tmp_path / "sparseconv").mkdir()
    (tmp_path / "sparseconv" / "version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3\n\n## 1.2.2\n")
    (tmp_path / ".gitignore").write_text("/dist/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.name", "a tester")
    git(tmp_path, "config", "user.email", "tester@example.org")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "Change a file")


def test_a_release_is_built_checked_and_tagged(release: ModuleType, repository: Path) -> None:
    release.main([], repository)
    assert git(repository, "rev-list", "-1", "v1.2.3") == git(repository, "rev-parse", "HEAD")
    assert sorted(release.checked) == sorted((repository / "dist").iterdir())
    assert len(release.checked) == 2


def test_a_dry_run_tags_nothing(release: ModuleType, repository: Path) -> None:
    release.main(["--dry-run"], repository)
    assert (repository / "dist" / "a.whl").exists()
    assert git(repository, "tag") == ""


def dirty(root: Path) -> None:
    (root / "notes").touch()


def tagged(root: Path) -> None:
    git(root, "tag", "v1.2.3")


def outdated(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.2\n")
    commit(root)


@pytest.mark.parametrize(
    "spoil, words",
    [(dirty, r"commit or remove.*\n\?\? notes"), (tagged, "v1.2.3 exists"), (outdated, "1.2.3")],
)
def test_what_is_not_ready_is_refused_before_any_work(
    release: ModuleType, repository: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(repository)
    with pytest.raises(SystemExit, match=words):
        release.main([], repository)
    assert not (repository / "dist").exists()
