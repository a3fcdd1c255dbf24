"""Draw the pictures of the tutorials.

    python tools/tutorial_pictures.py

Those of the lecture show small grids, from layers that run: active sites in blue with their values,
inactive ones white. That of the voxel sizes is what the page's own blocks draw.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any

import torch
from grids import BLUE, DOCS, HOLE, PICTURES, PINK, Grid, cells, draw, of, save
from matplotlib import pyplot as plt
from torch import nn

import sparseconv as sc

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def sites(rows: str) -> sc.SparseTensor:
    """Return a tensor from a drawing: digits are values of active sites, dots are inactive."""
    lines = rows.split()
    table = [[0.0 if mark == "." else float(mark) for mark in line] for line in lines]
    mask = torch.tensor([[mark != "." for mark in line] for line in lines])
    return sc.SparseTensor.from_dense(torch.tensor(table)[None, None], mask[None])


STROKE = """
........
.12.....
..3.....
..21....
...2....
...13...
.....2..
........
"""


def of_ones(layer: nn.Module) -> nn.Module:
    """Return a layer whose weights are all 1."""
    with torch.no_grad():
        layer.weight.fill_(1.0)
    return layer


def convolution() -> None:
    """Draw a dense convolution: one window and its output cell."""
    t = torch.tensor([[1.0, 2, 0, 1, 3, 1], [0, 1, 2, 2, 1, 0], [1, 3, 1, 0, 2, 1],
                      [2, 0, 1, 1, 0, 2], [1, 1, 0, 2, 1, 1], [0, 2, 1, 0, 1, 2]])  # fmt: skip
    kernel = torch.tensor([[0.0, 1, 0], [1, 2, 1], [0, 1, 0]])
    y = nn.functional.conv2d(t[None, None], kernel[None, None])[0, 0]
    draw("convolution", [
        Grid("input x", t, boxes=[(1, 2, 3, 3)]),
        Grid("kernel w", kernel),
        Grid("output y", y, boxes=[(1, 2, 1, 1)]),
    ])  # fmt: skip


def sparse() -> None:
    """Draw a convolution of active sites, and a submanifold one."""
    x = sites(STROKE)
    regular = of_ones(nn.Conv2d(1, 1, 3, padding=1, bias=False))(x)
    kept = of_ones(sc.nn.SubmConv2d(1, 1, 3, bias=False))(x)
    draw("sparse", [
        of(f"input: {x.num_sites} active sites", x, [(5, 5, 3, 3)]),
        of(f"convolution: {regular.num_sites}", regular, [(6, 6, 1, 1)]),
    ])  # fmt: skip
    draw("submanifold", [
        of(f"input: {x.num_sites} active sites", x, [(2, 1, 3, 3)]),
        of(f"submanifold: {kept.num_sites}", kept, [(3, 2, 1, 1)]),
    ])  # fmt: skip


def strided() -> None:
    """Draw a convolution of stride 2, its inverse, and the transposed convolution."""
    x = sites(STROKE)
    y = of_ones(nn.Conv2d(1, 1, 2, stride=2, bias=False))(x)
    back = of_ones(sc.nn.InverseConv2d(1, 1, 2, stride=2, bias=False))(y)
    every = of_ones(nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False))(y)
    windows = [(i, j, 2, 2) for i in range(0, 8, 2) for j in range(0, 8, 2)]
    draw("strided", [
        of(f"input: {x.num_sites} sites", x, windows),
        of(f"stride 2: {y.num_sites} sites", y, [(i // 2, j // 2, 1, 1) for i, j, _, _ in windows]),
    ])  # fmt: skip
    draw("transposed", [
        of(f"input: {y.num_sites} sites", y),
        of(f"transposed: {every.num_sites} sites", every),
        of(f"inverse: {back.num_sites} sites", back),
    ])  # fmt: skip


def pooling() -> None:
    """Draw the maximum and both averages over windows of active sites."""
    x = sites(STROKE)
    draw("pooling", [
        of("input", x, [(4, 2, 2, 2)]),
        of("maximum", nn.MaxPool2d(2)(x), [(2, 1, 1, 1)]),
        of("average of 4", nn.AvgPool2d(2)(x), [(2, 1, 1, 1)]),
        of("of the active", nn.AvgPool2d(2, count_include_pad=False)(x), [(2, 1, 1, 1)]),
    ])  # fmt: skip


def connections() -> None:
    """Draw the matrices of a fully connected, a locally connected and a convolutional layer."""
    torch.manual_seed(0)
    ends = torch.arange(8)[:, None] + torch.arange(3)
    blank = torch.zeros(8, 10)
    matrices = {
        "fully connected": torch.randn(8, 10),
        "locally connected": blank.scatter(1, ends, torch.randn(8, 3)),
        "shared": blank.scatter(1, ends, torch.tensor([[1.0, -2.0, 1.5]] * 8)),
    }
    draw("connections", [
        Grid(f"{name}: {len(values[values != 0].unique())} weights", values, values != 0,
             numbers=False)
        for name, values in matrices.items()
    ], signed=True)  # fmt: skip


def groups() -> None:
    """Draw which input channel meets which output channel."""
    block = torch.block_diag(*[torch.ones(2, 2)] * 4)
    kinds = {
        "one group: 64": torch.ones(8, 8),
        "4 groups: 16": block,
        "depthwise: 8": torch.eye(8),
    }
    draw("groups", [
        Grid(f"{name} blocks of weights", values, values > 0, numbers=False)
        for name, values in kinds.items()
    ])  # fmt: skip


def partial() -> None:
    """Draw a mean over windows with a hole in them."""
    image = torch.tensor([2.0, 3, 4, 5, 6, 7]).expand(6, 6).clone()
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[1:5, 2:5] = mask[0, 0] = False
    layer = sc.nn.PartialConv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(layer.weight, 1 / 9)
    held = (image * mask)[None, None]
    plain = nn.functional.conv2d(held, layer.weight, padding=1)[0, 0].detach()
    y, filled = layer(image[None, None], mask[None, None])
    draw("partial", [
        Grid("input with holes", image, mask, empty=HOLE, boxes=[(0, 1, 3, 3)]),
        Grid("convolution", plain, boxes=[(1, 2, 1, 1)]),
        Grid("partial convolution", y[0, 0].detach(), filled[0, 0], [(1, 2, 1, 1)], empty=HOLE),
    ])  # fmt: skip


def deformable() -> None:
    """Draw where a regular kernel looks, and a deformable one."""
    torch.manual_seed(3)
    x = sites(STROKE)
    figure, row = plt.subplots(1, 2, figsize=(5.6, 3.0), layout="constrained")
    titles = "regular: cells of the grid", "deformable: cells and offsets"
    for axes, title in zip(row, titles, strict=True):
        cells(axes, of(title, x, [(3, 3, 1, 1)], numbers=False), 6.0, False)
        for cell in range(9):
            at = torch.tensor([3.5 + cell // 3 - 1, 3.5 + cell % 3 - 1])
            to = at + 0.8 * torch.randn(2)
            axes.scatter(at[1], at[0], s=22, color=BLUE, zorder=4)
            if title.startswith("deformable"):
                arrow = {"arrowstyle": "-", "color": "#555555", "lw": 1}
                axes.annotate("", (to[1], to[0]), (at[1], at[0]), arrowprops=arrow)
                axes.scatter(to[1], to[0], s=22, color=PINK, zorder=5)
    save(figure, "lecture/deformable")


def receptive_field() -> None:
    """Draw how many paths lead from each input to the middle output."""
    grids = []
    for layers, size, strides in ((1, 9, [1]), (2, 9, [1, 1]), (2, 13, [2, 1])):
        x = torch.ones(1, 1, size, size, requires_grad=True)
        y = x
        for stride in strides:
            y = nn.functional.conv2d(y, torch.ones(1, 1, 3, 3), stride=stride, padding=1)
        middle = y.shape[2] // 2
        (paths,) = torch.autograd.grad(y[0, 0, middle, middle], x)
        field = int((paths[0, 0].sum(0) > 0).sum())
        words = f"{layers} layer{'s' * (layers > 1)}{', the first of stride 2' * (2 in strides)}"
        grids.append(Grid(f"{words}: {field} x {field}", paths[0, 0], paths[0, 0] > 0))
    draw("receptive_field", grids)


def normalisation() -> None:
    """Draw a channel before and after batch normalisation over its active sites."""
    x = sites(STROKE)
    y = nn.BatchNorm2d(1)(x)
    rounded = y.replace((10 * y.features).round() / 10)
    draw("normalisation", [
        of(f"mean {x.features.mean():.2f}", x),
        of("mean 0, variance 1", rounded),
    ], signed=True)  # fmt: skip


def activations() -> None:
    """Draw activations over their argument."""
    axis = torch.linspace(-3, 3, 61)
    layers = {"sigmoid": nn.Sigmoid(), "ReLU": nn.ReLU(), "PReLU, slope 0.25": nn.PReLU()}
    figure, axes = plt.subplots(figsize=(4.5, 2.6), layout="constrained")
    for (name, layer), dashes in zip(layers.items(), ("-", "-", "--"), strict=True):
        axes.plot(axis, layer(axis).detach(), dashes, label=name)
    axes.set(xlabel="input", ylabel="output")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, "lecture/activations")


def voxel_size() -> None:
    """Draw what the page on voxel sizes draws, by its blocks."""
    page = (DOCS / "tutorials" / "voxel_size.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {}
    os.chdir(DOCS.parent)
    with contextlib.redirect_stdout(io.StringIO()):
        for block in BLOCK.findall(page)[:2]:
            exec(block, scope)
    save(scope["figure"], "voxel_size")


def main() -> None:
    """Draw all of them."""
    for picture in (
        convolution, sparse, strided, pooling, connections, groups, partial, deformable,
        receptive_field, normalisation, activations, voxel_size,
    ):  # fmt: skip
        picture()
    print(f"wrote {PICTURES}/lecture/ and {PICTURES}/voxel_size.png")


if __name__ == "__main__":
    main()
