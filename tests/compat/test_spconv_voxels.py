"""The voxelisers of spconv against a loop over the points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparseconv.compat.spconv.utils import Point2VoxelCPU3d

import sparseconv as sc
from sparseconv.compat.spconv import flat, tensorview, voxels
from sparseconv.compat.spconv.voxels import PointToVoxel, gather_features_by_pc_voxel_id

SIZE = [0.5, 1.0, 0.25]
RANGE = [0.0, -2.0, -1.0, 2.0, 2.0, 1.0]


def looped(
    points: np.ndarray, max_voxels: int, max_points: int
) -> tuple[list[list[int]], list[list[np.ndarray]], list[int]]:
    """Return indices zyx, the points of each voxel, and the voxel of each point."""
    places: dict[tuple[int, ...], int] = {}
    held: list[list[np.ndarray]] = []
    voxel_of_point = []
    for point in points:
        cell = np.floor((point[:3] - np.float32(RANGE[:3])) / np.float32(SIZE)).astype(int)
        key = tuple(cell[::-1].tolist())
        inside = all(0 <= c < n for c, n in zip(cell, (4, 4, 8), strict=True))
        if not inside or (key not in places and len(places) == max_voxels):
            voxel_of_point.append(-1)
            continue
        voxel = places.setdefault(key, len(places))
        if voxel == len(held):
            held.append([])
        if len(held[voxel]) < max_points:
            held[voxel].append(point)
        voxel_of_point.append(voxel)
    return [list(key) for key in places], held, voxel_of_point


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 3), st.integers(0, 2**16))
def test_points_go_where_the_loop_puts_them(
    count: int, max_voxels: int, max_points: int, seed: int
) -> None:
    points = np.random.default_rng(seed).uniform(-2.5, 2.5, (count, 4)).astype(np.float32)
    gen = PointToVoxel(SIZE, RANGE, 4, max_voxels, max_points)
    found, indices, counts, voxel = gen.generate_voxel_with_id(torch.from_numpy(points))
    wanted_indices, held, voxel_of_point = looped(points, max_voxels, max_points)
    assert indices.tolist() == wanted_indices
    assert counts.tolist() == [len(entry) for entry in held]
    assert voxel.tolist() == voxel_of_point
    assert found.shape == (len(held), max_points, 4)
    for entry, rows in zip(found, held, strict=True):
        assert torch.equal(entry[: len(rows)], torch.from_numpy(np.stack(rows)))
        assert not entry[len(rows) :].any()
    means = gen(torch.from_numpy(points), empty_mean=True)[0]
    for entry, rows in zip(means, held, strict=True):
        mean = torch.from_numpy(np.stack(rows)).mean(0)
        torch.testing.assert_close(entry[len(rows) :], mean.expand(max_points - len(rows), 4))


def test_voxel_rows_go_back_to_the_points() -> None:
    voxel = torch.tensor([1, -1, 0, 1])
    rows = torch.tensor([[1.0], [2.0]], requires_grad=True)
    back = gather_features_by_pc_voxel_id(rows, voxel, invalid_value=-5)
    assert back[:, 0].tolist() == [2, -5, 1, 2]
    (grad,) = torch.autograd.grad(back.sum(), rows)
    assert grad[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_arrays_of_tensorview_go_in_and_out(axes: int) -> None:
    points = np.random.default_rng(0).uniform(0, 4, (50, axes)).astype(np.float32)
    box = [0.0] * axes + [4.0] * axes
    cpu = getattr(voxels, f"Point2VoxelCPU{axes}d")([1.0] * axes, box, axes, 100, 2)
    gpu = getattr(voxels, f"Point2VoxelGPU{axes}d")([1.0] * axes, box, axes, 100, 2)
    wanted = PointToVoxel([1.0] * axes, box, axes, 100, 2)(torch.from_numpy(points))
    assert cpu.grid_size == [4] * axes
    for results in (cpu.point_to_voxel(tensorview.from_numpy(points)), cpu.point_to_voxel(points),
                    gpu.point_to_voxel_hash(points)):  # fmt: skip
        for found, right in zip(results, wanted, strict=True):
            assert np.array_equal(found.numpy(), right.numpy())
            assert found.shape == list(right.shape)
    filled = cpu.point_to_voxel_empty_mean(points)[0]
    assert filled.numpy_view().shape == wanted[0].shape


def test_generators_of_version_1() -> None:
    points = np.random.default_rng(0).uniform(-2, 2, (60, 4)).astype(np.float32)
    wanted = PointToVoxel(SIZE, RANGE, 4, 20, 3)(torch.from_numpy(points))
    old = flat.utils.VoxelGenerator(SIZE, RANGE, 3, 20)
    assert old.grid_size.tolist() == [4, 4, 8]
    for found, right in zip(old.generate(points), wanted, strict=True):
        assert np.array_equal(found, right.numpy())
    by_name = flat.utils.VoxelGeneratorV2(SIZE, RANGE, 3).generate(points, 20)
    assert np.array_equal(by_name["coordinates"], wanted[1].numpy())
    assert by_name["voxel_point_mask"].sum() == wanted[2].sum()


def test_wrong_arguments_raise() -> None:
    with pytest.raises(sc.SparseConvValueError, match="coors_range_xyz: must have 6 entries"):
        Point2VoxelCPU3d(SIZE, RANGE[:4], 4, 10, 3)
    with pytest.raises(sc.SparseConvValueError, match=r"pc: must have shape \(N, 4\)"):
        PointToVoxel(SIZE, RANGE, 4, 10, 3)(torch.zeros(2, 3))
