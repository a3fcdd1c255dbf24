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
from sparseconv import elementwise, memory

LARGE = (memory.LEAST_BYTES // 64 + 1, 16)  # float32 rows


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """Begin and end without blocks that wait."""
    memory._waiting.clear()
    yield
    memory._waiting.clear()


def waiting() -> int:
    """Bytes that wait for a result."""
    return sum(block.nbytes for block in memory._waiting)


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


def test_a_block_goes_to_the_next_result_once_nobody_holds_it() -> None:
    x = memory.empty((2 * LARGE[0], 16), torch.float32)
    place, view = x.data_ptr(), x[5:].t()
    del x
    gc.collect()
    assert not memory._waiting  # the view still reads it
    other = memory.empty((2 * LARGE[0], 16), torch.float32)
    assert other.data_ptr() != place
    del view
    assert len(memory._waiting) == 1
    again = memory.empty((2 * LARGE[0] - 100, 16), torch.float32)
    assert again.data_ptr() == place
    assert not memory._waiting


def test_a_block_serves_no_much_smaller_result() -> None:
    memory.empty((2 * LARGE[0], 16), torch.float32)
    size = 64 * LARGE[0]
    assert memory._taken(size).nbytes < 1.2 * size


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_WAITING", 6 * memory.LEAST_BYTES)
    held = [memory.empty(LARGE, torch.float32) for _ in range(10)]
    places = [x.data_ptr() // memory.LEAST_BYTES for x in held]
    while held:
        held.pop(0)
    assert 4 * memory.LEAST_BYTES < waiting() <= memory.MOST_WAITING
    kept = [block.ctypes.data // memory.LEAST_BYTES for block in memory._waiting]
    assert set(kept) <= {place + step for place in places[-6:] for step in (-1, 0)}


@pytest.mark.parametrize("seed", range(5))
def test_all_blocks_are_never_larger_than_those_once_in_use(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    held: list[torch.Tensor] = []
    most = 0
    for _ in range(200):
        if held and torch.rand((), generator=generator) < 0.5:
            held.pop(int(torch.randint(len(held), (), generator=generator)))
        else:
            rows = int(torch.randint(LARGE[0], 5 * LARGE[0], (), generator=generator))
            held.append(memory.empty((rows, 16), torch.float32))
        used = sum(x.untyped_storage().nbytes() for x in held)
        most = max(most, used)
        # a block is at most an eighth larger than its result
        assert used + waiting() <= 1.13 * most + memory.ALIGNMENT


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
from sparseconv import memory
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
    monkeypatch.setattr(elementwise, "LEAST_BYTES", 1)
    fresh, count = memory._taken, []

    def full_of_nan(size: int) -> np.ndarray:
        count.append(size)
        block = fresh(size)
        block.fill(255)
        return block

    monkeypatch.setattr(memory, "_taken", full_of_nan)
    for _ in range(3):
        assert all(map(torch.equal, result(x, model), wanted))
    assert len(count) > 30
