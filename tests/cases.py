"""What the tests share: tolerances, random inputs, and layers with the dense run that judges them.

A :class:`Layer` is one of the four convolutions with its options; a :class:`Problem` is a layer,
a grid and random numbers. The dense run is PyTorch's own in one to three axes and
:mod:`sparseconv.reference` in four; the site sets are always the reference's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from devices import bench
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc
from sparseconv import reference

Ints = tuple[int, ...]

# Engines that may not be skipped, by name and comma: a CI machine says what it must be able to run.
REQUIRED_ENGINES = frozenset(
    filter(None, os.environ.get("SPARSECONV_REQUIRED_ENGINES", "").split(","))
)

TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-2,
}
DTYPES = list(TOLERANCE)
_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
)
_BENCH = pytest.mark.skipif(bench.why_not() is not None, reason=f"no bench: {bench.why_not()}")
REAL_DEVICES = ["cpu", pytest.param("cuda", marks=_GPU)]
DEVICES = [*REAL_DEVICES, pytest.param(bench.NAME, marks=_BENCH)]
SITE_COUNTS = (0, 1, 63, 1000)

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d, 4: sc.functional.conv4d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    """Compare with ``expected``, relative to its largest value, to the tolerance of a dtype.

    Args:
        actual: what the library computed.
        expected: what judges it, of the same shape.
        dtype: whose tolerance holds; that of ``actual`` where left out.
    """
    tolerance = TOLERANCE[dtype or actual.dtype]
    expected = expected.detach().double()
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() and bool(finite.any()) else 1.0
    torch.testing.assert_close(
        actual.detach().double(),
        expected,
        rtol=tolerance,
        atol=tolerance * scale,
        equal_nan=True,
    )


def skip_unless_it_can(engine: str, dtype: torch.dtype) -> None:
    """Skip, in the engine's own words, what it cannot do; fail where it is required."""
    reason = sc.engines.get(engine).why_not(torch.device("cpu"), dtype)
    if reason is not None:
        (pytest.fail if engine in REQUIRED_ENGINES else pytest.skip)(f"{engine}: {reason}")


def generator(seed: int) -> torch.Generator:
    """Return a source of random numbers that no other test disturbs."""
    return torch.Generator().manual_seed(seed)


def shuffled(coords: Tensor, seed: int) -> Tensor:
    """Return the rows in a random order."""
    return coords[torch.randperm(len(coords), generator=generator(seed))]


