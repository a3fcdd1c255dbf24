"""Open3D's point clouds and voxel grids, both ways; needs Open3D."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from sparseconv.core.arguments import came
from sparseconv.core.grid import Grid
from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.io import Points
from sparseconv.io.points import COLORS
from sparseconv.tensor import SparseTensor

NORMALS = ("normal_x", "normal_y", "normal_z")
NORMAL_NAMES = (NORMALS, ("nx", "ny", "nz"))
BYTE, WORD = 255.0, 65535.0


def to_open3d(cloud: Points | SparseTensor, tensor: bool = True) -> Any:
    """Return a point cloud of points, a voxel grid of voxels.

    Args:
        cloud: points: red, green, blue become the colours (0 to 1), normals the normals, every
            other column an attribute of its name, labels ``"labels"``. A SparseTensor of three
            axes, one sample and a grid of cubes becomes a voxel grid; three channels from 0 to 1
            are its colours.
        tensor: a ``t.geometry.PointCloud``; False for the legacy one, which has no attributes.

    Raises:
        SparseConvError: Open3D is not installed, or the tensor has no such grid.
    """
    library = _library()
    if isinstance(cloud, SparseTensor):
        return _voxel_grid(library, cloud)
    if not isinstance(cloud, Points):
        raise SparseConvTypeError(f"cloud: must be Points or a SparseTensor, got {came(cloud)}")
    attributes = _attributes(cloud)
    if tensor:
        made = library.t.geometry.PointCloud()
        for name, values in attributes.items():
            made.point[name] = library.core.Tensor(np.ascontiguousarray(values))
        return made
    vector = library.utility.Vector3dVector
    legacy = library.geometry.PointCloud(vector(attributes["positions"].astype(np.float64)))
    for name in ("colors", "normals"):
        if name in attributes:
            setattr(legacy, name, vector(attributes[name].astype(np.float64)))
    return legacy


def _attributes(points: Points) -> dict[str, Any]:
    """Return Open3D's attributes by name."""
    attributes: dict[str, Any] = {"positions": points.xyz}
    used: set[str] = set()
    if all(name in points.feature_names for name in COLORS):
        colors = np.stack([points[name] for name in COLORS], axis=1)
        top = float(np.nanmax(colors, initial=0.0))
        most = 1.0 if top <= 1 else BYTE if top <= BYTE else WORD
        attributes["colors"], used = colors / np.float32(most), {*COLORS}
    for names in NORMAL_NAMES:
        if all(name in points.feature_names for name in names):
            attributes["normals"] = np.stack([points[name] for name in names], axis=1)
            used |= {*names}
            break
    for name in (*points.feature_names, *points.extra):
        if name not in used and points[name].dtype.kind in "iuf":
            attributes[name] = points[name][:, None]
    if points.labels is not None:
        attributes["labels"] = points.labels[:, None]
    return attributes


def _voxel_grid(library: Any, x: SparseTensor) -> Any:
    grid = x.grid
    if not isinstance(grid, Grid) or len(grid.voxel_size) != 3 or len(set(grid.voxel_size)) > 1:
        raise SparseConvValueError(
            "cloud: must have a grid of cubes (voxelize sets it), three axes and one sample"
        )
    coords = x.coords.cpu().numpy()
    if len(coords) and (coords[:, 0] != coords[0, 0]).any():
        raise SparseConvValueError("cloud: holds several samples, give one: x[0]")
    made = library.geometry.VoxelGrid()
    made.voxel_size, made.origin = grid.voxel_size[0], np.array(grid.origin)
    features = x.features.detach().double().cpu().numpy()
    coloured = features.shape[1] == 3 and bool(((features >= 0) & (features <= 1)).all())
    colors = features if coloured else np.full((len(coords), 3), 0.5)
    for place, color in zip(coords[:, 1:], colors, strict=True):
        made.add_voxel(library.geometry.Voxel(place.astype(np.int32), color))
    return made


def from_open3d(cloud: Any) -> Any:
    """Return points of a point cloud (either kind), a SparseTensor of a voxel grid.

    Colours become red, green and blue, 0 to 1 as Open3D has them; a voxel grid has them as its
    three channels.

    Raises:
        SparseConvError: Open3D is not installed, or it is another geometry.
    """
    library = _library()
    if isinstance(cloud, library.geometry.VoxelGrid):
        voxels = cloud.get_voxels()
        coords = np.array([voxel.grid_index for voxel in voxels], np.int64).reshape(-1, 3)
        colors = np.array([voxel.color for voxel in voxels], np.float32).reshape(-1, 3)
        batch = np.zeros((len(coords), 1), np.int64)
        places = torch.from_numpy(np.concatenate([batch, coords], axis=1))
        x = SparseTensor(torch.from_numpy(colors), places, batch_size=1)
        return x.with_grid(Grid(tuple(cloud.origin), (cloud.voxel_size,) * 3))
    if isinstance(cloud, library.geometry.PointCloud):
        cloud = library.t.geometry.PointCloud.from_legacy(cloud, library.core.float64)
    if not isinstance(cloud, library.t.geometry.PointCloud):
        raise SparseConvTypeError(f"cloud: must be a PointCloud or a VoxelGrid, got {came(cloud)}")
    arrays = {str(name): cloud.point[name].cpu().numpy() for name in cloud.point}
    xyz = arrays.pop("positions")
    labels = arrays.pop("labels", None)
    names, columns = list[str](), [np.empty((len(xyz), 0), np.float32)]
    for name, values in arrays.items():
        table = values.reshape(len(xyz), -1)
        known = {"colors": COLORS, "normals": NORMALS}.get(name)
        width = table.shape[1]
        single = [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
        names += list(known) if known and width == 3 else single
        columns.append(table.astype(np.float32))
    labels = None if labels is None else labels.reshape(-1).astype(np.int64)
    return Points(xyz, np.concatenate(columns, axis=1), tuple(names), labels)


def _library() -> Any:
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        raise SparseConvError(
            f"this needs Open3D (pip install open3d-cpu): {str(error).partition(chr(10))[0]}"
        ) from error
