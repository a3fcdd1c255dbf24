"""Files of safetensors: SparseTensors, PointMaps and dense tensors by name, without a pickle."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseconv.core.arguments import came
from sparseconv.core.grid import Grid, Grids
from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.points.point_map import PointMap
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor

KEY = "sparseconv"  # of the metadata that say what belongs together
POINT_PARTS = ("rows", "xyz", "samples")

Values = Mapping[str, Tensor | SparseTensor | PointMap]


def to_safetensors(values: Values, path: str | os.PathLike[str]) -> None:
    """Write tensors to a file of safetensors.

    A SparseTensor ``x`` becomes ``x.features``, and its coordinates ``sites.0.coords``, which other
    programs can read as well; what shares its sites shares them in the file, too. Rulebooks stay
    behind. A model's weights need nothing of ours: ``safetensors.torch.save_model(model, path)``.

    Args:
        values: by name.
        path: of the file.

    Raises:
        SparseConvTypeError: a value of another kind.
        SparseConvError: safetensors is not installed.

    Example:
        >>> import tempfile, torch, sparseconv as sc
        >>> x, to_points = sc.voxelize(torch.rand(9, 3), 0.5)
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     sc.interop.to_safetensors({"x": x, "map": to_points}, file.name)
        ...     found = sc.interop.from_safetensors(file.name)
        >>> found["x"].sites is found["map"].sites, torch.equal(found["x"].features, x.features)
        (True, True)
    """
    tensors: dict[str, Tensor] = {}
    sites: list[Sites] = []
    kinds: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            tensors[name] = value
            continue
        if not isinstance(value, SparseTensor | PointMap):
            raise SparseConvTypeError(
                f"values: {name!r} must be a Tensor, SparseTensor or PointMap, got {came(value)}"
            )
        if value.sites not in sites:
            sites.append(value.sites)
        kinds[name] = {"sites": sites.index(value.sites)}
        if isinstance(value, SparseTensor):
            tensors[f"{name}.features"] = value.features
            continue
        kinds[name]["bounds"] = value.bounds
        tensors |= {f"{name}.{part}": getattr(value, part) for part in POINT_PARTS}
    tensors |= {f"sites.{i}.coords": entry.shared_coords for i, entry in enumerate(sites)}
    about = {"values": kinds, "sites": [_described(entry) for entry in sites]}
    # a file holds each tensor on its own, in rows
    plain = {n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    _library("torch").save_file(plain, os.fspath(path), metadata={KEY: json.dumps(about)})


def from_safetensors(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> dict[str, Tensor | SparseTensor | PointMap]:
    """Return what :func:`to_safetensors` wrote, by name; other files give their dense tensors.

    Args:
        path: of the file.
        device: where the tensors go.

    Raises:
        SparseConvValueError: the file is damaged.
        SparseConvError: safetensors is not installed.
        OSError: the file cannot be opened.
    """
    library = _library()
    with Path(path).open("rb"):  # a file that is missing stays an OSError
        pass
    try:
        with library.safe_open(os.fspath(path), "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = (file.metadata() or {}).get(KEY)
        return tensors if about is None else _joined(tensors, json.loads(about))
    except SparseConvError:
        raise
    except (library.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SparseConvValueError(
            f"path: {Path(path).name} is damaged: {str(error).partition(chr(10))[0]}"
        ) from error


def _joined(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    """Return tensors and maps of their parts."""
    sites = [
        _sites_of(tensors.pop(f"sites.{number}.coords"), entry)
        for number, entry in enumerate(about["sites"])
    ]
    values: dict[str, Any] = {}
    for name, entry in about["values"].items():
        own = sites[entry["sites"]]
        if "bounds" not in entry:
            values[name] = SparseTensor.on_sites(tensors.pop(f"{name}.features"), own)
            continue
        rows, xyz, samples = (tensors.pop(f"{name}.{part}") for part in POINT_PARTS)
        inside = rows.numel() == 0 or -1 <= int(rows.min()) <= int(rows.max()) < own.num_sites
        if not inside or not len(rows) == len(xyz) == len(samples):
            raise SparseConvValueError(f"path: {name!r} has rows of other voxels; it is damaged")
        bounds = entry["bounds"] and tuple(map(tuple, entry["bounds"]))
        values[name] = PointMap(rows, own, xyz, samples, bounds)
    return tensors | values


def _described(sites: Sites) -> dict[str, Any]:
    """Return what coordinates do not say of their sites."""
    grid = sites.grid
    return {
        "spatial_shape": sites.spatial_shape,
        "lower": sites.lower,
        "batch_size": sites.batch_size,
        "inferred": sites.inferred,
        "grid": [_numbers(own) for own in grid] if isinstance(grid, tuple) else _numbers(grid),
    }


def _sites_of(coords: Tensor, entry: dict[str, Any]) -> Sites:
    grid, shape, lower = entry["grid"], tuple(entry["spatial_shape"]), tuple(entry["lower"])
    grids: Grids = tuple(map(_grid_of, grid)) if isinstance(grid, list) else _grid_of(grid)
    return sites_from_coords(
        coords, shape, entry["batch_size"], lower, grid=grids, inferred=entry["inferred"]
    )


def _numbers(grid: Grid | None) -> dict[str, Any] | None:
    if grid is None:
        return None
    return {
        "origin": grid.origin,
        "voxel_size": grid.voxel_size,
        "circular": grid.circular,
        "unit": grid.unit,
        "base": _numbers(grid.base),
        "stride": [str(own) for own in grid.stride],
        "shift": [str(own) for own in grid.shift],
    }


def _grid_of(entry: Any) -> Any:
    if entry is None:
        return None
    stride, shift = (tuple(map(Fraction, entry[name])) for name in ("stride", "shift"))
    origin, voxel_size, circular = (
        tuple(entry[name]) for name in ("origin", "voxel_size", "circular")
    )
    base = _grid_of(entry["base"])
    return Grid(origin, voxel_size, circular, entry["unit"], base, stride, shift)


def _library(part: str = "") -> Any:
    name = f"safetensors.{part}" if part else "safetensors"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SparseConvError(
            "this needs safetensors, which is not installed: pip install safetensors"
        ) from error
