"""Receptive fields, judged by the gradient of one output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import Tensor, nn

import sparseconv as sc

LENGTH = 160


def rows(model: nn.Module, size: Any) -> dict[str, Any]:
    return {row.name: row for row in sc.receptive_field(model, size)}


def last(model: nn.Module, size: Any) -> Any:
    return sc.receptive_field(model, size)[-1]


def positive(model: nn.Module) -> nn.Module:
    """Make nothing cancel: all weights 1, statistics of no effect."""
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model.double().eval()


def extents(model: nn.Module, size: tuple[int, ...], axis: int) -> list[tuple[int, int] | None]:
    """Return the first and last input that each output along the middle line of an axis reads."""
    x = torch.ones(1, 1, *size, dtype=torch.float64, requires_grad=True)
    y = model(x)
    found: list[tuple[int, int] | None] = []
    middle = [length // 2 for length in y.shape[2:]]
    for place in range(y.shape[2 + axis]):
        at = [*middle[:axis], place, *middle[axis + 1 :]]
        (grad,) = torch.autograd.grad(y[(0, 0, *at)], x, retain_graph=True)
        hit = grad.abs().sum(dim=[d for d in range(x.ndim) if d != 2 + axis]).nonzero()[:, 0]
        found.append((int(hit.min()), int(hit.max())) if len(hit) else None)
    return found


def judge(model: nn.Module, size: tuple[int, ...]) -> None:
    """Compare with the gradient, where it does not touch the border."""
    row = last(model, size)
    for axis, length in enumerate(size):
        found = extents(positive(model), size, axis)
        assert len(found) == row.size[axis]
        inside = [e for e in found if e is not None and e[0] > 0 and e[1] < length - 1]
        if not inside:
            continue
        widest = max(high - low + 1 for low, high in inside)
        assert widest == row.r[axis] if len(inside) > 16 else widest <= row.r[axis]


class Both(nn.Module):
    """Two branches that meet."""

    def __init__(self, left: nn.Module, right: nn.Module, how: str) -> None:
        super().__init__()
        self.left, self.right, self.how = left, right, how

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        if self.how == "add":
            return left + right
        if self.how == "multiply":
            return torch.mul(left, right)
        return torch.cat([left, right], dim=1).sum(1, keepdim=True)


def conv(axes: int) -> Any:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]


@st.composite
def keeping(draw: st.DrawFn, axes: int) -> nn.Module:
    """Draw a layer that keeps the extent and gives every position the same window."""
    kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (5, 1)]))
    kind = draw(st.sampled_from(["conv", "subm", "same", "pool", "norm", "both"]))
    if kind == "subm":
        return (sc.nn.SubmConv1d, sc.nn.SubmConv2d)[axes - 1](1, 1, kernel, dilation)
    if kind == "same":
        return conv(axes)(1, 1, kernel, padding="same", dilation=dilation)
    if kind == "pool":
        return (nn.AvgPool1d, nn.AvgPool2d)[axes - 1](3, 1, 1)
    if kind == "norm":
        return nn.Sequential((nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1](1), nn.ReLU(inplace=True))
    if kind == "both":
        how = draw(st.sampled_from(["add", "multiply", "cat"]))
        return Both(draw(keeping(axes)), draw(keeping(axes)), how)
    return conv(axes)(1, 1, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation)


@st.composite
def changing(draw: st.DrawFn, axes: int) -> nn.Module:
    """Draw a layer that changes the extent."""
    kernel, stride = draw(st.sampled_from([(2, 2), (3, 2), (3, 1), (1, 2), (3, 3), (4, 2)]))
    if draw(st.booleans()):
        padding = draw(st.integers(0, kernel // 2))
        return (nn.AvgPool1d, nn.AvgPool2d)[axes - 1](kernel, stride, padding)
    return conv(axes)(1, 1, kernel, stride, draw(st.integers(0, 2)))


@given(st.data())
def test_chains_and_branches_agree_with_the_gradient(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([1, 1, 1, 2]))
    layers = [nn.Identity()]
    for _ in range(data.draw(st.integers(1, 4))):
        layers.append(data.draw(st.one_of(keeping(axes), changing(axes))))
    layers.append(conv(axes)(1, 1, 3, padding=1))
    size = (LENGTH,) if axes == 1 else (24, 30)
    model = nn.Sequential(*layers)
    try:
        row = last(model, size)
    except RuntimeError:  # PyTorch's own: a window larger than what is left
        reject()
    judge(model, size)
    place = row.size[0] // 2
    extent = extents(positive(model), size, 0)[place]
    centre = row.start[0] + place * row.jump[0]
    low, high = centre - (row.r[0] - 1) / 2, centre + (row.r[0] - 1) / 2
    if low >= row.r[0] and high < size[0] - row.r[0]:
        assert extent == (low, high)


@given(st.data())
def test_transposed_layers_and_interpolation_agree_with_the_gradient(data: st.DataObject) -> None:
    layers: list[nn.Module] = [data.draw(changing(1))]
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["transposed", "inverse", "nearest", "linear", "keep"]))
        kernel, stride = data.draw(st.sampled_from([(2, 2), (3, 2), (1, 2), (3, 1), (4, 3)]))
        if kind == "transposed":
            padding = data.draw(st.integers(0, 1)) if kernel > 2 else 0
            layers.append(nn.ConvTranspose1d(1, 1, kernel, stride, padding))
        elif kind == "inverse":
            layers.append(sc.nn.InverseConv1d(1, 1, kernel, stride))
        elif kind == "keep":
            layers.append(data.draw(keeping(1)))
        else:
            align = data.draw(st.booleans()) if kind == "linear" else None
            scale = data.draw(st.integers(2, 3))
            layers.append(nn.Upsample(scale_factor=scale, mode=kind, align_corners=align))
    layers.append(nn.Conv1d(1, 1, 3, data.draw(st.integers(1, 2)), 1))
    judge(nn.Sequential(*layers), (72,))


def test_the_example_of_the_lecture() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3, 2), nn.Conv1d(1, 1, 3, 2))
    got = sc.receptive_field(model, (1, 1, 31))
    assert [(row.r, row.jump, row.start, row.size) for row in got] == [
        ((3,), (2,), (1,), (15,)),
        ((7,), (4,), (3,), (7,)),
    ]


def test_axes_are_told_apart() -> None:
    model = nn.Conv3d(1, 1, (1, 3, 5), (1, 2, 1), (0, 1, 0), (1, 1, 2))
    (row,) = sc.receptive_field(model, (7, 9, 11))
    assert (row.r, row.jump, row.start) == ((1, 3, 9), (1, 2, 1), (0, 0, 4))
    assert row.size == (7, 5, 3)
    assert row.name == "Conv3d"


def test_input_sizes_may_leave_out_channels_and_batch() -> None:
    model = nn.Conv2d(3, 1, 3)
    for size in ((8, 9), (3, 8, 9), (2, 3, 8, 9)):
        assert last(model, size).size == (6, 7)
    for size in ((8,), (1, 2, 3, 8, 9), (), (0, 3), ("a", 1), 7):
        with pytest.raises(sc.SparseConvValueError, match=r"^input_size"):
            sc.receptive_field(model, size)
    with pytest.raises(sc.SparseConvTypeError, match=r"^model"):
        sc.receptive_field(torch.relu, (8, 9))


class Residual(nn.Module):
    """What people write: functions, shortcuts, a squeeze and excitation, an odd upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.gate = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        skip = x
        x = self.down(F.avg_pool2d(x, 2))
        x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
        x += skip
        gate = torch.sigmoid(self.gate(x.mean((2, 3)))).view(x.size(0), -1, 1, 1)
        seen = (x * gate)[:, :, 1:-1, ::2]
        a, b = seen.chunk(2, dim=1)
        tokens = torch.stack([a, b], dim=-1).permute(0, 2, 3, 1, 4).flatten(3)
        return self.head(tokens).movedim(-1, 1)


