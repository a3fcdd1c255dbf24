"""Work on several threads: PyTorch's team where it is known, else our own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sparseconv.engines.numba.machine import threads as numba_threads
from sparseconv.engines.numba.machine.compile import ParallelKernel

Array = np.ndarray[Any, Any]
THREADS = 3

# a child process computes on several threads after its parent has, and so does its own child
FORK = """
import os, signal, sys, torch, sparseconv as sc
from sparseconv.engines.numba.machine import threads as numba_threads
if {older}:
    numba_threads._openmp._pause = None
if {own}:
    numba_threads._openmp.begin = 0
signal.alarm(100)
torch.set_num_threads(2)
coords = torch.cartesian_prod(torch.arange(2), *[torch.arange(24)] * 3)
x = sc.SparseTensor(torch.rand(len(coords), 16), coords)
layer = sc.nn.SubmConv3d(16, 16, 3)
with torch.no_grad():
    wanted = layer(x).features.numpy()
    child = os.fork()
    signal.alarm(100)
    if child == 0:
        grandchild = os.fork()
        signal.alarm(100)
        again = layer(x).features
        good = bool((again.numpy() == wanted).all()) and ({older} or bool((again == again).all()))
        if grandchild == 0:
            os._exit(0 if good else 1)
        _, status = os.waitpid(grandchild, 0)
        os._exit(0 if good and status == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert (layer(x).features.numpy() == wanted).all()
print(status)
"""


@pytest.fixture(params=["PyTorch's team", "our own"], autouse=True)
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test on either team, on three threads."""
    if request.param == "our own":
        monkeypatch.setattr(numba_threads._openmp, "begin", 0)
    elif numba_threads._openmp.begin == 0:
        pytest.skip("PyTorch has no OpenMP library that we know")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield request.param
    torch.set_num_threads(before)


@ParallelKernel
def _mark(first: int, last: int, rows: Array) -> None:
    """Count how often each row is done."""
    for row in range(first, last):
        rows[row] += 1


@intrinsic
def _now(typing, address):
    """Read a number that another thread may have written since."""

    def emit(context: Any, builder: Any, signature: Any, args: tuple[Any, ...]) -> Any:
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(address), emit


@ParallelKernel
def _meet(first: int, last: int, arrived: Array, met: Array) -> None:
    """Say that the row is here, and wait for the others, though not for ever."""
    for row in range(first, last):
        arrived[row] = 1
        for _ in range(2**28):
            here = 0
            for other in range(len(arrived)):
                here += _now(arrived.ctypes.data + 8 * other)
            if here == len(arrived):
                met[row] = 1
                break


@ParallelKernel
def _take(first: int, last: int, sizes: Array, out: Array) -> None:
    """Take memory, more than there is where a row wants so much."""
    for row in range(first, last):
        out[row] = np.zeros(sizes[row], np.uint8).sum()


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, THREADS, 100])
def test_every_row_is_done_once(count: int, step: int) -> None:
    rows = np.zeros(count + 1, np.int64)
    _mark.run(count, step, rows)
    assert rows.tolist() == [1] * count + [0]


def test_parts_run_at_once() -> None:
    arrived, met = np.zeros(THREADS, np.int64), np.zeros(THREADS, np.int64)
    _meet.run(THREADS, 1, arrived, met)
    assert met.all()


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_memory_that_is_not_there_is_an_error(wrong: int) -> None:
    sizes = np.full(THREADS, 10, np.int64)
    sizes[wrong] = 2**60
    with pytest.raises(MemoryError, match="kernel"):
        _take.run(THREADS, 1, sizes, np.empty(THREADS, np.int64))
    test_parts_run_at_once()  # the team is whole again


@ParallelKernel
def _number(first: int, last: int, table: Array) -> None:
    """Write the number of its place to each entry of some rows."""
    for row in range(first, last):
        for column in range(table.shape[1]):
            table[row, column] = row * table.shape[1] + column


def test_arrays_of_every_order_in_memory() -> None:
    """One that is not contiguous is not taken for one that is, nor one of columns for rows."""
    expected = np.arange(12).reshape(4, 3)
    tables = [np.zeros((4, 3), np.int64), np.zeros((3, 4), np.int64).T]
    tables += [np.zeros((4, 6), np.int64)[:, ::2], np.zeros((6, 4), np.int64).T[:, ::2]]
    for table in tables:
        _number.run(4, 3, table)
        assert (table == expected).all()


class _Tables(NamedTuple):
    """Arrays that a kernel takes as one argument."""

    source: Array
    target: Array
    twice: bool


@ParallelKernel
def _copy_tables(first: int, last: int, tables: _Tables) -> None:
    """Write some rows of the source, once or twice as large, to the target."""
    for row in range(first, last):
        for column in range(tables.source.shape[1]):
            value = tables.source[row, column]
            tables.target[row, column] = 2 * value if tables.twice else value


def test_named_groups_of_arrays() -> None:
    """A group's arrays of another order in memory are not taken for those of the one before."""
    values = np.arange(12).reshape(4, 3)
    for source in (values, np.asfortranarray(values), values[:, ::-1]):
        for twice in (False, True):
            target = np.zeros((4, 3), np.int64)
            _copy_tables.run(4, 1, _Tables(source, target, twice))
            assert (target == source * (2 if twice else 1)).all()


def test_several_python_threads_at_once() -> None:
    results = [np.zeros(20, np.int64) for _ in range(4)]

    def work(own: Array) -> None:
        for _ in range(200):
            _mark.run(20, 1, own)

    threads = [threading.Thread(target=work, args=(own,)) for own in results]
    _each(threads, threading.Thread.start)
    _each(threads, threading.Thread.join)
    assert all((own == 200).all() for own in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("older", [False, True], ids=["", "older library"])
def test_a_fork_computes_too(older: bool, team: str) -> None:
    """PyTorch's functions too, but where an older OpenMP library lets no team go."""
    program = FORK.format(older=older, own=team == "our own")
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.stdout.strip() == "0", ran.stderr


def _each(threads: list[threading.Thread], action: Callable[[threading.Thread], None]) -> None:
    for thread in threads:
        action(thread)
