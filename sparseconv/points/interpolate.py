"""Features between sites, at any points."""

from __future__ import annotations

from torch import Tensor

from sparseconv.core.arguments import check_kind
from sparseconv.points.sampling import check_mode, check_points, sample_linear, sample_nearest
from sparseconv.tensor import SparseTensor


def interpolate(
    x: SparseTensor, points: Tensor, mode: str = "linear", renormalise: bool = False
) -> Tensor:
    """Return the features of ``x`` at points between its sites, through the hash index.

    A site's features stand at its integer coordinates; linear interpolation weighs the ``2 ** D``
    sites around a point by the product of ``1 - distance`` per axis. Derivatives of any order by
    features and points, the same bits every time.

    Args:
        x: ``[B, C, *spatial]``, 1 to 4 spatial axes.
        points: floating point ``[M, 1 + D]``: the batch index, then voxel coordinates in the order
            of the axes. :attr:`PointMap.points` has those of the points that were voxelized.
        mode: ``"linear"`` or ``"nearest"`` (the upper site of two equally near).
        renormalise: linear only: an inactive site counts 0, as padding does; True divides by the
            weight of the active ones instead, where there is any.

    Returns:
        ``[M, C]``, zeros where no active site is near.

    Raises:
        SparseConvError: points that are not finite floating point numbers ``[M, 1 + D]``, a batch
            index that ``x`` does not have, an unknown ``mode``.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 4], [0, 5]]))
        >>> sc.interpolate(x, torch.tensor([[0, 4.25], [0, 5.5]])).flatten()
        tensor([1.5000, 1.5000])
    """
    check_kind("x", x, SparseTensor, "a SparseTensor")
    check_mode(mode, renormalise)
    check_points(points, x.sites)
    if mode == "nearest":
        return sample_nearest(x.features, x.sites, points)
    return sample_linear(x.features, x.sites, points, renormalise)