def test_networks_as_people_write_them() -> None:
    got = rows(Residual(), (1, 30, 40))
    assert got["stem"].r == (3, 3)
    assert got["avg_pool2d"].r == (4, 4)
    assert got["down"].r == (8, 8)
    assert got["mean"].size == (1, 1)
    assert got["mean"].r[0] >= 30
    assert "head" not in got  # it reads channels alone


def test_a_flattened_axis_is_read_by_a_linear_layer() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 6, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    got = sc.receptive_field(model, (6, 8))
    assert [row.name for row in got] == ["0", "2"]
    assert (got[1].r, got[1].size, got[1].start) == ((6, 8), (1, 1), (2.5, 3.5))
    tokens = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.Flatten(2), nn.Unflatten(2, (3, 4)),
                           nn.Conv2d(4, 1, 3))  # fmt: skip
    assert last(tokens, (6, 8)).r == (6, 6)


def test_everything_meets_in_attention() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, 8, 4, 4)
            self.after = nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x)
            t = x.flatten(2).transpose(1, 2)
            t = F.scaled_dot_product_attention(t, t, t)
            return self.after(t.transpose(1, 2).reshape(x.shape))

    assert last(Attention(), (16, 24)).r == (16, 24)


def test_pixel_shuffles_pads_and_pools() -> None:
    model = nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(1, 4, 3), nn.PixelShuffle(2), nn.MaxPool2d(2), nn.LPPool2d(2, 3)
    )
    got = sc.receptive_field(model, (12, 12))
    assert [row.r[0] for row in got] == [3, 3, 5]
    assert [row.start[0] for row in got] == [0, 0, 1]
    pool = nn.Sequential(nn.Conv1d(1, 1, 3), nn.AdaptiveAvgPool1d(4))
    assert last(pool, (14,)).r == (5,)
    assert last(nn.Sequential(nn.Conv1d(1, 1, 3), nn.AdaptiveMaxPool1d(1)), (14,)).r == (14,)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sc.receptive_field(model, (1, 9))
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_what_is_not_known_is_said() -> None:
    class Odd(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    for function, name in (
        (lambda x: x.roll(1, 2), "roll"),
        (lambda x: x if x.sum() > 0 else -x, "bool"),
        (lambda x: x[torch.tensor([0])], "tensor or list"),
    ):
        with pytest.raises(sc.SparseConvNotImplementedError, match=name):
            sc.receptive_field(Odd(function), (1, 1, 8))
