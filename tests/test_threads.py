"""Tasks on several threads: PyTorch's team where it is known, else our own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from sparseconv.engines import numba_threads
from sparseconv.engines.numba_threads import in_parallel

THREADS = 3

# a child process computes on several threads after its parent has, and so does its own child
FORK = """
import os, signal, sys, torch, sparseconv as sc
from sparseconv.engines import numba_threads
if {older}:
    numba_threads._openmp._pause = None
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
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test on either team, on three threads."""
    if request.param == "our own":
        monkeypatch.setattr(numba_threads._openmp, "_begin", None)
    elif numba_threads._openmp._begin is None:
        pytest.skip("PyTorch has no OpenMP library that we know")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, THREADS, 100])
def test_every_task_runs_once(count: int) -> None:
    done: list[int] = []
    in_parallel(done.append, count)
    assert sorted(done) == list(range(count))


def test_tasks_run_at_once() -> None:
    meeting = threading.Barrier(THREADS, timeout=60)
    in_parallel(lambda _: meeting.wait(), THREADS)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_what_a_task_raises_is_raised(wrong: int) -> None:
    def task(number: int) -> None:
        if number == wrong:
            raise ValueError(f"task {number}")

    with pytest.raises(ValueError, match=f"task {wrong}"):
        in_parallel(task, THREADS)
    test_tasks_run_at_once()  # the team is whole again


def test_a_task_may_have_tasks() -> None:
    done: list[int] = []
    in_parallel(lambda outer: in_parallel(lambda inner: done.append(10 * outer + inner), 4), 4)
    assert sorted(done) == [10 * outer + inner for outer in range(4) for inner in range(4)]


def test_several_python_threads_at_once() -> None:
    results: dict[int, int] = {}

    def work(number: int) -> None:
        for _ in range(50):
            found: list[int] = []
            in_parallel(found.append, 20)
            results[number] = results.get(number, 0) + len(set(found))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    _each(threads, threading.Thread.start)
    _each(threads, threading.Thread.join)
    assert results == dict.fromkeys(range(4), 50 * 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("older", [False, True], ids=["", "older library"])
def test_a_fork_computes_too(older: bool) -> None:
    """PyTorch's functions too, but where an older OpenMP library lets no team go."""
    program = FORK.format(older=older)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.stdout.strip() == "0", ran.stderr


def _each(threads: list[threading.Thread], action: Callable[[threading.Thread], None]) -> None:
    for thread in threads:
        action(thread)
