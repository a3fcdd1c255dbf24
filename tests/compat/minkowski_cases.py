"""The layers of MinkowskiEngine written from their definition, site by site."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from cases import generator, random_sites
from hypothesis import strategies as st
from torch import Tensor

from sparseconv.compat import minkowski as ME

Site = tuple[int, ...]
Rows = dict[Site, Tensor]


def offsets(kernel: Site, dilation: Site, whole: bool = False) -> list[Site]:
    """Return the steps to the kernel's cells, the first axis fastest.

    An odd kernel has its middle on the site and an even one begins on it; ``whole`` ones do, too.
    """
    found = []
    for cell in itertools.product(*(range(k) for k in reversed(kernel))):
        step = zip(reversed(cell), kernel, dilation, strict=True)
        found.append(tuple((c - (k // 2 if k % 2 and not whole else 0)) * d for c, k, d in step))
    return found


def strided(sites: Any, stride: Site) -> set[Site]:
    """Return the sites of a stride that hold one of ``sites``."""
    return {(b, *(i // s * s for i, s in zip(site, stride, strict=True))) for b, *site in sites}


def moved(site: Site, step: Site, scale: Site) -> Site:
    """Return a site after so many steps of a tensor stride."""
    b, *spatial = site
    return (b, *(i + k * t for i, k, t in zip(spatial, step, scale, strict=True)))


def convolved(x: Rows, out: Any, kernel: Tensor, steps: list[Site], scale: Site) -> Rows:
    """Return ``y[o] = sum over k of x[o + step[k] * scale] @ kernel[k]`` at ``out``."""
    zero = torch.zeros(kernel.shape[-1], dtype=kernel.dtype)
    return {
        o: sum(
            (
                x[moved(o, step, scale)] @ kernel[k]
                for k, step in enumerate(steps)
                if moved(o, step, scale) in x
            ),
            zero,
        )
        for o in out
    }


def transposed(x: Rows, out: Any, kernel: Tensor, steps: list[Site], scale: Site) -> Rows:
    """Return ``y[o + step[k] * scale] += x[o] @ kernel[k]`` at ``out``."""
    y = {o: torch.zeros(kernel.shape[-1], dtype=kernel.dtype) for o in out}
    for site, row in x.items():
        for k, step in enumerate(steps):
            place = moved(site, step, scale)
            if place in y:
                y[place] = y[place] + row @ kernel[k]
    return y


def pooled(x: Rows, out: Any, steps: list[Site], scale: Site, kind: str) -> Rows:
    """Return the sum, mean or largest value of each window, 0 where it is empty."""
    y = {}
    for o in out:
        rows = [x[place] for step in steps if (place := moved(o, step, scale)) in x]
        if not rows:
            y[o] = torch.zeros_like(next(iter(x.values())))
        elif kind == "max":
            y[o] = torch.stack(rows).amax(0)
        else:
            y[o] = torch.stack(rows).sum(0) / (len(rows) if kind == "avg" else 1)
    return y


def rows_of(x: ME.SparseTensor) -> Rows:
    """Return a tensor's rows by their coordinates."""
    return dict(zip(map(tuple, x.C.tolist()), x.F, strict=True))


def assert_rows(x: ME.SparseTensor, expected: Rows) -> None:
    """Compare a tensor with rows by their coordinates, to 1e-12."""
    found = rows_of(x)
    assert len(found) == len(x.F)
    assert found.keys() == set(expected)
    for site, row in found.items():
        torch.testing.assert_close(row, expected[site], rtol=1e-12, atol=1e-12)


@dataclass(frozen=True)
class Problem:
    """A kernel, and coordinates at a tensor stride."""

    kernel: Site
    stride: Site
    dilation: Site
    tensor_stride: Site
    coords: Tensor
    features: Tensor

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def options(self) -> dict[str, Any]:
        window = {"kernel_size": list(self.kernel), "stride": list(self.stride)}
        return {**window, "dilation": list(self.dilation), "dimension": self.axes}

    @property
    def next_stride(self) -> Site:
        return tuple(a * b for a, b in zip(self.tensor_stride, self.stride, strict=True))

    def tensor(self, features: Tensor | None = None) -> ME.SparseTensor:
        rows = self.features if features is None else features
        return ME.SparseTensor(rows, self.coords, tensor_stride=list(self.tensor_stride))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    axes = draw(st.integers(1, 3))

    def some(low: int, high: int) -> Site:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    kernel, stride, dilation, level = some(1, 4), some(1, 3), some(1, 2), some(1, 2)
    count, batch, seed = (
        draw(st.sampled_from([1, 7, 18])),
        draw(st.integers(1, 2)),
        draw(st.integers(0, 99)),
    )
    size = {1: (20,), 2: (6, 5), 3: (4, 3, 4)}[axes]
    coords = random_sites(min(count, batch * torch.Size(size).numel()), size, batch, seed)
    coords[:, 1:] = (coords[:, 1:] - 2) * torch.tensor(level)
    features = torch.randn(len(coords), 2, dtype=torch.float64, generator=generator(seed))
    return Problem(kernel, stride, dilation, level, coords.int(), features)


def drawn(module: Any, seed: int = 3) -> Any:
    """Return a module in float64 with random parameters."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return module


COORDS = torch.tensor([[0, 0, 1], [0, -2, 1], [1, 3, -4], [1, 0, 0]], dtype=torch.int32)


def tensor(features: torch.Tensor | None = None, **options: Any) -> ME.SparseTensor:
    rows = torch.arange(8.0).reshape(4, 2) if features is None else features
    return ME.SparseTensor(rows, COORDS, **options)


def cloud(seed: int = 1, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return sites ``(b, x, y, z)`` and features."""
    sites = random_sites(60, (7, 6, 5), batch, seed).int()
    return sites, torch.randn(60, 3, dtype=torch.float64, generator=generator(seed))
