"""Build the wheel and the source archive, and check each as its user would meet it.

    python tools/check_dist.py          # the wheel alone, as `make wheel` does
    python tools/check_dist.py --all    # the source archive too

An archive is good that installs into an empty environment and runs the README's first block there;
the wheel must be pure Python as well.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def first_block(readme: Path) -> tuple[str, str]:
    """Return the first Python block of the README and the output printed under it."""
    pattern = r"```python\n(.*?)```\s*```text\n(.*?)```"
    code, output = re.findall(pattern, readme.read_text(encoding="utf-8"), re.DOTALL)[0]
    return code, output


def run(*command: str | Path, folder: Path) -> str:
    """Run a command in ``folder`` and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def build(folder: Path, *, source: bool) -> list[Path]:
    """Build into ``folder`` and return the archives: the wheel, and the source archive if asked."""
    kinds = ["--wheel", "--sdist"] if source else ["--wheel"]
    run(sys.executable, "-m", "build", *kinds, "--outdir", folder, ROOT, folder=ROOT)
    (wheel,) = folder.glob("*.whl")
    if not wheel.name.endswith("-py3-none-any.whl"):
        raise SystemExit(f"{wheel.name} is not a pure-Python wheel")
    return [wheel, *folder.glob("*.tar.gz")]


def check(archive: Path) -> None:
    """Install an archive into an empty environment and run the README there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "empty", with_pip=True)
        python = folder / "empty" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-q", "-c", constraints, archive, folder=folder)
        code, expected = first_block(ROOT / "README.md")
        printed = run(python, "-c", code, folder=folder)
    if printed.strip() != expected.strip():
        raise SystemExit(f"the README says\n{expected}\nbut {archive.name} prints\n{printed}")
    print(f"{archive.name}: installs into an empty environment and runs the README's first block")


def main() -> None:
    """Check what was asked for; raises where it falls short."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="the source archive too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for archive in build(Path(name), source=options.all):
            check(archive)


if __name__ == "__main__":
    main()
