"""Every test on every engine, in memory that shows what was not written, with fixed seeds."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from cases import REQUIRED_ENGINES, skip_unless_it_can
from devices import bench

import sparseconv as sc
from sparseconv.engines import memory
from sparseconv.engines.numba.machine.compile import KERNELS

for _name, _examples in (("quick", 10), ("default", 60), ("ci", 100)):
    hypothesis.settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        derandomize=_name != "default",
        # the engine and the filled memory are the same for all examples of one test
        suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    unknown = REQUIRED_ENGINES - set(sc.engines.ENGINES)
    if unknown:
        raise pytest.UsageError(f"SPARSECONV_REQUIRED_ENGINES names no engine: {sorted(unknown)}")
    bench.register()
    # pytest -n keeps the cores busy already, and small tensors wait for helpers a hundred times
    # longer than they compute; test_laws is where thread counts differ
    torch.set_num_threads(1)


@pytest.fixture(params=list(sc.engines.ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on each engine; one that cannot run here skips it in its own words."""
    skip_unless_it_can(request.param, torch.float64)
    with sc.engine(request.param):
        yield request.param


class FilledNumpy:
    """Numpy whose ``empty`` holds NaN, or the largest integer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(*args: Any, **kwargs: Any) -> Any:
        array = np.empty(*args, **kwargs)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
        return array


@pytest.fixture(autouse=True)
def filled_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill new memory with NaN, so that a result shows what was read before it was written.

    PyTorch fills only where it also runs its deterministic algorithms; ``as_users_run`` is for the
    tests that ask for the same bits without them.
    """
    for path in sc.engines.ENGINES.values():
        importlib.import_module(path)
    for name, module in list(sys.modules.items()):
        if not name.startswith("sparseconv.engines") or not hasattr(module, "np"):
            continue
        # Numba compiles what a module of kernels calls np
        if not any(getattr(kernel, "__module__", "") == name for kernel in KERNELS):
            monkeypatch.setattr(module, "np", FilledNumpy())
    taken = memory._taken

    def filled(size: int) -> Any:
        block = taken(size)
        np.asarray(block).fill(255)  # NaN, or -1
        return block

    monkeypatch.setattr(memory, "_taken", filled)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.fixture
def as_users_run(filled_memory: None) -> None:
    """Run PyTorch as it comes: with whichever algorithms it likes best."""
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
