"""Small grids side by side, as the pictures of the tutorials show them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

import sparseconv as sc

mpl.use("Agg")  # files only, no window

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = DOCS / "pictures"
PALETTE = 64  # colours of a PNG
BLUE, PINK, HOLE = "#0077bb", "#ee3377", "#f3d9c4"
Box = tuple[int, int, int, int]  # row, column, height, width


@dataclass(frozen=True)
class Grid:
    """A grid to draw.

    Attributes:
        title: above it.
        values: ``[H, W]``.
        active: bool ``[H, W]``; None: everywhere.
        boxes: windows to outline.
        numbers: whether the values stand in the cells.
        empty: colour of inactive cells.
    """

    title: str
    values: Tensor
    active: Tensor | None = None
    boxes: Sequence[Box] = ()
    numbers: bool = True
    empty: str = "white"


def of(title: str, x: sc.SparseTensor, boxes: Sequence[Box] = (), numbers: bool = True) -> Grid:
    """Return the first channel of a two-dimensional tensor as a grid."""
    return Grid(title, x.dense()[0, 0].detach(), x.mask()[0, 0], boxes, numbers)


def draw(name: str, grids: Sequence[Grid], signed: bool = False) -> None:
    """Write a picture of grids side by side, in one scale of colours."""
    widths = [max(grid.values.shape) for grid in grids]
    figure, row = plt.subplots(
        1, len(grids), figsize=(2.5 * len(grids), 2.75), layout="constrained", width_ratios=widths
    )
    shown = [grid.values[grid.active] if grid.active is not None else grid.values for grid in grids]
    top = max(float(values.abs().max()) for values in shown if values.numel())
    for axes, grid in zip(row, grids, strict=True):
        cells(axes, grid, top, signed)
    save(figure, f"lecture/{name}")


def cells(axes: Axes, grid: Grid, top: float, signed: bool) -> None:
    """Draw a grid, its darkest colour for the value ``top``."""
    height, width = grid.values.shape
    active = torch.ones(height, width, dtype=torch.bool) if grid.active is None else grid.active
    colours = mpl.colormaps["RdBu" if signed else "Blues"]
    for i in range(height):
        for j in range(width):
            value, on = grid.values[i, j].item(), bool(active[i, j])
            share = 0.5 + 0.4 * value / top if signed else 0.12 + 0.6 * abs(value) / top
            face = colours(share) if on else grid.empty
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=face, edgecolor="#cccccc", lw=0.6))
            if on and grid.numbers:
                size = 8 if max(height, width) < 8 else 6.5
                axes.text(j + 0.5, i + 0.5, f"{value:.3g}", ha="center", va="center", fontsize=size)
    for i, j, tall, wide in grid.boxes:
        axes.add_patch(Rectangle((j, i), wide, tall, fill=False, edgecolor=PINK, lw=2, zorder=3))
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.set_title(grid.title, fontsize=9)
    axes.set_frame_on(False)


def save(figure: Figure, name: str) -> None:
    """Write a figure as a small PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    (PICTURES / "lecture").mkdir(parents=True, exist_ok=True)
    picture = Image.open(drawn).convert("RGB").quantize(PALETTE)
    picture.save(PICTURES / f"{name}.png", optimize=True)
