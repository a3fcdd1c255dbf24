"""A fresh installation answers before its kernels of sites and rulebooks are compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv.core.geometry import Geometry, Kind
from sparseconv.core.index import Index, Packing
from sparseconv.engines.numba import first_calls
from sparseconv.engines.numba.keys import index as own
from sparseconv.engines.numba.machine import compile as compiled
from sparseconv.engines.numba.rulebooks import build
from sparseconv.engines.torch import keys as plain
from sparseconv.engines.torch import maps


@st.composite
def _geometries(draw: st.DrawFn, axes: int) -> Geometry:
    def sizes(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(axes))

    zeros = (0,) * axes
    if draw(st.booleans()):
        size = tuple(2 * half + 1 for half in sizes(0, 1))
        dilation = sizes(1, 2)
        padding = tuple(d * (k // 2) for d, k in zip(dilation, size, strict=True))
        return Geometry(
            size, (1,) * axes, padding, padding, dilation, zeros, Kind.SUBMANIFOLD
        )  # fmt: skip
    padding = sizes(0, 1)
    kind = draw(st.sampled_from([Kind.REGULAR, Kind.TRANSPOSED]))
    return Geometry(sizes(1, 3), sizes(1, 3), padding, padding, sizes(1, 2), zeros, kind)


def _equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and torch.equal(left, right)


@given(st.data())
def test_the_plain_engine_gives_the_same_integers(data: st.DataObject) -> None:
    """To the bit: who answers is not seen in a result."""
    axes = data.draw(st.integers(1, 4))
    geometry = data.draw(_geometries(axes))
    cells = st.tuples(st.integers(0, 2), *[st.integers(-4, 4)] * axes)
    repeats = data.draw(st.booleans())
    rows = data.draw(st.lists(cells, min_size=1, max_size=40, unique=not repeats))
    coords = torch.tensor(rows, dtype=data.draw(st.sampled_from([torch.int32, torch.int64])))
    assert own.bounds(coords) == plain.bounds(coords)
    packing = Packing.around(*plain.bounds(coords), 2**62)
    mine, theirs = own.build_index(coords, packing), plain.build_index(coords, packing)
    assert _equal(mine.keys, theirs.keys)
    assert _equal(mine.order, theirs.order)
    assert own.ascends(mine.keys) == plain.ascends(mine.keys)
    if repeats:
        return
    wanted = torch.arange(-1, int(mine.keys.max()) + 2)
    assert _equal(own.lookup(mine, wanted), plain.lookup(theirs, wanted))
    low, high = geometry.reach(packing.lower[1:], packing.upper[1:])
    around = Packing.around((packing.lower[0], *low), (packing.upper[0], *high), 2**62)
    if geometry.kind is Kind.SUBMANIFOLD:
        fine = coarse = mine
    else:
        reached = own.reached_keys(mine, geometry, around)
        assert _equal(reached, maps.reached_keys(mine, geometry, around))
        other = Index(reached, None, around)
        fine, coarse = (mine, other) if geometry.kind is Kind.REGULAR else (other, mine)
    books = [engine.build_rulebook(fine, coarse, geometry) for engine in (build, maps)]
    assert books[0].splits == books[1].splits
    assert _equal(books[0].in_rows, books[1].in_rows)
    assert _equal(books[0].out_rows, books[1].out_rows)


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """No kernel is on disk, and the second process is not ready; yields who answered."""
    monkeypatch.setattr(first_calls, "on_disk", lambda kernels: False)
    monkeypatch.setattr(first_calls, "_second_process", _Process)
    monkeypatch.delenv("SPARSECONV_ENGINE", raising=False)
    _Process.ended = None
    yield []


class _Process:
    ended: int | None = None

    def poll(self) -> int | None:
        return _Process.ended


def test_the_plain_engine_answers_until_the_second_process_ends(cold: list[str]) -> None:
    run = first_calls._meanwhile(lambda: cold.append("plain"), lambda: cold.append("own"))
    run()
    with sc.engine("numba"):  # who names the engine gets it
        run()
    _Process.ended = 1  # that it failed, too, is no reason to wait
    run()
    assert cold == ["plain", "own", "own"]


def test_nobody_asks_where_all_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_calls, "on_disk", lambda kernels: True)
    assert first_calls._meanwhile(plain.ascends, own.ascends) is own.ascends


@pytest.mark.slow
@pytest.mark.xdist_group("warm cache")
def test_the_second_process_compiles_every_kernel(tmp_path: Path) -> None:
    """And then the engine's functions are the compiled ones again."""
    check = "from sparseconv.engines.numba import engine, first_calls as f; " + (
        "print(f.on_disk(f.KERNELS), engine.build_rulebook is f.build.build_rulebook)"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    answers = []
    for program in (check, first_calls.PROGRAM, check):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        answers.append(done.stdout.strip())
    assert answers == ["False False", "", "True True"]
    assert compiled.on_disk(()) is True
