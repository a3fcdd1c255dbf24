"""TorchSparse's names of both versions against their definition, site by site."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import generator, random_sites
from hypothesis import given
from hypothesis import strategies as st
from minkowski_cases import Rows, Site, convolved, drawn, moved, strided, transposed
from sparseconv.compat.torchsparse.nn import functional as spf
from torch import Tensor

import sparseconv as sc
from sparseconv.compat import torchsparse
from sparseconv.compat.torchsparse import nn as spnn
from sparseconv.compat.torchsparse import version1

pytestmark = pytest.mark.usefixtures("engine")

ONES = (1, 1, 1)


def steps_of(kernel: Site, dilation: Site = ONES) -> list[Site]:
    """Return the steps to a kernel's cells; the first axis is fastest where their number is odd."""
    axes = [
        [(c - (k - 1) // 2) * d for c in range(k)] for k, d in zip(kernel, dilation, strict=True)
    ]
    if math.prod(kernel) % 2:
        return [step[::-1] for step in itertools.product(*reversed(axes))]
    return list(itertools.product(*axes))


@dataclass(frozen=True)
class Problem:
    """A kernel, and sites ``(b, x, y, z)`` in steps of a stride."""

    version: int
    kernel: Site
    stride: Site
    dilation: Site
    sites: Tensor
    feats: Tensor

    def tensor(self, sites: Tensor | None = None, stride: Site = ONES) -> Any:
        """Return a tensor of the version, whose coordinates are in its own convention."""
        sites = self.sites if sites is None else sites
        if self.version == 2:
            return torchsparse.SparseTensor(self.feats, sites.int(), stride)
        coords = torch.cat([sites[:, 1:] * torch.tensor(stride), sites[:, :1]], dim=1)
        return version1.SparseTensor(self.feats, coords.int(), stride)

    def layer(self, c_in: int = 2, c_out: int = 3, **options: Any) -> Any:
        kind = spnn.Conv3d if self.version == 2 else version1.nn.Conv3d
        sizes = {"kernel_size": self.kernel, "stride": self.stride, "dilation": self.dilation}
        return drawn(kind(c_in, c_out, **(sizes | options)))


def rows_of(x: Any) -> Rows:
    """Return the rows of a tensor by their sites in steps of the stride, the sample first."""
    coords = x.C
    if x.BATCH_LAST:
        level = torch.div(coords[:, :3], torch.tensor(x.s), rounding_mode="floor")
        coords = torch.cat([coords[:, 3:], level], dim=1)
    return dict(zip(map(tuple, coords.tolist()), x.F, strict=True))


def assert_rows(x: Any, expected: Rows) -> None:
    found = rows_of(x)
    assert len(found) == len(x.F)
    assert found.keys() == set(expected)
    for site, row in found.items():
        torch.testing.assert_close(row, expected[site], rtol=1e-12, atol=1e-12)


def forth(x: Rows, out: Any, kernel: Tensor, problem: Problem) -> Rows:
    """Return the layer at ``out``, sites in steps of the coarser stride."""
    fine = {(o[0], *(i * s for i, s in zip(o[1:], problem.stride, strict=True))): o for o in out}
    cells = kernel if kernel.ndim == 3 else kernel[None]
    steps = steps_of(problem.kernel, problem.dilation)
    return {fine[site]: row for site, row in convolved(x, fine, cells, steps, ONES).items()}


@st.composite
def problems(draw: st.DrawFn, kernels: int = 3) -> Problem:
    def some(low: int, high: int) -> Site:
        return tuple(draw(st.integers(low, high)) for _ in range(3))

    kernel, stride, dilation = (
        some(1, kernels),
        some(1, 3),
        draw(st.sampled_from([ONES, (1, 2, 1)])),
    )
    version, seed = draw(st.sampled_from([1, 2])), draw(st.integers(0, 99))
    sites = random_sites(draw(st.sampled_from([1, 8, 17])), (4, 5, 3), 2, seed)
    feats = torch.randn(len(sites), 2, dtype=torch.float64, generator=generator(seed))
    return Problem(version, kernel, stride, dilation, sites, feats)


def expected_sites(x: Rows, problem: Problem, padding: Site, mode: str) -> set[Site]:
    """Return the sites that a strided layer makes, in steps of the coarser stride."""
    kernel, stride, dilation = problem.kernel, problem.stride, problem.dilation
    if set(stride) == {1}:
        return set(x)
    if all(s in (1, k) for k, s in zip(kernel, stride, strict=True)) or mode == "minkowski":
        return {
            (b, *(i // s for i, s in zip(site, stride, strict=True)))
            for b, *site in strided(x, stride)
        }
    low = [min(site[1 + axis] for site in x) for axis in range(3)]
    high = [max(site[1 + axis] for site in x) for axis in range(3)]
    found = set()
    for b, *site in x:
        for cell in itertools.product(*(range(k) for k in kernel)):
            if problem.version == 1:
                pads = [d * (k // 2) for k, d in zip(kernel, dilation, strict=True)]
            else:
                pads = list(padding)
            # the window of output o begins at o * stride - padding
            whole = [i + p - c * d for i, p, c, d in zip(site, pads, cell, dilation, strict=True)]
            if any(w % s for w, s in zip(whole, stride, strict=True)):
                continue
            place = [w // s for w, s in zip(whole, stride, strict=True)]
            if problem.version == 1:
                inside = all(o * s >= n for o, s, n in zip(place, stride, low, strict=True))
            else:
                ends = [
                    (n + 2 * p - d * (k - 1)) // s
                    for n, p, d, k, s in zip(high, padding, dilation, kernel, stride, strict=True)
                ]
                inside = all(0 <= o <= end for o, end in zip(place, ends, strict=True))
            if inside:
                found.add((b, *place))
    return found


@given(problem=problems(), padding=st.sampled_from([(0, 0, 0), (1, 1, 1), (0, 1, 1)]))
def test_convolution_and_the_way_back(problem: Problem, padding: Site) -> None:
    x = problem.tensor()
    for mode in ("spconv", "minkowski") if problem.version == 2 else ("",):
        options: dict[str, Any] = {"bias": True}
        if problem.version == 2:
            options |= {"padding": padding, "config": {"downsample_mode": mode}}
        layer = problem.layer(**options)
        y = layer(x)
        out = expected_sites(rows_of(x), problem, layer.padding, mode)
        bias = layer.bias.detach()
        expected = forth(rows_of(x), out, layer.kernel.detach(), problem)
        assert_rows(y, {site: row + bias for site, row in expected.items()})
        assert y.s == problem.stride
        back = problem.layer(3, 2, transposed=True)
        if set(problem.kernel) == {1} == set(problem.stride) or not out:
            continue
        up = back(y)
        assert up.C is x.C
        assert up.s == x.s
        fine = {
            (o[0], *(i * s for i, s in zip(o[1:], problem.stride, strict=True))): row
            for o, row in rows_of(y).items()
        }
        cells = back.kernel.detach().reshape(-1, 3, 2)
        steps = steps_of(problem.kernel, problem.dilation)
        assert_rows(up, transposed(fine, rows_of(x), cells, steps, ONES))
        x = problem.tensor()


@given(problem=problems())
def test_a_second_layer_reads_the_first_ones_coordinates(problem: Problem) -> None:
    x = problem.tensor()
    first = problem.layer(2, 3, kernel_size=2, stride=2)
    second = problem.layer(3, 2)
    y = first(x)
    z = second(y)
    alone = problem.tensor(torch.tensor(list(rows_of(y))), (2, 2, 2)) if len(y.F) else None
    if alone is None:
        return
    alone.F = torch.stack(list(rows_of(y).values()))
    assert_rows(z, rows_of(second(alone)))
    same = spnn.ReLU()(y) + y
    assert same.C is y.C
    assert torchsparse.cat([same, y]).F.shape[1] == 6


@given(problem=problems())
def test_generative_layers_fill_the_space_around(problem: Problem) -> None:
    sites = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1]])
    extent = (2, 6, 6, 6)
    feats = torch.randn(3, 2, dtype=torch.float64)
    if problem.kernel == ONES:
        return
    stride = tuple(min(s, 2) for s in problem.stride)
    x = torchsparse.SparseTensor(feats, sites.int(), stride, extent)
    layer = drawn(spnn.Conv3d(2, 3, problem.kernel, stride, transposed=True, generative=True))
    y = layer(x)
    steps = steps_of(problem.kernel)
    fine = {
        (b, *(i * s for i, s in zip(site, stride, strict=True))): row
        for (b, *site), row in rows_of(x).items()
    }
    around = {moved(site, step, ONES) for site in fine for step in steps}
    around = {site for site in around if all(0 <= i < 6 for i in site[1:])}
    assert_rows(y, convolved(fine, around, layer.kernel.detach(), steps, ONES))
    assert y.s == ONES


def test_kernels_lie_as_there() -> None:
    x = torchsparse.SparseTensor(torch.ones(1, 1), torch.tensor([[0, 5, 5, 5]]).int())
    assert spnn.Conv3d(4, 8, 3).kernel.shape == (27, 4, 8)
    assert spnn.Conv3d(4, 8, 1).kernel.shape == (4, 8)
    assert spnn.Conv3d(4, 8, 1, 2).kernel.shape == (1, 4, 8)
    assert version1.nn.Conv3d(4, 8, 1, 2).kernel.shape == (4, 8)
    assert sorted(spnn.Conv3d(4, 8, 3, bias=True).state_dict()) == ["bias", "kernel"]
    torch.manual_seed(0)
    expected = torch.empty(8, 4, 8).uniform_(-((4 * 8) ** -0.5), (4 * 8) ** -0.5)
    torch.manual_seed(0)
    assert torch.equal(spnn.Conv3d(4, 8, 2).kernel, expected)
    offsets = spnn.utils.get_kernel_offsets
    assert offsets(3).tolist()[:2] == [[-1, -1, -1], [0, -1, -1]]
    assert offsets(2, 4).tolist()[:2] == [[0, 0, 0], [0, 0, 4]]
    assert x.s == ONES


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: spnn.Conv3d(2, 3, 0), "kernel_size: must be at least 1"),
        (lambda x: spnn.Conv3d(2, 3, 3, generative=True), "transposed=True"),
        (spnn.Conv3d(3, 3, 3), "has 2 channels"),
        (spnn.Conv3d(2, 3, 2, 2, transposed=True), "must divide"),
        (lambda x: spnn.Conv3d(2, 3, 2, 2, transposed=True)(half(x)), "no tensor of stride"),
        (lambda x: spf.set_downsample_mode("dense"), "downsample_mode: must be one of"),
        (lambda x: spnn.ReLU()(x.F), "input: must be a SparseTensor"),
        (lambda x: spnn.Conv3d(2, 3, 3)(twice(x)), "repeat a site"),
        (lambda x: x.dense(), "spatial_range: must be given"),
    ],
)
def test_wrong_calls_say_what_is_allowed(call: Any, message: str) -> None:
    x = torchsparse.SparseTensor(torch.ones(2, 2), torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]).int())
    with pytest.raises(sc.SparseConvError, match=message) as caught:
        call(x)
    assert "\n" not in str(caught.value)


def half(x: Any) -> Any:
    return torchsparse.SparseTensor(x.F, x.C, 2)


def twice(x: Any) -> Any:
    return torchsparse.SparseTensor(x.F, x.C[[0, 0]])
