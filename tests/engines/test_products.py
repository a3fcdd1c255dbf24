"""The two products of every engine, for every shape of groups and every dtype, against float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sparseconv import engines
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines import Epilogue
from sparseconv.engines.numba.products import blocks as numba_blocks
from sparseconv.engines.numba.products import convolve as numba_convolve
from sparseconv.engines.numba.products.tiles import Cut
from sparseconv.engines.numba.rulebooks.tiles import ORDER, SPAN_TILES
from sparseconv.engines.torch import engine as torch_engine

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# (groups, input channels of one, output channels of one): plain, depthwise, with a multiplier,
# with many channels in and one out, narrow groups, odd widths
SHAPES = st.sampled_from(
    [
        *[(1, 1, 1), (1, 5, 33), (1, 32, 64), (64, 1, 1), (7, 1, 1), (6, 1, 3), (80, 1, 2)],
        *[(1, 16, 4), (1, 40, 3), (1, 16, 7), (1, 100, 1), (1, 33, 8)],  # few columns
        *[(4, 3, 1), (8, 4, 4), (6, 2, 5), (3, 7, 9), (2, 17, 16), (5, 16, 2), (12, 2, 2)],
        *[(40, 4, 4), (33, 2, 2), (17, 4, 4)],  # lane by lane, in several vectors
        *[(1, 33, 40), (2, 40, 17)],  # dot products, of odd widths
    ]
)


@st.composite
def rulebooks(draw: st.DrawFn) -> Rulebook:
    """Return pairs of random rows, each at most once per cell and side; some in a known order.

    Of some, no output row has more than one pair.
    """
    n_in, n_out = draw(st.integers(0, 40)), draw(st.integers(0, 1100))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if draw(st.booleans()):
        return single_pairs(n_out, draw(st.integers(1, 4)), generator, draw(st.booleans()))
    order = torch.randperm(n_out, generator=generator) if draw(st.booleans()) else None
    in_rows, out_rows, splits = [], [], [0]
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, min(n_in, n_out)))
        in_rows.append(torch.randperm(n_in, generator=generator)[:count].int())
        rows = torch.randperm(n_out, generator=generator)[:count]
        out_rows.append((rows if order is None else order[rows.sort().values]).int())
        splits.append(splits[-1] + count)
    layouts = {} if order is None else {ORDER: order.numpy()}
    return Rulebook(torch.cat(in_rows), torch.cat(out_rows), tuple(splits), n_in, n_out, layouts)


def single_pairs(
    n_out: int, cells: int, generator: torch.Generator, ordered: bool = False
) -> Rulebook:
    """Return random pairs, one for most output rows and none for the others."""
    parts = torch.randint(cells, (n_out,), generator=generator)
    parts[torch.rand(n_out, generator=generator) < 0.1] = cells
    counts = torch.bincount(parts, minlength=cells)[:cells].tolist()
    n_in = max(counts) + 3
    in_rows = [torch.randperm(n_in, generator=generator)[:count] for count in counts]
    shuffled = torch.randperm(n_out, generator=generator)
    out_rows = [shuffled[parts[shuffled] == cell] for cell in range(cells)]
    splits = (0, *itertools.accumulate(counts))
    pairs = torch.cat(in_rows).int(), torch.cat(out_rows).int()
    # of each cell in the order of these places
    layouts = {ORDER: shuffled.numpy()} if ordered else {}
    return Rulebook(*pairs, splits, n_in, n_out, layouts)


def rows_met_twice() -> Rulebook:
    """Return fewer pairs than output rows, and a row with two of them."""
    in_rows, out_rows = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 2]], dtype=torch.int32)
    return Rulebook(in_rows, out_rows, (0, 2, 4), 2, 8)


@pytest.mark.parametrize("name", engines.ENGINES)
@example(rulebook=rows_met_twice(), shape=(1, 5, 33), dtype=torch.float32)
@given(rulebooks(), SHAPES, st.sampled_from(list(TOLERANCE)))
def test_products(
    name: str, rulebook: Rulebook, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    groups, c_in, c_out = shape
    generator = torch.Generator().manual_seed(0)
    x, w, g = (
        torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)
        for size in (
            (rulebook.n_in, groups * c_in),
            (rulebook.num_cells, groups, c_in, c_out),
            (rulebook.n_out, groups * c_out),
        )
    )
    engine = engines.get(name)
    got = engine.gather_gemm_scatter(x, w, rulebook)
    wanted = torch_engine.gather_gemm_scatter(x.double(), w.double(), rulebook)
    back = engine.gather_gemm_reduce(x, g, rulebook, groups)
    judge = torch_engine.gather_gemm_reduce(x.double(), g.double(), rulebook, groups)
    sizes = [t.double().abs() for t in (x, w, g)]
    summed = torch_engine.gather_gemm_scatter(sizes[0], sizes[1], rulebook)
    reduced = torch_engine.gather_gemm_reduce(sizes[0], sizes[2], rulebook, groups)
    # what is left is one rounding of the result, and those of the sum: relative to its summands
    rounding = 1e-14 if dtype == torch.float64 else 2e-6
    # float16 holds no finer steps near 0 than 2^-24
    step = 2.0**-25 if dtype == torch.float16 else 0.0
    for result, exact, summands in ((got, wanted, summed), (back, judge, reduced)):
        assert result.dtype == dtype
        assert result.shape == exact.shape
        error = (result.double() - exact).abs()
        bound = TOLERANCE[dtype] * exact.abs() + rounding * summands + step
        assert bool((error <= bound).all())


@example(single_pairs(300, 3, torch.Generator()), (1, 5, 33), torch.float32, False, True)
@given(rulebooks(), SHAPES, st.sampled_from(list(TOLERANCE)), st.booleans(), st.booleans())
def test_the_same_bits_however_the_work_is_cut(
    rulebook: Rulebook,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    scaled: bool,
    added: bool,
) -> None:
    """Tasks of one tile or several, of all columns or of a block of them."""
    groups, c_in, c_out = shape
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rulebook.n_in, groups * c_in, generator=generator).to(dtype)
    weight = torch.randn(rulebook.num_cells, groups, c_in, c_out, generator=generator).to(dtype)
    rows = torch.randn(rulebook.n_out, groups * c_out, generator=generator).to(dtype)
    epilogue = Epilogue(
        factor=rows[:, :1].float().abs() if scaled else None,
        bias=torch.randn(groups * c_out, generator=generator).to(dtype),
        other=rows if added else None,
        relu=added,
    )
    found = []
    for span, apart in itertools.product((1, 2, SPAN_TILES), (False, True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                numba_blocks,
                "_cut",
                lambda tiles, blocks, size, span=span, apart=apart: Cut(
                    span, blocks if apart else 1
                ),
            )
            packed = numba_convolve.pack_weight(weight)
            found.append(numba_convolve.gather_gemm_epilogue(x, packed, rulebook, epilogue))
    assert all(torch.equal(other.nan_to_num(), found[0].nan_to_num()) for other in found)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("size", [2**10, 2**24])
def test_enough_tasks_for_all_threads(threads: int, size: int) -> None:
    for tiles, blocks in itertools.product((0, 1, 3, 9, 700), (1, 2, 8)):
        span, parts = numba_blocks._cut(tiles, blocks, size, threads)
        assert parts in (1, blocks)
        most = tiles * blocks
        assert -(-tiles // span) * parts >= min(most, threads)


GROUPS = [(2, 8, 8), (4, 3, 3), (3, 5, 7), (4, 4, 4), (8, 2, 2), (3, 16, 2), (6, 2, 5), (2, 17, 16)]


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*GROUPS, (8, 1, 1), (5, 1, 3), (5, 3, 1)])
def test_groups_do_not_see_each_other(
    name: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    groups, c_in, c_out = shape
    generator = torch.Generator().manual_seed(0)
    rulebook = single_pairs(40, 3, generator)
    x = torch.randn(rulebook.n_in, groups * c_in, generator=generator).to(dtype)
    grad = torch.randn(40, groups * c_out, generator=generator).to(dtype)
    weight = torch.randn(3, groups, c_in, c_out, generator=generator).to(dtype)
    x[2, :c_in], grad[5, -c_out:] = torch.inf, torch.nan
    engine = engines.get(name)
    y = engine.gather_gemm_scatter(x, weight, rulebook).unflatten(1, (groups, c_out))
    back = engine.gather_gemm_reduce(x, grad, rulebook, groups)
    assert not bool(y[:, 0].isfinite().all())
    assert bool(y[:, 1:].isfinite().all())
    assert not bool(back[:, -1].isfinite().all())
    assert bool(back[:, 1:-1].isfinite().all())


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [3, 32])
def test_halves_keep_what_is_not_finite_and_round_to_nearest(
    name: str, dtype: torch.dtype, channels: int
) -> None:
    n = 6
    rows = torch.arange(n, dtype=torch.int32)
    rulebook = Rulebook(rows, rows, (0, n), n, n)
    x = torch.zeros(n, channels, dtype=dtype)
    x[:, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, -2.5, 0.0])
    w = torch.eye(channels, dtype=dtype)[None, None]
    got = engines.get(name).gather_gemm_scatter(x, w, rulebook)
    assert bool(got[0].isnan().all())  # 0 * NaN is NaN in every column
    assert bool(got[1:3].isnan()[:, 1:].all())  # and so is 0 * inf
    assert torch.equal(got[1:3, 0], x[1:3, 0])
    assert torch.equal(got[3:], x[3:])
    # 1 + 2^-9 lies between two neighbours in bfloat16 and rounds to 1, like torch's own rounding
    exact = torch.tensor([[1.0, 2.0**-9], [1.0, 2.0**-8], [1.0, 3 * 2.0**-8]])
    ones = torch.ones(1, 1, 2, 1, dtype=dtype)
    rulebook = Rulebook(rows[:3], rows[:3], (0, 3), 3, 3)
    got = engines.get(name).gather_gemm_scatter(exact.to(dtype), ones, rulebook)
    assert torch.equal(got[:, 0], exact.sum(dim=1).to(dtype))


@pytest.mark.parametrize("name", engines.ENGINES)
@given(rulebooks(), SHAPES, st.sampled_from(list(TOLERANCE)), st.tuples(*[st.booleans()] * 4))
def test_a_product_with_an_epilogue_is_the_product_and_its_steps(
    name: str,
    rulebook: Rulebook,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    parts: tuple[bool, bool, bool, bool],
) -> None:
    groups, c_in, c_out = shape
    generator = torch.Generator().manual_seed(0)
    sizes = (rulebook.n_in, groups * c_in), (rulebook.num_cells, groups, c_in, c_out)
    sizes = (*sizes, (groups * c_out,), (rulebook.n_out, groups * c_out))
    x, w, bias, other = (torch.randn(*size, generator=generator).to(dtype) for size in sizes)
    factor = torch.randn(rulebook.n_out, 1, generator=generator, dtype=torch.float64)
    factor = factor.to(dtype if dtype == torch.float64 else torch.float32)
    added = bias if parts[0] else None, other if parts[1] else None
    epilogue = Epilogue(*added, parts[2], factor if parts[3] else None)
    engine = engines.get(name)
    got = engine.gather_gemm_epilogue(x, engine.pack_weight(w), rulebook, epilogue)
    wide = Epilogue(*(t.double() if isinstance(t, torch.Tensor) else t for t in epilogue))
    exact = wide.apply(torch_engine.gather_gemm_scatter(x.double(), w.double(), rulebook))
    assert got.dtype == dtype
    # the step by step version rounds halves after each step
    scale = exact.abs().amax().item() if exact.numel() else 0.0
    error = (got.double() - exact).abs()
    assert bool((error <= TOLERANCE[dtype] * (exact.abs() + scale) + 1e-12).all())


@pytest.mark.parametrize(("dtype", "half_step"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("shape", [(1, 16, 32), (1, 8, 3), (8, 1, 1), (5, 3, 1), *GROUPS])
@pytest.mark.parametrize("with_factor", [False, True])
def test_the_cpu_engine_rounds_once_behind_the_epilogue(
    dtype: torch.dtype, half_step: float, shape: tuple[int, int, int], with_factor: bool
) -> None:
    groups, c_in, c_out = shape
    generator = torch.Generator().manual_seed(0)
    rulebook = single_pairs(300, 3, generator)
    sizes = (rulebook.n_in, groups * c_in), (3, groups, c_in, c_out), (groups * c_out,)
    x, w, bias = (torch.randn(*size, generator=generator).to(dtype) for size in sizes)
    rows = torch.randn(300, groups * c_out, generator=generator).to(dtype)
    factor = torch.randn(300, 1, generator=generator)
    # two large terms that cancel: a rounding between them would show
    shift = 0 if with_factor else 30_000
    epilogue = (
        Epilogue(bias, factor=factor) if with_factor else Epilogue(bias - shift, rows + shift)
    )
    engine = engines.get("numba")
    got = engine.gather_gemm_epilogue(x, engine.pack_weight(w), rulebook, epilogue)
    wide = Epilogue(*(t.double() if isinstance(t, torch.Tensor) else t for t in epilogue))
    exact = wide.apply(torch_engine.gather_gemm_scatter(x.double(), w.double(), rulebook))
    error = (got.double() - exact).abs()
    assert bool((error <= half_step * exact.abs() + (1e-5 if with_factor else 1e-2)).all())


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize(("count", "c_in", "c_out"), [(140_001, 3, 16), (70_001, 33, 35)])
@pytest.mark.parametrize("relu", [False, True])
def test_one_pair_a_row_with_rows_too_many_for_the_cache(
    name: str, count: int, c_in: int, c_out: int, relu: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    rulebook = single_pairs(count, 3, generator)
    x, bias = (
        torch.randn(*size, generator=generator) for size in ((rulebook.n_in, c_in), (c_out,))
    )
    weight = torch.randn(3, 1, c_in, c_out, generator=generator)
    x[5], x[7, 0] = torch.nan, -torch.inf
    engine = engines.get(name)
    got = engine.gather_gemm_epilogue(
        x, engine.pack_weight(weight), rulebook, Epilogue(bias, relu=relu)
    )
    exact = torch_engine.gather_gemm_scatter(x.double(), weight.double(), rulebook)
    wanted = Epilogue(bias.double(), relu=relu).apply(exact)
    assert bool(wanted.isnan().any())
    assert torch.equal(got.isnan(), wanted.isnan())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", engines.ENGINES)
@given(
    st.integers(0, 5000),
    st.integers(1, 120),
    st.booleans(),
    st.sampled_from(list(TOLERANCE)),
    st.integers(0, 2**16),
)
def test_rows_are_scaled_and_summed(
    name: str, count: int, channels: int, shared: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, channels, generator=generator, dtype=torch.float64).to(dtype)
    factor = torch.rand(count, 1 if shared else channels, generator=generator).double()
    factor = factor.to(dtype if dtype == torch.float64 else torch.float32)
    scaled, total = engines.get(name).scaled_rows(rows, factor)
    assert scaled.dtype == total.dtype == dtype
    assert torch.equal(scaled, (rows * factor).to(dtype))
    exact = rows.double().sum(dim=0)
    assert bool(((total.double() - exact).abs() <= TOLERANCE[dtype] * (exact.abs() + count)).all())


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize(
    ("count", "channels"), [(140_001, 16), (70_001, 35), (5_001, 64), (40_001, 112)]
)
def test_rows_too_many_for_the_cache_are_scaled_and_summed(
    name: str, count: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(count, channels, generator=generator)
    factor = torch.rand(count, 1, generator=generator)
    scaled, total = engines.get(name).scaled_rows(rows, factor)
    assert torch.equal(scaled, rows * factor)
    exact = rows.double().sum(dim=0)
    assert torch.allclose(total.double(), exact, rtol=1e-5, atol=1e-2)
