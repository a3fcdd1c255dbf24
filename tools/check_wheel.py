"""Build the wheel, install it into an empty environment and run the README's first block there."""

from __future__ import annotations

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


def main() -> None:
    """Check the wheel; raises where it falls short."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, folder=ROOT)
        (wheel,) = folder.glob("*.whl")
        if not wheel.name.endswith("-py3-none-any.whl"):
            raise SystemExit(f"{wheel.name} is not a pure-Python wheel")
        venv.create(folder / "empty", with_pip=True)
        python = folder / "empty" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-q", "-c", constraints, wheel, folder=folder)
        code, expected = first_block(ROOT / "README.md")
        printed = run(python, "-c", code, folder=folder)
        if printed.strip() != expected.strip():
            raise SystemExit(f"the README says\n{expected}\nbut the wheel prints\n{printed}")
        print(f"{wheel.name}: installs into an empty environment and runs the README's first block")


if __name__ == "__main__":
    main()
