"""Functions of spconv on several tensors."""

from __future__ import annotations

from sparseconv.compat.spconv.place import place_of_sites
from sparseconv.compat.spconv.tensor import SparseConvTensor
from sparseconv.core.arguments import check_kind
from sparseconv.errors import SparseConvValueError
from sparseconv.functional.site_sets.sets import common_sites, filled


def sparse_add(*tens: SparseConvTensor) -> SparseConvTensor:
    """Return the sum of tensors on the union of their sites; absent rows count 0.

    Where one tensor holds all the sites, the result keeps its row order and ``indice_dict``, so
    that inverse layers still find their way; else the rows come out sorted, with an empty one.

    Raises:
        SparseConvError: no tensor; another shape, batch size or number of channels.
    """
    if not tens:
        raise SparseConvValueError("tens: must be at least one tensor, got none")
    for x in tens:
        check_kind("tens", x, SparseConvTensor, "SparseConvTensors")
        if x.spatial_shape != tens[0].spatial_shape or x.batch_size != tens[0].batch_size:
            raise SparseConvValueError(
                f"tens: must have one shape, got {tens[0].spatial_shape} x {tens[0].batch_size} "
                f"and {x.spatial_shape} x {x.batch_size}"
            )
    largest = max(tens, key=lambda x: x.num_rows)
    first, *others = [largest.sparse, *(x.sparse for x in tens if x is not largest)]
    sites, rows = common_sites([first, *others])
    total = filled(first.features, rows[0], sites.num_sites)
    for other, its_rows in zip(others, rows[1:], strict=True):
        total = total + filled(other.features, its_rows, sites.num_sites)
    if sites is first.sites:
        return largest.replace_feature(total)
    place = place_of_sites(sites, tuple(largest.spatial_shape), int(largest.batch_size))
    return largest.moved(total, place, largest.spatial_shape, {})


sparse_add_hash_based = sparse_add

__all__ = ["sparse_add", "sparse_add_hash_based"]
