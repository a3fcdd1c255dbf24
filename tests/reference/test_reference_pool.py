"""The reference's pooling and interpolation against dense PyTorch in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sparseconv import reference as ref

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
POWER = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@st.composite
def windows(draw: st.DrawFn) -> tuple[torch.Tensor, dict[str, Any]]:
    axes = draw(st.integers(1, 3))

    def per_axis(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))

    kernel = per_axis(1, 3)
    size = [draw(st.integers(k, {1: 9, 2: 6, 3: 4}[axes])) for k in kernel]
    torch.manual_seed(draw(st.integers(0, 1000)))
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    options = {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), st.just(per_axis(1, 3)))),
        "padding": [draw(st.integers(0, k // 2)) for k in kernel],
        "ceil_mode": draw(st.booleans()),
    }
    return x, options


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    return {"kernel" if name == "kernel_size" else name: v for name, v in options.items()}


@given(windows())
def test_max_pool_is_torchs(case: tuple[torch.Tensor, dict[str, Any]]) -> None:
    x, options = case
    assert_same(ref.max_pool(x, **renamed(options)), MAX[x.dim() - 2](x, **options))


@given(windows(), st.booleans(), st.sampled_from([None, 3]))
def test_avg_pool_is_torchs(
    case: tuple[torch.Tensor, dict[str, Any]], count_include_pad: bool, divisor: int | None
) -> None:
    x, options = case
    options["count_include_pad"] = count_include_pad
    if x.dim() > 3:
        options["divisor_override"] = divisor
    assert_same(ref.avg_pool(x, **renamed(options)), AVERAGE[x.dim() - 2](x, **options))


@given(windows(), st.sampled_from([1.0, 2.0, 3.5]))
def test_lp_pool_is_torchs(case: tuple[torch.Tensor, dict[str, Any]], p: float) -> None:
    x, options = case
    x = x.abs()
    del options["padding"]
    if x.dim() == 3:
        options["kernel_size"] = options["kernel_size"][0]
    assert_same(ref.lp_pool(x, p, **renamed(options)), POWER[x.dim() - 2](x, p, **options))


def test_pooling_reads_active_sites_alone() -> None:
    x = torch.tensor([[[-3.0, torch.nan, -1.0, torch.nan, torch.nan]]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True, False, False]])
    assert ref.max_pool(x, 2, 2, mask=mask).tolist() == [[[-3.0, -1.0]]]
    assert ref.avg_pool(x, 2, 2, mask=mask).tolist() == [[[-1.5, -0.5]]]
    counted = ref.avg_pool(x, 2, 2, count_include_pad=False, mask=mask)
    assert counted.tolist() == [[[-3.0, -1.0]]]
    assert ref.lp_pool(x, 2, 2, mask=mask).tolist() == [[[3.0, 1.0]]]


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=3),
    st.sampled_from(["nearest", "nearest-exact", "linear", "aligned"]),
)
def test_interpolate_is_torchs(sizes: list[tuple[int, int]], mode: str) -> None:
    axes = len(sizes)
    torch.manual_seed(0)
    x = torch.randn(2, 1, *(length for length, _ in sizes), dtype=torch.float64)
    size = [out for _, out in sizes]
    if mode in {"linear", "aligned"}:
        corners = mode == "aligned"
        expected = F.interpolate(x, size, mode=LINEAR[axes], align_corners=corners)
        assert_same(ref.interpolate(x, size, "linear", corners), expected)
    else:
        assert_same(ref.interpolate(x, size, mode), F.interpolate(x, size, mode=mode))
