"""The reference against dense PyTorch in float64, and against itself where PyTorch stops."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseconv import reference as ref

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Compare to 1e-12, shapes and dtype included."""
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@dataclass(frozen=True)
class Case:
    """A convolution of random numbers: tensors and the options that torch takes by name."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    options: dict[str, Any]

    @property
    def axes(self) -> int:
        """D."""
        return self.x.dim() - 2

    @property
    def mask(self) -> Tensor:
        """About a third of the sites of x."""
        generator = torch.Generator().manual_seed(7)
        return torch.rand(len(self.x), *self.x.shape[2:], generator=generator) < 0.3


@st.composite
def cases(draw: st.DrawFn, transposed: bool = False, max_length: int = 6) -> Case:
    axes = draw(st.integers(1, 3))
    longest = {1: 2 * max_length, 2: max_length, 3: max_length - 2}[axes]

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes)))

    kernel, stride, dilation = per_axis(1, 3), per_axis(1, 3), per_axis(1, 2)
    padding, groups = per_axis(0, 3), draw(st.integers(1, 3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    if transposed:
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        options["output_padding"] = tuple(extra)
        # Enough input that something is left of the output behind the cropped border.
        least = [
            1 + max(0, 2 * p - r + 1 + s - 1) // s
            for p, r, s in zip(padding, reach, stride, strict=True)
        ]
    else:
        least = [max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]
    size = [draw(st.integers(n, max(n, longest))) for n in least]
    a, b = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    batch = draw(st.integers(1, 2))
    torch.manual_seed(draw(st.integers(0, 1000)))
    x = torch.randn(batch, groups * a, *size, dtype=torch.float64)
    shape = (groups * a, b) if transposed else (groups * b, a)
    weight = torch.randn(*shape, *kernel, dtype=torch.float64)
    return Case(x, weight, torch.randn(groups * b, dtype=torch.float64), options)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_conv_and_its_gradients_are_torchs(case: Case) -> None:
    x, weight, bias = (t.clone().requires_grad_() for t in (case.x, case.weight, case.bias))
    expected = CONV[case.axes](x, weight, bias, **case.options)
    assert_same(ref.conv(case.x, case.weight, case.bias, **case.options), expected.detach())
    assert expected.shape[2:] == tuple(
        ref.output_size(n, k, s, p, d)
        for n, k, s, p, d in zip(
            x.shape[2:],
            weight.shape[2:],
            case.options["stride"],
            case.options["padding"],
            case.options["dilation"],
            strict=True,
        )
    )
    grad = torch.randn_like(expected)
    x_grad, weight_grad, bias_grad = torch.autograd.grad(expected, (x, weight, bias), grad)
    assert_same(ref.conv_input_grad(grad, case.weight, x.shape, **case.options), x_grad)
    kernel = weight.shape[2:]
    assert_same(ref.conv_weight_grad(case.x, grad, kernel, **case.options), weight_grad)
    assert_same(ref.conv_bias_grad(grad), bias_grad)


@given(cases(transposed=True, max_length=4))
@settings(max_examples=60, deadline=None)
def test_conv_transpose_is_torchs(case: Case) -> None:
    expected = CONV_TRANSPOSE[case.axes](case.x, case.weight, case.bias, **case.options)
    assert_same(ref.conv_transpose(case.x, case.weight, case.bias, **case.options), expected)
    no_bias = CONV_TRANSPOSE[case.axes](case.x, case.weight, None, **case.options)
    assert_same(ref.conv_transpose(case.x, case.weight, **case.options), no_bias)


@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3)
)
def test_the_two_sizes_invert_each_other(
    length: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    fine = ref.transposed_output_size(length, kernel, stride, padding, 0, dilation)
    assert ref.output_size(fine, kernel, stride, padding, dilation) == length
    assert ref.transposed_output_size(length, kernel, stride, padding, 1, dilation) == fine + 1


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3,), (4,), (2, 3), (4, 1), (2, 3, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_named_paddings_are_torchs(padding: str, kernel: tuple[int, ...], dilation: int) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"padding": padding, "dilation": dilation}
    lengths = [d * (k - 1) + 2 for k, d in zip(kernel, [dilation] * 3, strict=False)]
    x = torch.randn(2, 2, *lengths, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, *kernel, dtype=torch.float64, requires_grad=True)
    # torch warns about 'same' with an even kernel, so the padding is written out here.
    total = [dilation * (k - 1) if padding == "same" else 0 for k in kernel]
    pads = [n for t in reversed(total) for n in (t // 2, t - t // 2)]
    expected = CONV[len(kernel)](F.pad(x, pads), weight, dilation=dilation)
    assert_same(ref.conv(x.detach(), weight.detach(), **options), expected.detach())
    grad = torch.randn_like(expected)
    x_grad, weight_grad = torch.autograd.grad(expected, (x, weight), grad)
    assert_same(ref.conv_input_grad(grad, weight.detach(), x.shape[2:], **options), x_grad)
    assert_same(ref.conv_weight_grad(x.detach(), grad, kernel, **options), weight_grad)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [3, 4, 2])
def test_same_puts_the_odd_cell_where_torch_does(kernel: int) -> None:
    x = torch.arange(1.0, 8.0, dtype=torch.float64).reshape(1, 1, 7)
    weight = torch.arange(1.0, kernel + 1.0, dtype=torch.float64).reshape(1, 1, kernel)
    assert_same(ref.conv(x, weight, padding="same"), F.conv1d(x, weight, padding="same"))


def four(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A 4-D input and a 4-D weight with two groups."""
    torch.manual_seed(seed)
    x = torch.randn(1, 2, 4, 3, 4, 3, dtype=torch.float64)
    return x, torch.randn(2, 1, 3, 2, 2, 2, dtype=torch.float64)