def random_mask(
    batch: int, size: Sequence[int], density: float, seed: int = 0, empty_sample: bool = False
) -> Tensor:
    """Return bool ``[B, *size]``; with ``empty_sample`` the middle sample has no site."""
    mask = torch.rand(batch, *size, generator=generator(seed)) < density
    if empty_sample:
        mask[batch // 2] = False
    return mask


def sparse(t: Tensor, mask: Tensor, seed: int | None = None) -> sc.SparseTensor:
    """Return the masked sites of a dense ``[B, C, *size]``, rows shuffled where a seed is given."""
    coords = mask.nonzero()
    if seed is not None:
        coords = shuffled(coords, seed)
    features = t.movedim(1, -1)[tuple(coords.unbind(1))]
    return sc.SparseTensor(features, coords, tuple(t.shape[2:]), t.shape[0])


def random_sites(count: int, size: Sequence[int], batch: int = 1, seed: int = 0) -> Tensor:
    """Return ``count`` different coordinates ``[count, 1 + D]`` in random order."""
    cells = batch * torch.Size(size).numel()
    places = torch.randperm(cells, generator=generator(seed))[:count]
    return torch.stack(torch.unravel_index(places, (batch, *size)), dim=1)


def random_input(
    count: int,
    channels: int,
    size: Sequence[int] = (12, 12, 12),
    batch: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> sc.SparseTensor:
    """Return a SparseTensor of normal numbers on ``count`` random sites."""
    coords = random_sites(count, size, batch, seed)
    features = torch.randn(count, channels, generator=generator(seed + 1), dtype=torch.float64)
    return sc.SparseTensor(features.to(dtype), coords, tuple(size), batch)


def permuted(x: sc.SparseTensor, seed: int = 0) -> sc.SparseTensor:
    """Return the same tensor with its rows in another order, made from scratch."""
    order = torch.randperm(x.num_sites, generator=generator(seed))
    features = x.features.detach()[order]
    return sc.SparseTensor(features, x.coords[order], x.spatial_shape, x.batch_size)


def dense_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints | int = 1,
    padding: Ints | int | str = 0,
    dilation: Ints | int = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve densely; 'same' is written out, because PyTorch warns where a window is even."""
    axes = weight.ndim - 2
    if axes == 4:
        y = reference.conv(x, weight, bias, stride, padding, dilation, groups)
        # where nothing meets, the reference's loops leave no trace in autograd's graph
        return y + 0 * (x.sum() + weight.sum())
    if isinstance(padding, str):
        steps = (dilation,) * axes if isinstance(dilation, int) else dilation
        total = [d * (k - 1) for d, k in zip(steps, weight.shape[2:], strict=True)]
        ends = [(n // 2, n - n // 2) if padding == "same" else (0, 0) for n in total]
        x = F.pad(x, [n for pair in reversed(ends) for n in pair])
        padding = 0
    return CONV[axes](x, weight, bias, stride, padding, dilation, groups)


def dense_inverse(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    size: Sequence[int],
    **options: Any,
) -> Tensor:
    """Return the adjoint of ``dense_conv`` on a grid of ``size``, from autograd, plus the bias."""
    channels = weight.shape[1] * options.get("groups", 1)
    u = x.new_zeros(x.shape[0], channels, *size).requires_grad_()
    y = dense_conv(u, weight, None, **options)
    (adjoint,) = torch.autograd.grad(y, u, x, create_graph=True)
    return adjoint if bias is None else adjoint + bias.reshape(-1, *(1,) * len(size))


@dataclass(frozen=True)
class Layer:
    """A convolution and its options; ``c_in`` and ``c_out`` are channels per group."""

    kind: str  # conv, transposed, subm or inverse
    kernel: Ints
    stride: Ints | int = 1
    padding: Ints | int | str = 0
    dilation: Ints | int = 1
    groups: int = 1
    output_padding: Ints | int = 0
    bias: bool = True
    c_in: int = 1
    c_out: int = 2

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def in_channels(self) -> int:
        return self.groups * self.c_in

    @property
    def out_channels(self) -> int:
        return self.groups * self.c_out

    @property
    def is_pointwise(self) -> bool:
        """Whether every site reads itself alone."""
        given = (self.kernel, self.stride, self.padding, self.output_padding)
        return all(
            value in (neutral, (neutral,) * self.axes) or isinstance(value, str)
            for value, neutral in zip(given, (1, 1, 0, 0), strict=True)
        )

    @property
    def window(self) -> dict[str, Any]:
        """The options that decide which sites meet."""
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        if self.kind == "subm":
            options = {"dilation": self.dilation}
        if self.kind == "transposed":
            options["output_padding"] = self.output_padding
        return options

    def parameters(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
        """Return random weight and bias."""
        source = generator(seed)
        shape = (self.out_channels, self.c_in)
        if self.kind in ("transposed", "inverse"):
            shape = (self.in_channels, self.c_out)
        weight = torch.randn(*shape, *self.kernel, generator=source, dtype=torch.float64)
        bias = torch.randn(self.out_channels, generator=source, dtype=torch.float64)
        return [weight.to(dtype), bias.to(dtype) if self.bias else None]

    def __call__(self, x: sc.SparseTensor, weight: Tensor, bias: Tensor | None) -> sc.SparseTensor:
        """Run the layer on a sparse tensor."""
        function = {
            "conv": CONV[self.axes],
            "transposed": CONV_TRANSPOSE.get(self.axes),
            "subm": sc.functional.subm_conv,
            "inverse": sc.functional.inverse_conv,
        }[self.kind]
        return function(x, weight, bias, groups=self.groups, **self.window)

    def dense(self, x: Tensor, weight: Tensor, bias: Tensor | None, fine: Ints) -> Tensor:
        """Run the layer on a dense tensor; an inverse one returns to a grid of extent ``fine``."""
        options = dict(self.window, groups=self.groups)
        if self.kind == "transposed":
            return CONV_TRANSPOSE[self.axes](x, weight, bias, **options)
        if self.kind == "inverse":
            return dense_inverse(x, weight, bias, fine, **options)
        if self.kind == "subm":
            options["padding"] = "same"
        return dense_conv(x, weight, bias, **options)

    def sites(self, mask: Tensor) -> Tensor:
        """Return the output sites, bool ``[B, *output]``; for an inverse layer its input sites."""
        if self.kind == "subm":
            return mask
        law = reference.conv_transpose_sites if self.kind == "transposed" else reference.conv_sites
        return law(mask, self.kernel, **self.window)


@dataclass(frozen=True)
class Problem:
    """A layer on a grid: for an inverse layer the grid that its strided layer read."""

    layer: Layer
    size: Ints
    batch: int = 2
    density: float = 0.4
    empty_sample: bool = False
    seed: int = 0
    mask: Tensor = field(default=None, repr=False)  # random where left out
    in_mask: Tensor = field(init=False, repr=False)
    out_mask: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the sites on both sides of the layer."""
        mask = self.mask
        if mask is None:
            mask = random_mask(self.batch, self.size, self.density, self.seed, self.empty_sample)
        other = self.layer.sites(mask)
        inverse = self.layer.kind == "inverse"
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "in_mask", other if inverse else mask)
        object.__setattr__(self, "out_mask", mask if inverse else other)

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
        """Return the dense input, weight and bias, random, wanting gradients."""
        shape = (self.batch, self.layer.in_channels, *self.in_mask.shape[1:])
        t = torch.randn(shape, generator=generator(self.seed + 1), dtype=torch.float64).to(dtype)
        return leaves_of([t, *self.layer.parameters(self.seed + 2, dtype)])

    def input(self, t: Tensor) -> sc.SparseTensor:
        """Return the sparse input with the numbers of the dense ``t``, rows in a random order.

        For an inverse layer it lies on sites that the strided layer has made; this tensor keeps
        the sites that they were made from alive (as ``fine``).
        """
        if self.layer.kind != "inverse":
            return sparse(t, self.in_mask, self.seed)
        ones = torch.ones(self.batch, 1, *self.size, dtype=t.dtype)
        fine = sparse(ones, self.mask, self.seed)
        options = {**self.layer.window, "groups": 1}
        kernel = torch.ones(1, 1, *self.layer.kernel, dtype=t.dtype)
        coarse = CONV[self.layer.axes](fine, kernel, None, **options)
        assert torch.equal(coarse.mask()[:, 0], self.in_mask)
        x = coarse.replace(t.movedim(1, -1)[tuple(coarse.coords.unbind(1))])
        x.fine = fine
        return x

    def run(self, leaves: Sequence[Tensor | None]) -> sc.SparseTensor:
        t, weight, bias = leaves
        return self.layer(self.input(t), weight, bias)

    def run_dense(self, leaves: Sequence[Tensor | None]) -> Tensor:
        """Return the dense output at the active sites, zero elsewhere."""
        t, weight, bias = leaves
        seen = torch.where(self.in_mask.unsqueeze(1), t, 0.0)
        y = self.layer.dense(seen, weight, bias, self.size) + 0 * (t.sum() + weight.sum())
        return torch.where(self.out_mask.unsqueeze(1), y, 0.0)

    def cotangent(self, seed: int = 5) -> Tensor:
        """Return random numbers at the active output sites, zero elsewhere."""
        shape = (self.batch, self.layer.out_channels, *self.out_mask.shape[1:])
        t = torch.randn(shape, generator=generator(self.seed + seed), dtype=torch.float64)
        return t * self.out_mask.unsqueeze(1)


def leaves_of(
    tensors: Sequence[Tensor | None], dtype: torch.dtype | None = None
) -> list[Tensor | None]:
    """Return copies that want gradients, in ``dtype`` where that is given; None stays None."""
    return [t if t is None else t.detach().to(dtype, copy=True).requires_grad_() for t in tensors]


def gradients(output: Tensor, leaves: Sequence[Tensor | None], cotangent: Tensor) -> list[Tensor]:
    """Return the gradients of ``<output, cotangent>`` by the leaves that are there."""
    present = [leaf for leaf in leaves if leaf is not None]
    return list(torch.autograd.grad(output, present, cotangent.to(output.dtype)))


# One layer of each kind and axis count, with options that a shortcut would get wrong: kernels and
# dilations that differ per axis, even kernels, windows that skip sites, groups, depthwise.
LAYERS = {
    "conv1d": Layer("conv", (4,), 3, 1, 2, c_in=2),
    "conv2d": Layer("conv", (2, 3), (1, 2), (1, 0), (2, 1), groups=2),
    "conv2d-same": Layer("conv", (2, 3), padding="same", bias=False),
    "conv2d-depthwise": Layer("conv", (3, 3), 2, 1, groups=3, c_out=1),
    "conv3d": Layer("conv", (3, 2, 1), (2, 1, 2), (1, 0, 1), (1, 2, 1), c_in=2),
    "conv3d-pointwise": Layer("conv", (1, 1, 1), c_in=3),
    "conv3d-skipping": Layer("conv", (1, 1, 1), 2),
    "conv4d": Layer("conv", (2, 1, 2, 3), (2, 1, 1, 2), (0, 0, 1, 1)),
    "transposed1d": Layer("transposed", (3,), 2, 1, 2, output_padding=1, c_in=2),
    "transposed2d": Layer("transposed", (2, 3), (3, 1), (0, 1), groups=2, output_padding=(2, 0)),
    "transposed3d": Layer("transposed", (2, 1, 3), 2, (0, 0, 1), (1, 1, 2), bias=False),
    "subm1d": Layer("subm", (5,), dilation=2, c_in=2),
    "subm2d": Layer("subm", (3, 1), groups=2),
    "subm2d-depthwise": Layer("subm", (3, 3), dilation=(1, 2), groups=3, c_out=1),
    "subm3d": Layer("subm", (3, 1, 3), dilation=(2, 1, 1), c_in=2),
    "subm4d": Layer("subm", (3, 1, 3, 1)),
    "inverse1d": Layer("inverse", (3,), 2, 1, c_in=2),
    "inverse2d": Layer("inverse", (2, 3), (2, 1), (0, 2), (1, 2), groups=2),
    "inverse2d-same": Layer("inverse", (2, 3), padding="same", bias=False),
    "inverse3d": Layer("inverse", (2, 2, 2), 2, c_in=2),
    "inverse4d": Layer("inverse", (2, 1, 2, 1), (2, 1, 1, 1)),
}
GRID = {1: (9,), 2: (5, 6), 3: (4, 3, 4), 4: (3, 2, 3, 3)}  # a small grid for each axis count
PROBLEMS = {name: Problem(layer, GRID[layer.axes]) for name, layer in LAYERS.items()}

_LONGEST = {1: 14, 2: 7, 3: 4, 4: 3}
_LARGEST_KERNEL = {1: 5, 2: 4, 3: 3, 4: 2}


@st.composite
def layers(draw: st.DrawFn, kinds: Sequence[str], axes: int) -> Layer:
    """Draw a layer with every option at random."""

    def per_axis(low: int, high: int) -> Ints:
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kind = draw(st.sampled_from(kinds))
    kernel = per_axis(1, _LARGEST_KERNEL[axes])
    if kind == "subm":
        kernel = tuple(size - (size + 1) % 2 for size in kernel)
    stride, dilation = per_axis(1, 3), per_axis(1, 3 if axes < 3 else 2)
    padding: Ints | int | str = draw(
        st.sampled_from(["same", "valid", per_axis(0, 3), draw(st.integers(0, 2))])
    )
    if kind == "transposed" and isinstance(padding, str):
        padding = 0
    if padding == "same":
        stride = (1,) * axes
    limits = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    extra = tuple(draw(st.integers(0, limit)) for limit in limits)
    return Layer(
        kind,
        kernel,
        stride,
        padding,
        dilation,
        draw(st.integers(1, 3)),
        extra if kind == "transposed" else 0,
        draw(st.booleans()),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
    )


@st.composite
def problems(draw: st.DrawFn, kinds: Sequence[str], axes: Sequence[int] = (1, 2, 3)) -> Problem:
    """Draw a layer, a grid on which it has an output, a density, a batch."""
    layer = draw(layers(kinds, draw(st.sampled_from(axes))))
    least = smallest_grid(layer)
    longest = _LONGEST[layer.axes]
    batch = draw(st.integers(1, 3))
    return Problem(
        layer,
        tuple(draw(st.integers(n, max(n, longest))) for n in least),
        batch,
        draw(st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.8, 1.0])),
        draw(st.booleans()) and batch > 1,
        draw(st.integers(0, 2**16)),
    )


