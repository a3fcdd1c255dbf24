"""Large results lie in memory of their own, which goes to the next one when they are gone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import sparseconv as sc
from sparseconv.autograd import elementwise
from sparseconv.engines import memory
from sparseconv.engines.memory_pages import PAGE_BYTES

LARGE = (memory.LEAST_BYTES // 64 + 1, 16)  # float32 rows: just large


@pytest.fixture(autouse=True)
def no_arenas() -> Iterator[None]:
    """Begin and end without memory of other tests."""
    gc.collect()
    memory._arenas.clear()
    yield
    memory._arenas.clear()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("shape", [LARGE, (3, 5), (0, 4), (LARGE[0], 2, 16)])
def test_memory_is_contiguous_aligned_and_no_view(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    for _ in range(2):  # of a new block, and of one that has been used
        x = memory.empty(shape, dtype)
        assert (x.shape, x.dtype) == (shape, dtype)
        assert x.is_contiguous()
        assert not x._is_view()
        assert x.data_ptr() % memory.ALIGNMENT == 0
        x.fill_(3)
        assert bool((x == 3).all())


@pytest.mark.parametrize("shape", [5, (3, 4), 2**19, (2**10, 2, 2**9)])
def test_arrays(shape: int | tuple[int, ...]) -> None:
    x = memory.empty_array(shape, np.int64)
    assert (x.shape, x.dtype) == (np.empty(shape).shape, np.int64)
    assert x.flags.c_contiguous
    x[:] = 3
    assert bool((x == 3).all())
    if x.nbytes >= memory.LEAST_BYTES:
        place = x.ctypes.data
        del x
        assert memory.empty_array(shape, np.int64).ctypes.data == place


def test_memory_goes_to_the_next_result_once_nobody_holds_it() -> None:
    x = memory.empty(LARGE, torch.float32)
    place, view = x.data_ptr(), x[5:].t()
    del x
    other = memory.empty(LARGE, torch.float32)
    assert other.data_ptr() != place  # the view still reads the first
    del view
    small = memory.empty((LARGE[0] - 1, 16), torch.float32)
    assert small.data_ptr() == place


def test_neighbours_that_are_free_become_one() -> None:
    held = [memory.empty(LARGE, torch.float32) for _ in range(6)]
    place = held[1].data_ptr()
    del held[1:4]
    assert memory.empty((3 * LARGE[0], 16), torch.float32).data_ptr() == place


def test_a_result_larger_than_an_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ARENA_BYTES", memory.LEAST_BYTES)
    monkeypatch.setattr(memory, "MOST_ARENA_BYTES", memory.LEAST_BYTES)
    x = memory.empty((3 * LARGE[0], 16), torch.float32).fill_(1)
    assert memory._arenas[0].size == x.nbytes


def test_where_memory_is_short_an_arena_is_as_large_as_its_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = memory._Arena

    def short(size: int) -> memory._Arena:
        if size > 2 * memory.LEAST_BYTES:
            raise MemoryError
        return made(size)

    monkeypatch.setattr(memory, "_Arena", short)
    x = memory.empty(LARGE, torch.float32)
    assert memory._arenas[0].size == x.nbytes
    with pytest.raises(MemoryError):
        memory.empty((4 * LARGE[0], 16), torch.float32)
    assert len(memory._arenas) == 1
    assert memory.empty(LARGE, torch.float32).data_ptr() != x.data_ptr()  # the lock is open


def test_idle_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 6 * memory.LEAST_BYTES
    monkeypatch.setattr(memory, "_most_idle_bytes", lambda: bound)
    monkeypatch.setattr(memory, "ARENA_BYTES", 2 * memory.LEAST_BYTES)
    held = [memory.empty(LARGE, torch.float32) for _ in range(20)]
    assert sum(arena.size for arena in memory._arenas) >= 20 * memory.LEAST_BYTES
    while held:
        held.pop(0)
    assert all(arena.idle for arena in memory._arenas)
    assert 0 < sum(arena.size for arena in memory._arenas) <= bound


@pytest.mark.parametrize("seed", range(8))
def test_results_that_come_and_go(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST_BYTES", 1000)
    monkeypatch.setattr(memory, "ARENA_BYTES", 20_000)
    generator = torch.Generator().manual_seed(seed)
    held: dict[int, torch.Tensor] = {}
    most = 0
    for turn in range(1000):
        if held and torch.rand((), generator=generator) < 0.5:
            number = list(held)[int(torch.randint(len(held), (), generator=generator))]
            assert bool((held.pop(number) == number).all())
        else:
            size = int(torch.randint(250, 3000, (), generator=generator))
            held[turn] = memory.empty((size,), torch.int32).fill_(turn)
        used = sum(x.nbytes for x in held.values())
        most = max(most, used)
        free = sum(end - begin for arena in memory._arenas for begin, end in arena.free)
        whole = sum(arena.size for arena in memory._arenas)
        assert 0 <= whole - free - used <= memory.ALIGNMENT * len(held)
        for arena in memory._arenas:
            edges = [edge for ends in arena.free for edge in ends]
            assert edges == sorted(set(edges))  # in order, apart, and joined where they touch
    assert whole < 4 * most + memory.ARENA_BYTES
    held.clear()
    assert all(arena.idle for arena in memory._arenas)


def test_numbers_of_threads_never_share_a_block() -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(200):
            x = memory.empty(LARGE, torch.int32)
            x.fill_(1000 * number + turn)
            if not bool((x == 1000 * number + turn).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_and_the_end_of_the_process_pass() -> None:
    script = """
