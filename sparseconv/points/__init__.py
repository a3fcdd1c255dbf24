"""From points to voxels and back.

voxels: `voxelize`. clouds: what it takes, checked and joined. cells: which voxel a point is in.
point_map: `PointMap`. per_voxel: what a voxel has of its points. levels: voxels of other levels.
spread: values from one to the other. votes: labels. batches: maps put together. sampling: N-linear
interpolation. interpolate: features at any points.
"""
