"""What a kernel file of the Numba engine is worth: its benchmark rows with it and without it.

A file names its rows in its docstring, a line each: ``Benchmark: <group> <what>``. Without the file
its part of the work is done by what the library would do then: another kernel of the engine where
there is one, else the plain engine.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import sparseconv as sc
from benchmarks import deform
from benchmarks.rows import Row
from benchmarks.timing import interleaved
from sparseconv.engines.numba.products import convolve
from sparseconv.engines.numba.products.groups import Lanes
from sparseconv.engines.numba.products.narrow import NarrowWeight

KERNELS = Path(sc.__file__).parent / "engines" / "numba"
LINE = re.compile(r"^Benchmark: (\w+) (.+)$", re.MULTILINE)
PAYS = 1.03  # a file whose rows are no slower than this without it may go
Run = Callable[[], object]


def rows_of(path: Path) -> list[tuple[str, str]]:
    """Return the group and the name of each row that a kernel file serves."""
    docstring = path.read_text(encoding="utf-8").split('"""')[1]
    return [(group, what) for group, what in LINE.findall(docstring)]


@contextmanager
def _without(kind: type) -> Iterator[None]:
    """Let no weight have a layout for which another kernel can stand in."""
    found = kind.__dict__["of"]
    kind.of = classmethod(lambda *_: None)  # type: ignore[attr-defined]
    convolve._layout_of.cache_clear()
    try:
        yield
    finally:
        kind.of = found  # type: ignore[attr-defined]
        convolve._layout_of.cache_clear()


STAND_INS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "products/narrow.py": lambda: _without(NarrowWeight),
    "products/groups.py": lambda: _without(Lanes),
    "products/lanes.py": lambda: _without(Lanes),
}


@dataclass
class _OneRow:
    """Stands for a :class:`benchmarks.setting.Setting`: it times nothing, and keeps one row's run.

    Attributes:
        x, threads, scene: as of a setting.
        wanted: the row.
        runs: what the row's value is the time of, once it has come.
    """

    x: sc.SparseTensor
    threads: int
    scene: str
    wanted: tuple[str, str]
    quick: bool = False
    peers: bool = False
    runs: list[Run] = field(default_factory=list)
    _contenders: list[Run] = field(default_factory=list)

    def measure(self, contenders: dict[str, Run], *_: Any, **__: Any) -> dict[str, float]:
        """Return a number for each contender by which :meth:`row` knows it."""
        self._contenders = list(contenders.values())
        return {name: float(number + 1) for number, name in enumerate(contenders)}

    def row(self, group: str, what: str, value: float, *_: Any, **__: Any) -> Row:
        """Keep the run if it is the row's."""
        if (group, what) == self.wanted and not self.runs:
            self.runs.append(self._contenders[int(value) - 1])
        return Row(group, what, self.scene, self.threads, value, "", 1.0)


def _run_of(groups: dict[str, tuple[Any, ...]], setting: _OneRow) -> Run:
    """Return what a row times."""
    if setting.wanted[0] == "deform":  # a benchmark of its own
        return deform.contenders()["sparseconv: forward and backward"]
    for group in groups[setting.wanted[0]]:
        for _ in group(setting):
            if setting.runs:
                return setting.runs[0]
    raise ValueError(f"no row {' '.join(setting.wanted)!r}")


def pays(name: str, groups: dict[str, tuple[Any, ...]], scene: str, x: sc.SparseTensor) -> None:
    """Measure the rows of a file with it and without it, in turns, and print medians.

    Args:
        name: the path of a kernel file, or its end, as ``products/narrow.py``.
        groups: the functions of each group of rows.
        scene, x: what to measure on.
    """
    (path,) = [entry for entry in KERNELS.rglob("*.py") if str(entry).endswith(name)]
    key = path.relative_to(KERNELS).as_posix()
    without = STAND_INS.get(key, lambda: sc.engines.engine("torch"))
    instead = "another kernel" if key in STAND_INS else "the plain engine"
    threads, ratios = torch.get_num_threads(), []
    for row in rows_of(path):
        with_it = _run_of(groups, _OneRow(x, threads, scene, row))
        with without():
            built = _run_of(groups, _OneRow(x, threads, scene, row))

        def without_it(built: Run = built) -> None:
            with without():
                built()

        contenders = {"with": with_it, "without": without_it}
        ms = interleaved(contenders, rounds=9, seconds=6)
        ratios.append(ms["without"] / ms["with"])
        sys.stdout.write(
            f"{key}, {scene}, {threads} threads: {' '.join(row)}: {ms['with']:.4g} ms with it, "
            f"{ms['without']:.4g} ms by {instead}: x{ratios[-1]:.2f}\n"
        )
    verdict = "pays" if max(ratios) > PAYS else "does not pay: delete it"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    sys.stdout.write(f"{key}, {lines} lines: {verdict}\n")
