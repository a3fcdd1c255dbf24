"""Build the wheel and the source archive, check both, and tag the commit with the version.

    python tools/release.py             # what `make release` runs: dist/ and the tag v0.2.0
    python tools/release.py --dry-run   # everything but the tag: `make release DRY_RUN=1`

The tag names the commit that the archives were built from: files that are not committed, a tag that
exists, and a changelog whose newest version is another one are refused before any work. Pushing the
tag and the archives is left to the person who releases.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

from check_dist import ROOT, build, check


def git(root: Path, *arguments: str) -> str:
    """Run git in the repository and return what it printed."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def version(root: Path) -> str:
    """Return the version that the package declares."""
    text = (root / "sparseconv" / "version.py").read_text(encoding="utf-8")
    (number,) = re.findall(r'^__version__ = "([\d.]+)"', text, re.MULTILINE)
    return str(number)


def tag_for(root: Path) -> str:
    """Return the tag of the release, or say why the repository is not ready for it."""
    number = version(root)
    tag = f"v{number}"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## ([\d.]+)", changelog, re.MULTILINE)[:1]
    if newest != [number]:
        raise SystemExit(f"CHANGELOG.md: its newest version must be {number}, got {newest}")
    if changed := git(root, "status", "--porcelain"):
        raise SystemExit(f"commit or remove these files first:\n{changed}")
    if git(root, "tag", "--list", tag):
        raise SystemExit(f"{tag} exists: raise __version__ in sparseconv/version.py")
    return tag


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    """Release what is committed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything but the tag")
    options = parser.parse_args(arguments)
    tag = tag_for(root)
    folder = root / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    for archive in build(folder, source=True):
        check(archive)
    if options.dry_run:
        print(f"{tag} would be tagged; the archives are in {folder.name}/")
        return
    git(root, "tag", "--annotate", tag, "--message", f"Version {tag[1:]}")
    print(f"tagged {tag}; next: git push origin {tag}")


if __name__ == "__main__":
    main()
