"""From points to voxels and back.

voxels: `voxelize`. point_map: `PointMap`. sampling: N-linear interpolation. interpolate: features
at any points.
"""
