"""Deformable convolution against its definition, the plain convolution and torchvision."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import (
    CONV,
    TOLERANCE,
    assert_close,
    generator,
    leaves_of,
    permuted,
    random_mask,
    sparse,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import sparseconv as sc
from sparseconv import reference
from sparseconv.functional import deform_conv

pytestmark = pytest.mark.usefixtures("engine")

Ints = tuple[int, ...]
LAYERS = {1: sc.nn.DeformConv1d, 2: sc.nn.DeformConv2d, 3: sc.nn.DeformConv3d}
PLAIN = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}


@dataclass(frozen=True)
class Case:
    """A deformable convolution of random numbers; ``c_in`` counts channels of a common split."""

    size: Ints
    kernel: Ints
    stride: Ints | int = 1
    padding: Ints | int = 0
    dilation: Ints | int = 1
    groups: int = 1
    offset_groups: int = 1
    modulated: bool = True
    c_in: int = 2
    c_out: int = 2
    batch: int = 2
    far: float = 1.0
    seed: int = 0

    @property
    def steps(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def channels(self) -> int:
        return self.c_in * math.lcm(self.groups, self.offset_groups)

    @property
    def out(self) -> Ints:
        axes = len(self.size)
        options = [
            (value,) * axes if isinstance(value, int) else value
            for value in (self.stride, self.padding, self.dilation)
        ]
        return tuple(
            reference.output_size(*entry)
            for entry in zip(self.size, self.kernel, *options, strict=True)
        )

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
        """Return input, offset, weight, bias, mask; no position lies on a grid line."""
        source, cells = generator(self.seed), math.prod(self.kernel)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=source, dtype=torch.float64)

        parts = self.offset_groups * cells
        shift = self.far * normal(self.batch, parts * len(self.size), *self.out)
        shift = shift.floor() + (shift - shift.floor()).clamp(0.05, 0.95)
        mask = normal(self.batch, parts, *self.out)
        tensors = [
            normal(self.batch, self.channels, *self.size),
            shift,
            normal(self.groups * self.c_out, self.channels // self.groups, *self.kernel),
            normal(self.groups * self.c_out),
            mask if self.modulated else None,
        ]
        return leaves_of(tensors, dtype)

    def run(self, leaves: list[Tensor | None], function: Any = deform_conv) -> Tensor:
        x, shift, weight, bias, mask = leaves
        return function(x, shift, weight, bias, mask=mask, **self.steps)


CASES = {
    "1d": Case((9,), (4,), 3, 1, 2),
    "2d": Case((5, 6), (2, 3), (1, 2), (1, 0), (2, 1), groups=2),
    "2d-v1": Case((4, 4), (3, 3), padding=1, offset_groups=2, modulated=False),
    "2d-depthwise": Case((4, 5), (3, 3), 2, 1, groups=3, offset_groups=3, c_in=1, c_out=1),
    "2d-split": Case((3, 4), (2, 2), groups=2, offset_groups=5, c_in=2, c_out=1),
    "2d-far": Case((4, 5), (3, 3), padding=1, far=4.0),
    "3d": Case((4, 3, 4), (3, 2, 1), (2, 1, 2), (1, 0, 1), (1, 2, 1), offset_groups=2, c_in=1),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    axes = draw(st.integers(1, 3))

    def per_axis(low: int, high: int) -> Ints:
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, stride, dilation = per_axis(1, 4 - axes), per_axis(1, 3), per_axis(1, 2)
    padding = per_axis(0, 2)
    reach = zip(kernel, dilation, padding, strict=True)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in reach]
    size = tuple(draw(st.integers(low, low + 6 // axes)) for low in least)
    return Case(
        size,
        kernel,
        stride,
        padding,
        dilation,
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        draw(st.integers(1, 2)),
        draw(st.sampled_from([0.3, 1.0, 3.0])),
        draw(st.integers(0, 1000)),
    )


def check(case: Case) -> None:
    """Compare values and all gradients with the definition."""
    leaves, judges = case.leaves(), case.leaves()
    y, expected = case.run(leaves), case.run(judges, reference.deform_conv)
    assert y.shape == expected.shape
    assert_close(y, expected)
    cotangent = torch.randn(y.shape, generator=generator(case.seed + 1), dtype=y.dtype)
    got, wanted = (
        torch.autograd.grad(out, [t for t in tensors if t is not None], cotangent)
        for out, tensors in ((y, leaves), (expected, judges))
    )
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("name", CASES)
def test_dense_is_the_definition(name: str) -> None:
    check(CASES[name])


@given(case=cases())
@settings(max_examples=15)
def test_dense_is_the_definition_anywhere(case: Case) -> None:
    check(case)


def test_many_channels_are_computed_in_blocks_that_offset_groups_cut() -> None:
    check(Case((3, 4), (2, 2), groups=2, offset_groups=5, c_in=7, c_out=19))
    check(Case((4,), (2,), offset_groups=2, c_in=21, c_out=35, batch=3))


@pytest.mark.parametrize("name", ["1d", "2d", "2d-v1", "2d-split", "3d"])
def test_first_and_second_derivatives(name: str) -> None:
    case = CASES[name]
    small = Case(
        case.size[:1] + tuple(min(n, 3) for n in case.size[1:]),
        case.kernel,
        *case.steps.values(),
        case.groups,
        case.offset_groups,
        case.modulated,
        c_in=1,
        c_out=1,
        batch=1,
    )
    present = [leaf for leaf in small.leaves() if leaf is not None]

    def function(*given: Tensor) -> Tensor:
        return small.run([*given, *[None] * (5 - len(given))])

    assert gradcheck(function, present, fast_mode=True)
    assert gradgradcheck(function, present, fast_mode=True)


def test_a_third_derivative_holds_too() -> None:
    case = Case((4,), (2,), c_in=1, c_out=1, batch=1)

    def slope(*leaves: Tensor) -> Tensor:
        y = case.run([*leaves[:3], None, leaves[3]])
        (grad,) = torch.autograd.grad((y**2).sum(), leaves[1], create_graph=True)
        return grad

    leaves = [leaf for place, leaf in enumerate(case.leaves()) if place != 3]
    assert gradgradcheck(slope, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["2d", "3d"])
def test_every_dtype(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    leaves = case.leaves(dtype)
    y = case.run(leaves)
    assert y.dtype == dtype
    assert_close(y, case.run(leaves, reference.deform_conv))
    y.sum().backward()
    assert [leaf.grad.dtype for leaf in leaves] == [dtype] * 5


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_whole_offsets_shift_the_plain_convolution(axes: int) -> None:
    x = torch.randn(1, 4, *(4,) * axes, dtype=torch.float64)
    weight = torch.randn(6, 2, *(3,) * axes, dtype=torch.float64)
    shift = torch.zeros(1, 3**axes * axes, *(4,) * axes, dtype=torch.float64)
    plain = CONV[axes](x, weight, padding=1, groups=2)
    assert_close(deform_conv(x, shift, weight, padding=1), plain)
    assert_close(reference.deform_conv(x, shift, weight, padding=1), plain)
    shift[:, axes - 1 :: axes] = 1  # along the last axis
    moved = F.pad(x[..., 1:], (0, 1))
    # the last column reads what lies behind the border of both
    expected = CONV[axes](moved, weight, padding=1, groups=2)[..., 1:]
    assert_close(deform_conv(x, shift, weight, padding=1)[..., 1:], expected)


def test_one_cell_samples_as_grid_sample_does() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    shift = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    weight = torch.eye(2, dtype=torch.float64)[:, :, None, None]
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    position = torch.stack([columns + shift[0, 1], rows + shift[0, 0]], dim=-1)
    scaled = 2 * position / torch.tensor([4.0, 3.0], dtype=torch.float64) - 1
    expected = F.grid_sample(x, scaled[None], align_corners=True, padding_mode="zeros")
    assert_close(deform_conv(x, shift, weight), expected)


@pytest.mark.parametrize(
    ("position", "value", "slope"),
    [
        (-1.5, 0.0, 0.0),
        (-1.0, 0.0, 10.0),  # nothing is read, yet one step on there would be: as torchvision
        (-0.75, 2.5, 10.0),
        (0.0, 10.0, 20.0),
        (1.0, 30.0, -30.0),  # between the last site and the zero behind it
        (1.5, 15.0, -30.0),
        (2.0, 0.0, 0.0),
        (1e6, 0.0, 0.0),
        (-1e30, 0.0, 0.0),
    ],
)
def test_the_border(position: float, value: float, slope: float) -> None:
    x = torch.tensor([[[10.0, 30.0]]], dtype=torch.float64)
    shift = torch.tensor([[[position]]], dtype=torch.float64, requires_grad=True)
    y = deform_conv(x, shift, torch.ones(1, 1, 1, dtype=torch.float64), stride=2)
    y.sum().backward()
    assert (y.item(), shift.grad.item()) == (value, slope)


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_infinitely_far_is_outside_and_nan_is_nan(bad: float) -> None:
    x, weight = torch.ones(1, 1, 3), torch.ones(1, 1, 1)
    shift = torch.tensor([[[0.0, bad, math.nan]]])
    y = deform_conv(x, shift, weight)
    assert y[0, 0, :2].tolist() == [1.0, 0.0]
    assert y[0, 0, 2].isnan()


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("2d")])
def test_torchvision_gives_the_same_numbers(name: str) -> None:
    ops = pytest.importorskip("torchvision.ops")
    leaves, judges = CASES[name].leaves(), CASES[name].leaves()
    y, expected = CASES[name].run(leaves), CASES[name].run(judges, ops.deform_conv2d)
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(leaves, judges, strict=True):
        if mine is not None:
            assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("modulated", [False, True])
def test_a_torchvision_layer_hands_over_its_weights(modulated: bool) -> None:
    ops = pytest.importorskip("torchvision.ops")
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    theirs = ops.DeformConv2d(4, 6, 3, **options)
    mine = sc.nn.DeformConv2d(4, 6, 3, **options, modulated=modulated, offset_groups=2)
    mine.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(2, 4, 9, 8)
    torch.nn.init.normal_(mine.offset.weight)
    mask = None
    if modulated:
        torch.nn.init.normal_(mine.modulation.weight)
        mask = torch.sigmoid(mine.modulation(x))
    assert_close(mine(x), theirs(x, mine.offset(x), mask))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_batch_of_nothing_passes(axes: int) -> None:
    layer = LAYERS[axes](4, 6, 3, stride=2, padding=1, groups=2, modulated=True, offset_groups=2)
    x = torch.zeros(0, 4, *(5,) * axes, requires_grad=True)
    y = layer(x)
    assert y.shape == (0, 6, *(3,) * axes)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert all(not parameter.grad.any() for parameter in layer.parameters())


# On a SparseTensor


def at_sites(t: Tensor, y: sc.SparseTensor) -> sc.SparseTensor:
    """Return the numbers of a dense tensor on the sites of ``y``."""
    return y.replace(t.movedim(1, -1)[tuple(y.coords.unbind(1))])


def sparse_problem(
    case: Case, density: float, submanifold: bool = False
) -> tuple[sc.SparseTensor, sc.SparseTensor, list[Tensor | None]]:
    """Return an input, a tensor on the output sites, and leaves for a dense run."""
    leaves = case.leaves()
    mask = random_mask(case.batch, case.size, density, case.seed)
    x = sparse(leaves[0], mask, seed=case.seed)
    if submanifold:
        return x, x, leaves
    kernel = torch.ones(1, case.channels, *case.kernel, dtype=torch.float64)
    return x, CONV[len(case.size)](x, kernel, **case.steps), leaves


def check_sparse(case: Case, density: float, submanifold: bool = False) -> None:
    """Compare with the definition on the dense tensor, at the output sites, with gradients."""
    x, sites, leaves = sparse_problem(case, density, submanifold)
    _, shift, weight, bias, mask = leaves
    steps = {"dilation": case.dilation, "submanifold": True} if submanifold else case.steps
    share = None if mask is None else at_sites(mask, sites)
    y = deform_conv(x, at_sites(shift, sites), weight, bias, mask=share, **steps)
    assert y.sites is sites.sites
    judges = case.leaves()
    seen = judges[0] * x.mask()
    expected = at_sites(case.run([seen, *judges[1:]], reference.deform_conv), sites)
    assert_close(y.features, expected.features)
    if y.num_sites == 0:
        return
    cotangent = torch.randn(y.features.shape, generator=generator(3), dtype=torch.float64)
    got, wanted = (
        torch.autograd.grad(out.features, [t for t in tensors if t is not None], cotangent)
        for out, tensors in ((y, leaves), (expected, judges))
    )
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_sparse_is_the_definition_with_zeros(name: str, density: float) -> None:
    check_sparse(CASES[name], density)


@given(case=cases(), density=st.sampled_from([0.05, 0.3, 0.8]))
@settings(max_examples=15)
def test_sparse_is_the_definition_anywhere(case: Case, density: float) -> None:
    check_sparse(case, density)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_submanifold_keeps_the_sites(axes: int, density: float) -> None:
    kernel, size = (3, 1, 3)[:axes], (5, 4, 3)[:axes]
    padding, dilation = tuple(n // 2 * 2 for n in kernel), 2
    case = Case(size, kernel, 1, padding, dilation, groups=2, c_in=1)
    check_sparse(case, density, submanifold=True)
    leaves = case.leaves()
    dense = deform_conv(*leaves[:4], dilation=dilation, mask=leaves[4], submanifold=True)
    assert_close(dense, case.run(leaves))


@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_sparse_derivatives(name: str) -> None:
    case = CASES[name]
    x, sites, leaves = sparse_problem(case, 0.4)
    _, shift, weight, bias, mask = leaves
    rows = [x.features, at_sites(shift, sites).features, at_sites(mask, sites).features]
    rows = leaves_of(rows)

    def function(features: Tensor, shift: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        guides = sites.replace(shift), sites.replace(mask)
        y = deform_conv(x.replace(features), guides[0], weight, bias, mask=guides[1], **case.steps)
        return y.features

    assert gradcheck(function, (*rows, weight), fast_mode=True)
    assert gradgradcheck(function, (*rows, weight), fast_mode=True)


def outcome(layer: torch.nn.Module, x: sc.SparseTensor) -> tuple[Tensor, Tensor]:
    """Return output and input gradient, dense; the cotangent depends on coordinates alone."""
    x = x.detach().requires_grad_()
    y = layer(x)
    cotangent = torch.sin(y.coords[:, 1:].sum(dim=1, keepdim=True).to(y.dtype) + 1)
    (grad,) = torch.autograd.grad(y.features, x.features, cotangent.expand_as(y.features))
    return y.detach().dense(), x.detach().replace(grad).dense()


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("submanifold", [False, True])
def test_rows_batch_threads_and_repetition_do_not_change_a_bit(submanifold: bool) -> None:
    options = {"submanifold": True} if submanifold else {"stride": 2, "padding": 1}
    layer = sc.nn.DeformConv2d(5, 20, 3, modulated=True, **options)
    torch.nn.init.normal_(layer.offset.weight)
    torch.nn.init.normal_(layer.modulation.weight)
    t = torch.randn(3, 5, 24, 26)
    x = sparse(t, random_mask(3, (24, 26), 0.5), seed=4)
    first = outcome(layer, x)
    try:
        torch.set_num_threads(3)
        runs = [outcome(layer, x), outcome(layer, permuted(x))]
    finally:
        torch.set_num_threads(1)
    for other in runs:
        assert all(torch.equal(*pair) for pair in zip(first, other, strict=True))
    alone = outcome(layer, x[1])
    assert all(torch.equal(a[1:2], b) for a, b in zip(first, alone, strict=True))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("modulated", [False, True])
def test_a_fresh_layer_is_the_plain_convolution_or_half_of_it(axes: int, modulated: bool) -> None:
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    layer = LAYERS[axes](4, 6, 3, bias=False, modulated=modulated, offset_groups=2, **options)
    plain = PLAIN[axes](4, 6, 3, bias=False, **options)
    plain.load_state_dict({"weight": layer.weight})
    t = torch.randn(2, 4, *(7,) * axes)
    x = sparse(t, random_mask(2, (7,) * axes, 0.4))
    share = 0.5 if modulated else 1.0
    assert_close(layer(t), share * plain(t))
    assert_close(layer(x).features, share * plain(x).features)
    assert layer(x).sites is plain(x).sites


@pytest.mark.parametrize("submanifold", [False, True])
def test_with_every_site_active_a_layer_is_the_dense_one(submanifold: bool) -> None:
    options = {"submanifold": True} if submanifold else {"padding": 1, "stride": 2}
    layer = sc.nn.DeformConv3d(3, 4, 3, modulated=True, **options).double()
    torch.nn.init.normal_(layer.offset.weight)
    twin = copy.deepcopy(layer)
    t = torch.randn(2, 3, 3, 4, 3, dtype=torch.float64)
    y = layer(sc.SparseTensor.from_dense(t))
    assert_close(y.dense(), twin(t))
    y.features.square().sum().backward()
    twin(t).square().sum().backward()
    for mine, theirs in zip(layer.parameters(), twin.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad)


@given(submanifold=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=10)
def test_a_layer_computes_at_the_sites_of_like(submanifold: bool, seed: int) -> None:
    """It is the layer of the whole grid, read where it was asked; dense tensors tell the extent."""
    draw = generator(seed)
    window = {} if submanifold else {"stride": 2, "padding": 1}
    layer = sc.nn.DeformConv2d(4, 3, 3, modulated=True, submanifold=submanifold, **window).double()
    torch.nn.init.normal_(layer.offset.weight, generator=draw)
    dense = torch.randn(2, 4, 6, 7, generator=draw, dtype=torch.float64)
    x = sparse(dense, random_mask(2, (6, 7), 0.4, seed), seed)
    size = (6, 7) if submanifold else (3, 4)
    on = torch.zeros(2, 1, *size, dtype=torch.float64)
    here = sparse(on, random_mask(2, size, 0.5, seed + 1), seed)
    everywhere = layer(x.dense(), like=on)
    at = here.coords
    y = layer(x, like=here)
    assert y.sites.same_as(here.sites)
    assert_close(y.features, everywhere[at[:, 0], :, at[:, 1], at[:, 2]])
    with pytest.raises(sc.SparseConvError, match="like"):
        layer(x, like=sparse(torch.zeros(2, 1, 9, 9), torch.ones(2, 9, 9)))
    with pytest.raises(sc.SparseConvError, match="like"):
        layer(x.dense(), like=torch.zeros(2, 1, 9, 9))


def test_reset_puts_the_samples_back_onto_the_grid() -> None:
    layer = sc.nn.DeformConv1d(2, 3, 3, modulated=True)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    layer.reset_parameters()
    guides = [*layer.offset.parameters(), *layer.modulation.parameters()]
    assert all(not parameter.any() for parameter in guides)
    assert layer.weight.any()


def test_under_autocast_it_runs_in_float32_as_torchvision_does() -> None:
    layer = sc.nn.DeformConv2d(2, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(1, 2, 5, 5))
    assert y.dtype == torch.float32
    y.sum().backward()


def arguments(**changes: Any) -> dict[str, Any]:
    """Return a call that works, but for the changes."""
    given = {
        "input": torch.zeros(1, 4, 6, 6),
        "offset": torch.zeros(1, 36, 6, 6),
        "weight": torch.zeros(2, 2, 3, 3),
        "bias": torch.zeros(2),
        "padding": 1,
        "mask": torch.zeros(1, 18, 6, 6),
    }
    return {**given, **changes}


def test_the_call_that_the_errors_change_works() -> None:
    assert deform_conv(**arguments()).shape == (1, 2, 6, 6)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("input", {"input": torch.zeros(1, 4, 6, 6, 6, 6)}),
        ("input", {"input": torch.zeros(1, 3, 6, 6)}),
        ("weight", {"weight": [1.0]}),
        ("weight", {"weight": torch.zeros(2, 2, 3, 3).double()}),
        ("bias", {"bias": torch.zeros(3)}),
        ("offset", {"offset": torch.zeros(1, 35, 6, 6)}),
        ("offset", {"offset": torch.zeros(1, 54, 6, 6)}),  # 3 groups of 4 channels
        ("offset", {"offset": torch.zeros(1, 36, 5, 6)}),
        ("offset", {"offset": torch.zeros(2, 36, 6, 6)}),
        ("offset", {"offset": torch.zeros(36)}),
        ("offset", {"offset": torch.zeros(1, 36, 6, 6).double()}),
        ("offset", {"offset": None}),
        ("offset", {"offset": sc.SparseTensor.from_dense(torch.ones(1, 36, 6, 6))}),
        ("mask", {"mask": torch.zeros(1, 9, 6, 6)}),
        ("mask", {"mask": torch.zeros(1, 18, 6, 7)}),
        ("mask", {"mask": torch.zeros(1, 18, 6, 6).double()}),
        ("stride", {"stride": 0}),
        ("padding", {"padding": (1, 1, 1)}),
        ("stride", {"submanifold": True, "stride": 2, "padding": 0}),
        ("padding", {"submanifold": True}),
        ("kernel_size", {"submanifold": True, "padding": 0, "weight": torch.zeros(2, 2, 2, 3)}),
    ],
)
def test_a_wrong_call_names_the_argument(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{name}: [^\n]*$"):
        deform_conv(**arguments(**changes))


def test_a_missing_offset_is_refused() -> None:
    x = sc.SparseTensor.from_dense(torch.ones(1, 2, 3, 3))
    with pytest.raises(sc.SparseConvTypeError, match=r"^offset: [^\n]*NoneType$"):
        sc.functional.deform_conv(x, None, torch.zeros(2, 2, 1, 1))


def test_a_guide_on_other_sites_is_refused() -> None:
    x = sc.SparseTensor.from_dense(torch.ones(1, 4, 6, 6))
    weight = torch.zeros(2, 2, 3, 3)
    for offset in (torch.zeros(1, 18, 4, 4), x.replace(torch.zeros(36, 18))):
        with pytest.raises(sc.SparseConvError, match=r"^offset: [^\n]*$"):
            deform_conv(x, offset, weight)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("offset_groups", {"offset_groups": 3}),
        ("offset_groups", {"offset_groups": 0}),
        ("offset_groups", {"offset_groups": 1.5}),
        ("submanifold", {"submanifold": True, "stride": 2}),
        ("submanifold", {"submanifold": True, "padding": 1}),
        ("kernel_size", {"submanifold": True, "kernel_size": 2}),
        ("groups", {"groups": 3}),
    ],
)
def test_a_wrong_layer_names_the_argument(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(sc.SparseConvError, match=rf"^{name}: [^\n]*$"):
        sc.nn.DeformConv2d(**{"in_channels": 4, "out_channels": 2, "kernel_size": 3, **changes})