def test_conv_in_4d_is_a_sum_of_3d_convolutions() -> None:
    x, weight = four()
    (front, *rest), (time, *strides) = (1, 0, 1, 1), (2, 1, 2, 1)
    y = ref.conv(x, weight, None, (time, *strides), (front, *rest), groups=2)
    frames = F.pad(x.movedim(2, 0), [0] * 10 + [front, front])
    for t in range(y.shape[2]):
        expected = sum(
            F.conv3d(frames[time * t + k], weight[:, :, k], None, strides, rest, groups=2)
            for k in range(weight.shape[2])
        )
        assert isinstance(expected, Tensor)
        assert_same(y[:, :, t], expected)


def test_gradients_in_4d_are_the_derivatives_of_conv() -> None:
    x, weight = four(1)
    options: dict[str, Any] = {
        "stride": (1, 2, 1, 2),
        "padding": (2, 0, 1, 1),
        "dilation": (1, 2, 1, 2),
        "groups": 2,
    }
    x.requires_grad_()
    weight.requires_grad_()
    y = ref.conv(x, weight, **options)
    grad = torch.randn_like(y)
    x_grad, weight_grad = torch.autograd.grad(y, (x, weight), grad)
    assert_same(ref.conv_input_grad(grad, weight.detach(), x.shape, **options), x_grad)
    assert_same(ref.conv_weight_grad(x.detach(), grad, (3, 2, 2, 2), **options), weight_grad)


def test_conv_transpose_in_4d_is_the_adjoint_of_conv() -> None:
    x, weight = four(2)
    options: dict[str, Any] = {"stride": (2, 1, 2, 1), "padding": (1, 0, 1, 0), "groups": 2}
    y = torch.randn_like(ref.conv(x, weight, **options))
    back = ref.conv_transpose(y, weight, output_padding=(1, 0, 0, 0), **options)
    seen = x[:, :, : back.shape[2], :, : back.shape[4]]
    assert back.shape == (1, 2, 4, 3, 4, 3)
    assert_same((ref.conv(x, weight, **options) * y).sum(), (seen * back).sum())


