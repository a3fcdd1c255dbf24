"""Points on the faces of voxels, against exact arithmetic on the decimals that they stand for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc

DTYPES = (np.float32, np.float64)
DIGITS = {np.float32: 6, np.float64: 15}  # decimals that a float keeps


def voxels_of(x: sc.SparseTensor, to_points: sc.PointMap, size: float) -> list[int]:
    """Return the voxel of each point of a line, counted from the world's origin; None outside."""
    first = round(to_points.origin[0] / size)
    rows = to_points.rows
    cells = x.coords[:, 1][rows.clamp(min=0)] + first
    return torch.where(rows < 0, -(10**12), cells).tolist()


def exact_voxels(points: np.ndarray[Any, Any], size: float) -> list[int]:
    edge = Fraction(repr(size))
    return [math.floor(Fraction(str(point)) / edge) for point in points]


@st.composite
def lines(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], float]:
    """Draw decimals on and beside the faces of voxels whose edge is a decimal, too."""
    dtype = draw(st.sampled_from(DTYPES))
    exponent = draw(st.integers(-9, 6))
    unit = Fraction(10) ** exponent  # the last decimal that is stored
    voxel = draw(st.integers(1, 50))
    top = 10 ** DIGITS[dtype] - 1
    middle = draw(st.integers(-top, top))
    near = draw(st.lists(st.integers(-300, 300), min_size=1, max_size=30))
    numbers = [min(max(middle + step, -top), top) for step in near]
    numbers += [number // voxel * voxel for number in numbers]
    decimals = [f"{float(0):.1f}" if n == 0 else f"{n}e{exponent}" for n in numbers]
    return np.array([float(text) for text in decimals]).astype(dtype), float(voxel * unit)


@given(line=lines())
def test_decimals_fall_where_they_say(line: tuple[np.ndarray[Any, Any], float]) -> None:
    points, size = line
    expected = exact_voxels(points, size)
    if max(map(abs, expected)) >= 2**31:
        return
    found = sc.voxelize(points[:, None], size)
    assert voxels_of(*found, size) == expected
    low = min(expected) // 7 * 7
    origin = sc.voxelize(points[:, None], size, origin=[low * size])
    assert voxels_of(*origin, size) == expected


@given(line=lines(), first=st.integers(-40, 40), count=st.integers(1, 60))
def test_both_ends_of_bounds(
    line: tuple[np.ndarray[Any, Any], float], first: int, count: int
) -> None:
    points, size = line
    expected = exact_voxels(points, size)
    low, high = expected[0] + first, expected[0] + first + count
    if max(abs(low), abs(high)) >= 2**31:
        return
    edge = Fraction(repr(size))
    bounds = ((float(low * edge),), (float(high * edge),))
    x, to_points = sc.voxelize(points[:, None], size, bounds=bounds)
    assert x.spatial_shape == (count,)
    inside = [low <= cell < high for cell in expected]
    assert (to_points.rows >= 0).tolist() == inside
    cells = [cell - low for cell in expected if low <= cell < high]
    assert x.coords[to_points.rows[to_points.rows >= 0], 1].tolist() == cells


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.05, 0.1, 0.3, 0.02, 1e-4, 7e5, 1 / 3])
def test_a_lattice_loses_no_site(dtype: torch.dtype, size: float) -> None:
    """As grid data is made: whole numbers times the voxel size, in the dtype of the points."""
    line = torch.arange(-1500, 1500, dtype=dtype)[:, None] * size
    x, to_points = sc.voxelize(line, size)
    assert x.num_sites == 3000
    assert voxels_of(x, to_points, size) == list(range(-1500, 1500))


def test_a_cube_of_grid_data_keeps_its_sites() -> None:
    axis = torch.arange(16.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) * 0.05
    x, _ = sc.voxelize(grid, 0.05)
    assert x.num_sites == 4096
    assert x.spatial_shape == (32, 32, 32)
    assert sc.voxelize(grid, 0.05, multiple_of=1)[0].spatial_shape == (16, 16, 16)


def test_survey_coordinates_in_whole_centimetres() -> None:
    """Eastings and northings as a LAS file has them, in voxels of 10 cm."""
    source = np.random.default_rng(0)
    whole = source.integers(0, 100_000, (3000, 2)) + np.array([63_701_234, 85_123_456])
    x, to_points = sc.voxelize(whole * 0.01, 0.1)
    cells = x.coords[to_points.rows, 1:] + torch.tensor(to_points.origin).div(0.1).round().long()
    assert cells.tolist() == (whole // 10).tolist()


def test_points_below_a_face_stay_below() -> None:
    """What lies further off than rounding does is not moved."""
    for dtype, near in ((torch.float32, 1e-5), (torch.float64, 1e-14)):
        faces = torch.tensor([-7.0, -1.0, 1.0, 3.0, 1000.0], dtype=dtype)
        below = faces - near * faces.abs()
        x, to_points = sc.voxelize(below[:, None], 0.5)
        assert voxels_of(x, to_points, 0.5) == [-15, -3, 1, 5, 1999]
    x, to_points = sc.voxelize(torch.tensor([[-1e-30], [0.0]]), 0.5)
    assert voxels_of(x, to_points, 0.5) == [-1, 0]


def test_an_origin_between_faces() -> None:
    x, to_points = sc.voxelize(np.arange(100)[:, None] * 0.1 + 0.05, 0.1, origin=[0.05])
    assert x.coords[to_points.rows, 1].tolist() == list(range(100))


def test_voxels_hardly_larger_than_the_rounding_of_points() -> None:
    points = torch.tensor([[637012.3125], [637012.375]])
    x, _ = sc.voxelize(points, 0.05)
    assert x.num_sites == 2
