"""A U-Net for labelling points: from points to voxels, scores, and labels of points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvValueError
from sparseconv.io import Points
from sparseconv.io.labels import NO_LABEL
from sparseconv.models.unet import UNet
from sparseconv.points.point_map import PointMap
from sparseconv.points.voxels import voxelize
from sparseconv.tensor import SparseTensor

WIDTHS = (16, 32, 64, 64)
LOWEST = 0.02  # share of the points that lie below what counts as a scan's ground
METRES_OF_ONE = 2.0  # height that enters the network as 1
LIMIT = 5.0  # deviations: features beyond are cut off, those of a faulty sensor too


@dataclass(frozen=True)
class Settings:
    """What the network depends on; it is saved with the weights.

    Attributes:
        voxel_size: edge of a voxel, in the points' unit.
        features: names of the columns that the network sees.
        means, deviations: of these columns in the training set.
        labels: the label in a file of each class of the network.
        names: a name for each class; may be empty.
        widths: channels per level.
    """

    voxel_size: float
    features: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    labels: tuple[int, ...] = (0, 1)
    names: tuple[str, ...] = ()
    widths: tuple[int, ...] = WIDTHS


class PointLabeller(torch.nn.Module):
    """A U-Net that labels the points of a scan.

    It sees the height above the scan's lowest points, and the columns that it was trained with.

    Args:
        settings: what it depends on.

    Example:
        >>> import numpy as np, sparseconv as sc
        >>> from sparseconv.models.point_labeller import PointLabeller, Settings
        >>> points = sc.io.Points(np.random.rand(50, 3), np.zeros((50, 0), np.float32))
        >>> PointLabeller(Settings(0.5, widths=(4, 8)))(points).shape
        torch.Size([50, 2])
    """

    def __init__(self, settings: Settings) -> None:
        """Make a network with fresh weights."""
        super().__init__()
        self.settings = settings
        classes, channels = len(settings.labels), 2 + len(settings.features)
        self.network = UNet(channels, classes, settings.widths, convolutions=1)

    def voxels(self, points: Points) -> tuple[SparseTensor, PointMap]:
        """Return the voxels that the network sees, and the way back to the points.

        Args:
            points: with finite positions, one at least.

        Raises:
            SparseConvValueError: A column that the network was trained with is missing.
        """
        for name in self.settings.features:
            if name not in points:
                raise SparseConvValueError(
                    f"points: the network was trained with {name!r}, which is not among "
                    f"{', '.join(points.names)}"
                )
        z = points.xyz[:, 2]
        height = (z - np.quantile(z, LOWEST)) / METRES_OF_ONE
        columns = [np.ones(len(points)), np.clip(height, -LIMIT, LIMIT)]
        entries = zip(
            self.settings.features, self.settings.means, self.settings.deviations, strict=True
        )
        for name, mean, deviation in entries:
            values = np.nan_to_num((points[name].astype(np.float64) - mean) / deviation)
            columns.append(np.clip(values, -LIMIT, LIMIT))
        features = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        # an extent of whole windows on every level: strided layers read nothing beyond the last
        window = 2 ** (len(self.settings.widths) - 1)
        xyz = torch.from_numpy(np.ascontiguousarray(points.xyz))
        return voxelize(xyz, self.settings.voxel_size, features, multiple_of=window)

    def forward(self, points: Points) -> Tensor:
        """Return the scores ``[N, classes]`` of points."""
        x, to_points = self.voxels(points)
        scores: Tensor = to_points(self.network(x))
        return scores

    def targets(self, points: Points) -> Tensor:
        """Return the class ``[N]`` of each point; -1 for labels that are no class."""
        labels = np.asarray(points.labels)
        classes = np.array(self.settings.labels)
        order = np.argsort(classes)
        place = order[np.searchsorted(classes[order], labels).clip(max=len(classes) - 1)]
        return torch.from_numpy(np.where(classes[place] == labels, place, NO_LABEL))

    def label(self, points: Points) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the label ``[N]`` of each point, as in the files that the network learnt from.

        Points without a finite position get the label -1.
        """
        finite = np.isfinite(points.xyz).all(axis=1)
        labels = np.full(len(points), NO_LABEL, np.int64)
        if finite.any():
            with torch.no_grad():
                classes = self(points[finite]).argmax(dim=1).numpy()
            labels[finite] = np.array(self.settings.labels)[classes]
        return labels


