"""The figures of the lecture: images side by side, curves, sampling positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

mpl.use("Agg")  # files only, no window


class Figures:
    """Writes PNG files to a folder."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder."""
        self.folder = folder

    def matrices(self, name: str, panels: Mapping[str, Tensor]) -> None:
        """Write matrices side by side, by title: white where they are 0, red below, blue above."""
        figure, row = self._row(len(panels))
        most = max(values.abs().max().item() for values in panels.values())
        for axes, (title, values) in zip(row, panels.items(), strict=True):
            axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most)
            axes.set_title(title, fontsize=9)
        self._save(figure, name)

    def images(self, name: str, panels: Mapping[str, Tensor], ends: tuple[float, float]) -> None:
        """Write images side by side, by title, in colours from ``ends[0]`` to ``ends[1]``.

        A NaN is drawn as a hole.
        """
        figure, row = self._row(len(panels))
        for axes, (title, values) in zip(row, panels.items(), strict=True):
            axes.imshow(values.detach(), cmap="Blues", vmin=ends[0], vmax=ends[1])
            axes.set_title(title, fontsize=9)
            axes.set_facecolor("#f3d9c4")
        self._save(figure, name)

    def curves(
        self,
        name: str,
        curves: Mapping[str, Sequence[float]],
        x_label: str,
        y_label: str,
        x: Sequence[float] | None = None,
    ) -> None:
        """Write curves, by label; over 1, 2, 3, ... where ``x`` is left out."""
        figure, axes = plt.subplots(figsize=(4.5, 2.6), layout="constrained")
        for label, values in curves.items():
            axes.plot(range(1, len(values) + 1) if x is None else x, values, label=label)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
        axes.legend()
        self._save(figure, name)

    def samples(self, name: str, image: Tensor, shift: Tensor, centre: tuple[int, int]) -> None:
        """Write where a 3 x 3 kernel looks: the grid, and where its ``shift`` ``[9, 2]`` leads."""
        figure, axes = plt.subplots(figsize=(2.9, 3.2), layout="constrained")
        axes.imshow(image.detach(), cmap="gray_r", vmin=0, vmax=2 * image.max().item())
        for cell, (down, along) in enumerate(shift.detach().tolist()):
            row, column = centre[0] + cell // 3 - 1, centre[1] + cell % 3 - 1
            arrow = {"arrowstyle": "-", "color": "#555555", "lw": 1}
            axes.annotate("", (column + along, row + down), (column, row), arrowprops=arrow)
            regular = axes.scatter(column, row, s=25, color="#0077bb")
            moved = axes.scatter(column + along, row + down, s=25, color="#ee3377", zorder=3)
        axes.set(xticks=[], yticks=[])
        figure.legend([regular, moved], ["regular", "moved"], loc="outside upper center", ncols=2)
        self._save(figure, name)

    def _row(self, count: int) -> tuple[Figure, Sequence[Axes]]:
        """Return a figure of ``count`` panels without ticks."""
        figure, row = plt.subplots(1, count, figsize=(2.2 * count, 2.3), layout="constrained")
        for axes in row:
            axes.set(xticks=[], yticks=[])
        return figure, row

    def _save(self, figure: Figure, name: str) -> None:
        figure.savefig(self.folder / f"{name}.png", dpi=100)
        plt.close(figure)
