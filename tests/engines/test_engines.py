"""The table of engines: one interface, chosen by tensor, forced by name."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import PROBLEMS, assert_close

import sparseconv as sc
from sparseconv import engines
from sparseconv.engines import protocol

FUNCTIONS = {
    name: member
    for name, member in vars(protocol.Engine).items()
    if inspect.isfunction(member) and not name.startswith("_")
}
NUMBER = torch.zeros(1)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_is_a_module_with_the_functions_of_the_protocol(name: str) -> None:
    module = engines.get(name)
    for function, promised in FUNCTIONS.items():
        signature = inspect.signature(promised)
        parameters = list(signature.parameters.values())[1:]  # without self
        expected = [(entry.name, entry.kind, entry.default) for entry in parameters]
        given = inspect.signature(getattr(module, function)).parameters.values()
        assert [(entry.name, entry.kind, entry.default) for entry in given] == expected, function


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_says_why_not(name: str) -> None:
    module = engines.get(name)
    for dtype in (torch.float64, torch.float32, torch.int64):
        reason = module.why_not(torch.device("cpu"), dtype)
        assert reason is None or (isinstance(reason, str) and reason)
    reason = module.why_not(torch.device("cpu"), torch.float8_e4m3fn)
    assert isinstance(reason, str)
    assert "float8_e4m3fn" in reason
    assert "\n" not in reason


def test_explain_has_a_line_for_every_engine() -> None:
    lines = engines.explain(NUMBER)
    assert list(lines) == list(engines.ENGINES)
    assert lines["torch"] == "can run"
    lines = engines.explain(NUMBER.to(torch.float8_e4m3fn))
    assert "can run" not in lines.values()


def test_the_first_engine_that_can_run_is_chosen() -> None:
    lines = engines.explain(NUMBER)
    first = next(name for name, line in lines.items() if line == "can run")
    assert engines.chosen(NUMBER) == first
    assert engines.for_tensor(NUMBER) is engines.get(first)
    with pytest.raises(sc.SparseConvTypeError, match="none can run this tensor") as caught:
        engines.chosen(NUMBER.to(torch.float8_e4m3fn))
    for name in engines.ENGINES:
        assert name in str(caught.value)


def test_an_engine_is_forced_inside_its_block_and_blocks_nest(engine: str) -> None:
    assert engines.chosen(NUMBER) == engine
    for inner in engines.ENGINES:
        if engines.explain(NUMBER)[inner] != "can run":
            continue
        with sc.engine(inner):
            assert engines.chosen(NUMBER) == inner
            with pytest.raises(ZeroDivisionError), sc.engine(engine):
                _ = 1 / 0
            assert engines.chosen(NUMBER) == inner
        assert engines.chosen(NUMBER) == engine


def test_an_engine_that_cannot_raises_with_its_reason(engine: str) -> None:
    with pytest.raises(sc.SparseConvTypeError, match=f"'{engine}' was asked for, but"):
        engines.chosen(NUMBER.to(torch.float8_e4m3fn))


def test_an_unknown_name_is_refused_before_the_block_runs() -> None:
    with pytest.raises(sc.SparseConvValueError, match=r"engine: must be one of .*'cudnn'"):
        sc.engine("cudnn").__enter__()
    with pytest.raises(sc.SparseConvValueError, match="'cudnn'"):
        engines.get("cudnn")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


CHOSEN = """
import torch, sparseconv as sc
print(sc.engines.chosen(torch.zeros(1)))
with sc.engine("torch"):
    print(sc.engines.chosen(torch.zeros(1)))
