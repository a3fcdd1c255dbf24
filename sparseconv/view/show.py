"""`view`: points or voxels, coloured by class or value, as a page, a picture or in a window."""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.view import picture
from sparseconv.view.page import page_of
from sparseconv.view.scene import Scene, scene_of

NOTEBOOK_HEIGHT = 520  # pixels


@dataclass(frozen=True)
class View:
    """What :func:`view` returns: notebooks show it, :meth:`save` writes, :meth:`show` opens it.

    Attributes:
        scene: what is shown.
        title: of page and window.
    """

    scene: Scene
    title: str = ""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page (``.html``) or, with Open3D, a picture (``.png``).

        Raises:
            SparseConvError: Another suffix; a picture without Open3D.
            OSError: The file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".html":
            path.write_text(page_of(self.scene, self.title), encoding="utf-8")
        elif suffix == ".png":
            pixels = picture.pixels_of(self.scene)
            try:
                images = importlib.import_module("PIL.Image")
            except ImportError as error:
                raise SparseConvError("a picture needs Pillow: pip install pillow") from error
            images.fromarray(pixels).save(path)
        else:
            raise SparseConvValueError(f"output: {path.name!r} must end in .html or .png")
        return path

    def show(self) -> None:
        """Open a window, and wait until it is closed.

        Raises:
            SparseConvError: Open3D is not installed.
        """
        picture.show(self.scene, self.title)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the page in a frame."""
        page = base64.b64encode(page_of(self.scene, self.title).encode()).decode()
        return (
            f'<iframe src="data:text/html;base64,{page}" width="100%" '
            f'height="{NOTEBOOK_HEIGHT}" style="border:0"></iframe>'
        )


def view(
    cloud: Any,
    labels: Any = None,
    prediction: Any = None,
    *,
    color_by: str | None = None,
    classes: Sequence[str] | None = None,
    title: str = "",
    output: str | os.PathLike[str] | None = None,
) -> View:
    """Show points, or voxels as boxes, coloured by class, by a value or by height.

    With labels and a prediction there are three panels side by side: truth, prediction, error.

    Args:
        cloud: :class:`sparseconv.io.Points`, a SparseTensor of three axes and one sample (boxes, in
            metres where its grid is known), or an array ``[N, 3]``.
        labels: ``[N]`` whole numbers, one a point or voxel, below 0 for no label; the cloud's own
            where left out.
        prediction: ``[N]``, as `labels`.
        color_by: ``"height"``, ``"rgb"`` or the name of a column, instead of labels.
        classes: a name for each class, for the legend.
        title: of the window.
        output: a ``.html`` or ``.png`` file to write, see :meth:`View.save`.

    Raises:
        SparseConvError: Nothing to show, arguments that do not fit, a picture without Open3D.

    Example:
        >>> import torch, sparseconv as sc
        >>> x, _ = sc.voxelize(torch.rand(100, 3), 0.1)
        >>> shown = sc.view(x, color_by="height")
        >>> "<canvas" in shown._repr_html_() or "iframe" in shown._repr_html_()
        True
    """
    shown = View(scene_of(cloud, labels, prediction, color_by, classes), title)
    if output is not None:
        shown.save(output)
    return shown