def settings_of(
    scans: Sequence[Points],
    voxel_size: float,
    names: Sequence[str] = (),
    ignore: Sequence[int] = (),
) -> Settings:
    """Return settings for a training set: its labels, its columns and their spread.

    Args:
        scans: with labels.
        voxel_size: edge of a voxel, in the points' unit.
        names: a name for each label, in their order.
        ignore: labels that are not learnt, as those below 0.

    Raises:
        SparseConvValueError: A scan has no labels, there are fewer than two, or names do not fit.
    """
    found: set[int] = set()
    for number, points in enumerate(scans):
        if points.labels is None:
            raise SparseConvValueError(f"scans: number {number} has no labels")
        found |= set(np.unique(points.labels).tolist())
    labels = tuple(sorted(entry for entry in found if entry >= 0 and entry not in ignore))
    if len(labels) < 2:
        raise SparseConvValueError(f"scans: need two labels or more, got {list(labels)}")
    if names and len(names) != len(labels):
        raise SparseConvValueError(f"names: there are {len(labels)} labels, got {len(names)} names")
    shared = [name for name in scans[0].feature_names if all(name in scan for scan in scans)]
    columns = [np.concatenate([scan[name] for scan in scans]).astype(np.float64) for name in shared]
    finite = [column[np.isfinite(column)] for column in columns]
    means = tuple(float(column.mean()) if len(column) else 0.0 for column in finite)
    spread = tuple(float(column.std()) or 1.0 if len(column) else 1.0 for column in finite)
    return Settings(float(voxel_size), tuple(shared), means, spread, labels, tuple(names))


def save_labeller(path: str | os.PathLike[str], network: PointLabeller, **more: Any) -> None:
    """Write settings, weights and whatever else a run needs to go on."""
    saved = {"settings": asdict(network.settings), "weights": network.state_dict(), **more}
    torch.save(saved, path)


def load_labeller(path: str | os.PathLike[str]) -> tuple[PointLabeller, dict[str, Any]]:
    """Return a network that :func:`save_labeller` wrote, and what else stood there.

    Raises:
        SparseConvValueError: The file holds no such network.
        OSError: It cannot be opened.
    """
    try:
        saved = torch.load(path, weights_only=True)
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list | tuple) else value
            for name, value in saved.pop("settings").items()
        }
        network = PointLabeller(Settings(**settings))
        network.load_state_dict(saved.pop("weights"))
    except (
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        ValueError,
        UnpicklingError,
    ) as error:
        raise SparseConvValueError(
            f"weights: {Path(path).name} holds no network of `sparseconv train`"
        ) from error
    return network.eval(), saved


def unet_bytes(sites: Sequence[int], widths: Sequence[int] = WIDTHS, classes: int = 20) -> int:
    """Return the bytes of float32 features that a U-Net's layers put out in one pass.

    Training keeps about as much for the way back.

    Args:
        sites: active sites per level, from the finest to the coarsest.
        widths: channels per level.
        classes: channels of the output.

    Example:
        >>> unet_bytes((100,), (8,), classes=2)
        10400
    """
    check_int("classes", classes, least=1)
    values = sites[0] * classes
    for level, (count, width) in enumerate(zip(sites, widths, strict=True)):
        last = level == len(widths) - 1
        # down to this level (3 layers), its encoder (3); up to it: inverse, join, skip, decoder
        values += count * width * (3 + 3 * (level > 0) + (0 if last else 1 + 2 + 2 + 3))
    return 4 * values
