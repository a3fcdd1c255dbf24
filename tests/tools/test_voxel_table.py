"""What is said of a voxel size is what one counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv.io import Points
from sparseconv.tools import voxel_sizes


def test_a_full_cube_has_all_neighbours_but_at_its_border() -> None:
    axes = np.meshgrid(*[np.arange(4.0)] * 3)
    xyz = torch.from_numpy(np.stack(axes, -1).reshape(-1, 3) + 0.5)
    (row,) = voxel_sizes(torch.cat([xyz, xyz]), [1.0], levels=2)
    assert (row.sites, row.points) == ((64, 8, 1), 2)
    assert row.neighbours == pytest.approx(((3 * 4 - 2) ** 3 - 64) / 64)
    assert (row.alone, row.moved) == (0, 0)
    assert math.isnan(row.mixed)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3), st.sampled_from([0.5, 2.0])
)
def test_what_is_lost_is_what_one_counts(seed: int, count: int, axes: int, edge: float) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-5, 5, (count, axes))
    labels = rng.integers(-1, 3, count) * 7
    if axes == 3:
        (row,) = voxel_sizes(Points(xyz, np.zeros((count, 0), "f4"), (), labels), [edge])
        xyz = np.asarray(Points(xyz, np.zeros((count, 0), "f4"), (), labels).xyz, np.float64)
    else:
        (row,) = voxel_sizes(torch.from_numpy(xyz), [edge])
    voxels = [tuple(cell) for cell in np.floor(xyz / edge).astype(int)]
    members = {v: [i for i, other in enumerate(voxels) if other == v] for v in set(voxels)}
    moved = [np.linalg.norm(xyz[i] - xyz[members[v]].mean(axis=0)) for i, v in enumerate(voxels)]
    around = {
        v: sum(other != v and max(abs(a - b) for a, b in zip(v, other, strict=True)) <= 1
               for other in members)
        for v in members
    }  # fmt: skip
    assert row.sites[0] == len(members)
    assert row.moved == pytest.approx(np.mean(moved), abs=1e-6)
    assert row.neighbours == pytest.approx(np.mean(list(around.values())), abs=1e-5)
    assert row.alone == pytest.approx(np.mean([n == 0 for n in around.values()]), abs=1e-6)
    known = labels >= 0
    if axes == 3 and known.any():
        right = sum(
            np.unique([labels[i] for i in rows if labels[i] >= 0], return_counts=True)[1].max()
            for rows in members.values()
            if any(labels[i] >= 0 for i in rows)
        )
        assert row.mixed == pytest.approx(1 - right / known.sum(), abs=1e-6)
    else:
        assert math.isnan(row.mixed)


def test_coordinates_of_maps_keep_their_precision() -> None:
    xyz = torch.rand(50, 3, dtype=torch.float64)
    near, far = (voxel_sizes(xyz + shift, [0.25])[0] for shift in (0.0, 4.0e6))
    assert far.moved == pytest.approx(near.moved, rel=1e-6)


@pytest.mark.parametrize("points", [torch.zeros(0, 3), Points(np.zeros((0, 3)), np.zeros((0, 0)))])
def test_no_point_is_refused(points: Points | torch.Tensor) -> None:
    with pytest.raises(sc.SparseConvValueError, match=r"^points: must hold one point"):
        voxel_sizes(points, [1.0])
