"""Sites of some samples, and samples put into one batch, with their way back to parent sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseconv.core.grid import behind, of_samples
from sparseconv.core.handles import DOORS
from sparseconv.core.private_torch import outside_transforms
from sparseconv.sites.coordinates import sites_from_coords
from sparseconv.sites.record import Later, Parent, SiteRecord
from sparseconv.sites.sites import Sites, living_sites


@outside_transforms
def some_samples(sites: Sites, numbers: Sequence[int]) -> tuple[Tensor, Sites]:
    """Return the rows of some samples, and their sites with the samples numbered anew."""
    renumbered = torch.full((max(sites.batch_size, 1),), -1, device=sites.device)
    renumbered[list(numbers)] = torch.arange(len(numbers), device=sites.device)
    batch = renumbered[sites.shared_coords[:, 0].long()]
    rows = torch.nonzero(batch >= 0)[:, 0]
    coords = sites.shared_coords[rows]
    coords[:, 0] = batch[rows].to(coords.dtype)
    grid = of_samples(sites.grid, numbers)
    box = sites.spatial_shape, len(numbers), sites.lower
    some = sites_from_coords(coords, *box, grid=grid, inferred=sites.inferred)
    some.record.parents = tuple(
        Parent(geometry, Later(_some, p, tuple(numbers))) for geometry, p in sites.ways.items()
    )
    return rows, some


@outside_transforms
def joined_samples(batches: Sequence[Sites]) -> Sites:
    """Return the sites of batches one behind another, rows as they come; at least one batch."""
    first = batches[0]
    shape = tuple(map(max, *(sites.spatial_shape for sites in batches), first.spatial_shape))
    lower = tuple(map(min, *(sites.lower for sites in batches), first.lower))
    coords, count = [], 0
    for sites in batches:
        moved = sites.coords.to(first.coords.dtype, copy=True)
        moved[:, 0] += count
        coords.append(moved)
        count += sites.batch_size
    grid = behind([sites.grid for sites in batches], [sites.batch_size for sites in batches])
    inferred = all(sites.inferred for sites in batches)
    box = shape, count, lower
    joined = sites_from_coords(torch.cat(coords), *box, grid=grid, inferred=inferred)
    for geometry in first.ways:
        known = [sites.ways[geometry] for sites in batches if geometry in sites.ways]
        if len(known) == len(batches):
            joined.record.parents += (Parent(geometry, Later(_together, known)),)
    return joined


def site_per_sample(sites: Sites) -> tuple[Tensor, Sites]:
    """Return the samples that have sites, int64, ascending, and one site for each of them."""
    if torch.compiler.is_compiling():
        found: tuple[Tensor, Sites] = DOORS.operators["site_per_sample"](sites)
        return found
    return _site_per_sample(sites)


@outside_transforms
def _site_per_sample(sites: Sites) -> tuple[Tensor, Sites]:
    samples = sites.samples.full
    coords = F.pad(samples[:, None].to(sites.shared_coords.dtype), (0, sites.dimensions))
    return samples, sites_from_coords(coords, (1,) * sites.dimensions, sites.batch_size)


def _some(parent: Parent, numbers: Sequence[int]) -> SiteRecord:
    """Return some samples of a parent's sites."""
    return some_samples(living_sites(parent.record), numbers)[1].record


def _together(parents: Sequence[Parent]) -> SiteRecord:
    """Return the records of parents as one batch."""
    return joined_samples([living_sites(parent.record) for parent in parents]).record