@given(cases())
@settings(max_examples=30, deadline=None)
def test_subm_conv_is_the_masked_same_convolution(case: Case) -> None:
    # The first cells of the drawn kernel, an odd number of them on each axis.
    weight = case.weight
    for axis, n in enumerate(weight.shape[2:], start=2):
        weight = weight.narrow(axis, 0, n - (n + 1) % 2)
    dilation, groups = case.options["dilation"], case.options["groups"]
    mask = case.mask
    dirty = case.x.masked_fill(~mask.unsqueeze(1), float("nan"))
    clean = case.x.masked_fill(~mask.unsqueeze(1), 0.0)
    pads = [d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    dense = CONV[case.axes](clean, weight, case.bias, 1, pads, dilation, groups)
    expected = dense.masked_fill(~mask.unsqueeze(1), 0.0)
    assert_same(ref.subm_conv(dirty, mask, weight, case.bias, dilation, groups), expected)
    with_channel = ref.subm_conv(dirty, mask.unsqueeze(1), weight, case.bias, dilation, groups)
    assert_same(with_channel, expected)


def dense_of_ones(case: Case) -> Tensor:
    """A kernel of ones: what it makes positive is what a window reaches."""
    return torch.ones(1, 1, *case.weight.shape[2:], dtype=torch.float64)


def site_options(case: Case) -> dict[str, Any]:
    return {name: value for name, value in case.options.items() if name != "groups"}


@given(cases())
@settings(max_examples=40, deadline=None)
def test_conv_sites_are_where_a_kernel_of_ones_answers(case: Case) -> None:
    options = site_options(case)
    answer = CONV[case.axes](case.mask.unsqueeze(1).double(), dense_of_ones(case), **options)
    sites = ref.conv_sites(case.mask, case.weight.shape[2:], **options)
    assert sites.dtype == torch.bool
    assert torch.equal(sites, answer[:, 0] > 0)


@given(cases(transposed=True, max_length=4))
@settings(max_examples=40, deadline=None)
def test_conv_transpose_sites_are_where_a_kernel_of_ones_answers(case: Case) -> None:
    options = site_options(case)
    mask = case.mask.unsqueeze(1).double()
    answer = CONV_TRANSPOSE[case.axes](mask, dense_of_ones(case), **options)
    sites = ref.conv_transpose_sites(case.mask, case.weight.shape[2:], **options)
    assert torch.equal(sites, answer[:, 0] > 0)


@pytest.mark.parametrize(("padding", "expected"), [("same", [1, 1, 0, 0, 0]), ("valid", [1, 0])])
def test_conv_sites_take_named_paddings(padding: str, expected: list[int]) -> None:
    # A kernel of 4 reads from one cell before its centre to two cells behind it.
    mask = torch.tensor([[True, False, False, False, False]])
    assert ref.conv_sites(mask, 4, padding=padding).int().tolist() == [expected]


@given(cases())
@settings(max_examples=40, deadline=None)
def test_inverse_conv_is_the_adjoint_at_the_sites(case: Case) -> None:
    mask = case.mask.unsqueeze(1)
    u = case.x.masked_fill(~mask, 0.0).requires_grad_()
    y = CONV[case.axes](u, case.weight, None, **case.options)
    coarse = torch.randn_like(y)
    (adjoint,) = torch.autograd.grad(y, u, coarse)
    expected = adjoint.masked_fill(~mask, 0.0)
    assert_same(ref.inverse_conv(coarse, case.weight, case.mask, **case.options), expected)
    bias = torch.randn(u.shape[1], dtype=torch.float64)
    shifted = expected + bias.reshape(-1, *[1] * case.axes) * mask
    assert_same(ref.inverse_conv(coarse, case.weight, mask, bias, **case.options), shifted)


def test_sites_in_4d_are_where_a_kernel_of_ones_answers() -> None:
    x, weight = four(3)
    mask = x[:, 0] > 1
    ones, options = torch.ones(1, 1, *weight.shape[2:]), {"stride": 2, "padding": 1}
    kernel = weight.shape[2:]
    reached = ref.conv(mask.unsqueeze(1), ones, None, **options)[:, 0] > 0
    assert torch.equal(ref.conv_sites(mask, kernel, **options), reached)
    assert 0 < reached.sum() < reached.numel()
    reached = ref.conv_transpose(mask.unsqueeze(1), ones, None, **options)[:, 0] > 0
    assert torch.equal(ref.conv_transpose_sites(mask, kernel, **options), reached)
    assert 0 < reached.sum() < reached.numel()


def test_inverse_conv_in_4d_is_the_adjoint_at_the_sites() -> None:
    x, weight = four(4)
    mask = x[:, :1] > 0
    u, options = x * mask, {"stride": 2, "padding": 1, "groups": 2}
    y = ref.conv(u, weight, None, **options)
    coarse = torch.randn_like(y)
    back = ref.inverse_conv(coarse, weight, mask, None, **options)
    assert_same((y * coarse).sum(), (u * back).sum())
    assert_same(back, back * mask)


def test_float32_input_is_judged_in_float64() -> None:
    x, weight = torch.randn(1, 2, 5), torch.randn(3, 2, 3)
    assert_same(ref.conv(x, weight), F.conv1d(x.double(), weight.double()))


def test_it_imports_nothing_of_ours() -> None:
    names = set()
    for file in Path(ref.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "a relative import is one of ours"
                module = node.module or ""
                if not module.startswith("sparseconv.reference."):
                    names.add(module.partition(".")[0])
    assert names - sys.stdlib_module_names == {"torch"}