import os, threading, torch
from sparseconv.engines import memory
kept = memory.empty((2**21, 16), torch.float32)
def work():
    for _ in range(3000):
        memory.empty((2**18, 16), torch.float32)
threading.Thread(target=work).start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        memory.empty((2**18, 16), torch.float32)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def network() -> nn.Module:
    """A network with one of everything whose result may lie in used memory."""
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        sc.nn.SubmConv2d(20, 20, 3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(2, padding=1),
        nn.LeakyReLU(),
        sc.nn.SubmPartialConv2d(20, 6, 3),
    )


def result(x: sc.SparseTensor, model: nn.Module) -> list[torch.Tensor]:
    """Return output and gradients of a residual network with a join."""
    features = x.features.clone().requires_grad_()
    y = model(x.replace(features))
    y = torch.cat([y + y, y], dim=1)
    grads = torch.autograd.grad(y.features.square().sum(), [features, *model.parameters()])
    return [y.features.detach(), *grads]


def test_nothing_reads_what_a_block_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cells = torch.randperm(40 * 40)[:300]
    coords = torch.stack([cells * 0, cells // 40, cells % 40], dim=1)
    x, model = sc.SparseTensor(torch.randn(300, 3), coords, (40, 40)), network()
    wanted = result(x, model)
    monkeypatch.setattr(memory, "LEAST_BYTES", 1)
    monkeypatch.setattr(elementwise, "MUCH", 1)
    fresh, count = memory._taken, []

    def full_of_nan(size: int) -> memory._Block:
        count.append(size)
        block = fresh(size)
        np.asarray(block).fill(255)
        return block

    monkeypatch.setattr(memory, "_taken", full_of_nan)
    for _ in range(3):
        assert all(map(torch.equal, result(x, model), wanted))
    assert len(count) > 30


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the pages")
def test_free_ranges_give_their_pages_back_while_the_pool_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "FRESH_BYTES", 2**24)
    size = (2**24,)

    def run() -> None:
        kept = memory.empty(size, torch.uint8)
        freed = memory.empty(size, torch.uint8)
        freed.fill_(7)
        del freed
        later = memory.empty((2**27,), torch.uint8)  # larger than what is free
        del kept, later

    run()
    arena = memory._arenas[0]
    begin = arena.first + size[0]
    pages = slice(begin + PAGE_BYTES, begin + size[0] - PAGE_BYTES)
    assert not arena.memory[pages].any()
    run()  # nothing is touched for the first time now
    assert (arena.memory[pages] == 7).all()
