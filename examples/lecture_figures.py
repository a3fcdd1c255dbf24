"""The figures of the lecture: images side by side, curves, sampling positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

mpl.use("Agg")  # files only, no window


class Figures:
    """Writes PNG files to a folder."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder."""
        self.folder = folder

    def image(self, name: str, values: Tensor, title: str) -> None:
        """Write one matrix, white where it is 0."""
        figure, axes = plt.subplots(figsize=(6, 2), layout="constrained")
        most = values.abs().max().item()
        axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
        axes.set(xticks=[], yticks=[], title=title)
        self._save(figure, name)

    def images(self, name: str, panels: Mapping[str, Tensor]) -> None:
        """Write small images side by side, by title."""
        count = len(panels)
        figure, row = plt.subplots(1, count, figsize=(1.8 * count, 2), layout="constrained")
        for axes, (title, values) in zip(row, panels.items(), strict=True):
            axes.imshow(values.detach(), cmap="viridis")
            axes.set(xticks=[], yticks=[], title=title)
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
        figure, axes = plt.subplots(figsize=(2.6, 2.6), layout="constrained")
        axes.imshow(image.detach(), cmap="gray_r")
        for cell, (down, along) in enumerate(shift.detach().tolist()):
            row, column = centre[0] + cell // 3 - 1, centre[1] + cell % 3 - 1
            axes.plot([column, column + along], [row, row + down], color="#0077bb", lw=1)
            axes.plot(column, row, "o", color="#0077bb", ms=3)
            axes.plot(column + along, row + down, "o", color="#ee3377", ms=5)
        axes.set(xticks=[], yticks=[])
        self._save(figure, name)

    def _save(self, figure: Figure, name: str) -> None:
        figure.savefig(self.folder / f"{name}.png", dpi=100)
        plt.close(figure)