def smallest_grid(layer: Layer) -> Ints:
    """Return the smallest input extent per axis for which the output has at least one site."""
    given = (layer.padding, layer.stride, layer.dilation, layer.output_padding)
    padding, stride, dilation, extra = (
        value if isinstance(value, str | tuple) else (value,) * layer.axes for value in given
    )
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, layer.kernel, strict=True)]
    if layer.kind == "subm" or padding == "same":
        return (1,) * layer.axes
    if padding == "valid":
        padding = (0,) * layer.axes
    if layer.kind != "transposed":
        return tuple(max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True))
    missing = [1 + 2 * p - r - e for r, p, e in zip(reach, padding, extra, strict=True)]
    return tuple(1 + max(0, -(-m // s)) for m, s in zip(missing, stride, strict=True))


def pairs_of(rulebook: Any, in_coords: Tensor, out_coords: Tensor) -> list[set[tuple[Ints, Ints]]]:
    """Return, per kernel cell, the set of (input coordinates, output coordinates)."""
    ins, outs = (
        [tuple(coords[row].tolist()) for row in rows.tolist()]
        for coords, rows in ((in_coords, rulebook.in_rows), (out_coords, rulebook.out_rows))
    )
    return [
        set(zip(ins[start:end], outs[start:end], strict=True))
        for start, end in itertools.pairwise(rulebook.splits)
    ]