"""


@pytest.mark.slow
def test_the_environment_names_an_engine_and_a_block_overrules_it() -> None:
    for name, line in engines.explain(NUMBER).items():
        if line == "can run":
            result = run_python(CHOSEN, SPARSECONV_ENGINE=name)
            assert result.stdout.split() == [name, "torch"], result.stderr
    result = run_python(CHOSEN, SPARSECONV_ENGINE="cudnn")
    assert result.returncode != 0
    assert "SparseConvValueError" in result.stderr
    assert "'cudnn'" in result.stderr


def test_a_block_holds_for_its_own_thread(engine: str) -> None:
    seen = {}

    def look(name: str) -> None:
        with sc.engine(name):
            barrier.wait()
            seen[name] = engines.chosen(NUMBER)
            barrier.wait()

    names = [name for name, line in engines.explain(NUMBER).items() if line == "can run"]
    barrier = threading.Barrier(len(names), timeout=60)
    threads = [threading.Thread(target=look, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {name: name for name in names}
    assert engines.chosen(NUMBER) == engine


def test_the_backward_pass_stays_on_the_engine_of_the_forward_pass(engine: str) -> None:
    """Also when it runs in another thread and outside the block."""
    problem = PROBLEMS["subm2d"]
    t, weight, bias = problem.leaves()
    module = engines.get(engine)
    with pytest.MonkeyPatch.context() as patch:
        called = []
        for name in engines.ENGINES:
            other = engines.get(name)
            for function in ("gather_gemm_epilogue", "gather_gemm_scatter", "gather_gemm_reduce"):
                original = getattr(other, function)

                def traced(*args, name=name, original=original):  # type: ignore[no-untyped-def]
                    called.append(name)
                    return original(*args)

                patch.setattr(other, function, traced)
        y = problem.layer(problem.input(t), weight, bias)
        thread = threading.Thread(target=y.features.sum().backward)
        thread.start()
        thread.join()
    assert module is engines.get(engine)
    assert set(called) == {engine}
    assert len(called) >= 3


def test_threads_may_share_a_tensor(engine: str) -> None:
    """Eight threads build the same rulebooks on one tensor at once: one result, no crash."""
    problem = PROBLEMS["conv3d"]
    expected = problem.run(problem.leaves())
    for _ in range(3):
        leaves = problem.leaves()
        x = problem.input(leaves[0].detach())

        def layer(_number: int, x=x, leaves=leaves) -> sc.SparseTensor:  # type: ignore[no-untyped-def]
            with sc.engine(engine):
                return problem.layer(x, *leaves[1:])

        with ThreadPoolExecutor(8) as pool:
            for y in pool.map(layer, range(8)):
                assert torch.equal(y.coords, expected.coords)
                assert torch.equal(y.features, expected.features)


def test_engines_may_meet_on_one_tensor() -> None:
    """Sites and rulebooks made by one engine serve every other."""
    problem = PROBLEMS["conv3d"]
    names = [name for name, line in engines.explain(NUMBER).items() if line == "can run"]
    for first in names:
        leaves = problem.leaves()
        with sc.engine(first):
            x = problem.input(leaves[0].detach())
            expected = problem.layer(x, *leaves[1:])
        for second in names:
            with sc.engine(second):
                y = problem.layer(x, *leaves[1:])
                assert y.sites is expected.sites
                assert_close(y.features, expected.features)
                back = sc.functional.inverse_conv(
                    y, leaves[1].detach(), **problem.layer.window, groups=problem.layer.groups
                )
                assert back.sites is x.sites


def test_the_environment_counts_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it changes after a layer has asked: the choice for each answer is remembered."""
    for name in (*engines.ENGINES, *engines.ENGINES):
        monkeypatch.setenv("SPARSECONV_ENGINE", name)
        assert engines.chosen(NUMBER) == name
        assert engines.for_tensor(NUMBER) is engines.get(name)
    monkeypatch.delenv("SPARSECONV_ENGINE")
    assert engines.chosen(NUMBER) == next(iter(engines.ENGINES))
    monkeypatch.setenv("SPARSECONV_ENGINE", "cudnn")
    with pytest.raises(sc.SparseConvValueError, match="cudnn"):
        engines.for_tensor(NUMBER)


def test_without_a_compiler_the_plain_engine_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    numba = sc.engines.get("numba")
    cached = sc.engines._choice
    cached.cache_clear()
    numba._not_compiled.cache_clear()  # type: ignore[attr-defined]
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    try:
        for _ in range(2):
            assert sc.engines.chosen(torch.zeros(1)) == "torch"
        assert "NUMBA_DISABLE_JIT" in sc.engines.explain(torch.zeros(1))["numba"]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    finally:
        cached.cache_clear()
