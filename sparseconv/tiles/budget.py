"""How large tiles may be: what a model needs per site, measured on a few, against a budget."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparseconv.core.arguments import Ints, check_int
from sparseconv.core.grid import Grid
from sparseconv.core.private_torch import tree_leaves
from sparseconv.engines.memory_limit import usable_bytes
from sparseconv.errors import SparseConvValueError
from sparseconv.sites.sites import Sites
from sparseconv.tensor import SparseTensor
from sparseconv.tiles.census import Census, cells_of, distinct, take_census
from sparseconv.tiles.partition import Cut
from sparseconv.tiles.plan import MULTIPLE_OF, Plan, make_plan, most_read, whole_box
from sparseconv.tiles.run import voxels_of
from sparseconv.tiles.sources import Source
from sparseconv.tools.fields.reach import Reach

VOXELIZE_BYTES = 100  # a point: what voxelizing takes at its highest, features aside
RESERVE = 1.25  # what lies beside tensors: workspaces, fragments of the allocator
PROBE_SITES = 20_000
BLOCK = 64  # voxels of the blocks whose points are counted, where the total stride allows


class _Living(TorchFunctionMode):
    """Adds up the tensors that are alive after each function, and the pairs of all sites."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.sites: dict[int, Sites] = {}
        self.peak = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function and note what it made."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, SparseTensor):
            self.sites[id(result.sites)] = result.sites
        for leaf in tree_leaves(result):  # a SparseTensor's is its features
            if isinstance(leaf, Tensor):
                self._note(leaf)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result

    def _note(self, t: Tensor) -> None:
        if id(t) not in self.alive and not isinstance(t, nn.Parameter):
            self.alive[id(t)] = t.numel() * t.element_size()
            weakref.finalize(t, self.alive.pop, id(t), None)

    @property
    def pairs(self) -> int:
        """Bytes of the rulebooks of all sites."""
        books = [book for sites in self.sites.values() for book in sites.rulebooks.values()]
        sides = {id(rows): rows for book in books for rows in (book.in_rows, book.out_rows)}
        return sum(rows.numel() * rows.element_size() for rows in sides.values())


def bytes_per_site(model: nn.Module, x: SparseTensor) -> float:
    """Return what a run of ``model`` holds at its highest, per site, measured on ``x``."""
    if not x.num_sites:
        return 0.0
    living = _Living()
    with torch.no_grad(), living:
        model(x)
    return (living.peak + living.pairs) / x.num_sites


def choose_core(
    census: Census, blocks: Ints, halo: tuple[Ints, Ints], weights: tuple[float, float], memory: int
) -> Ints:
    """Return the largest core, in whole blocks, whose tiles stay within ``memory`` bytes.

    Args:
        census: blocks with their points and voxels.
        blocks: voxels of a block per axis.
        halo: voxels before and behind a core that are read, per axis.
        weights: bytes of a point and of a site.
        memory: bytes.

    Raises:
        SparseConvValueError: not even a block with its halo fits.
    """
    loads = weights[0] * census.counts + weights[1] * census.sites
    spans = zip(census.low, census.high, blocks, strict=True)
    steps = [2 ** math.ceil(math.log2(max(1, (top - low) // edge + 2))) for low, top, edge in spans]
    while True:
        core = tuple(step * edge for step, edge in zip(steps, blocks, strict=True))
        need = most_read(census, loads, blocks, core, halo)
        if need <= memory:
            return core
        widest = max(range(len(steps)), key=lambda axis: steps[axis] * blocks[axis])
        if steps[widest] == 1:
            raise SparseConvValueError(
                f"memory: {memory} bytes do not hold a tile of {core} voxels with its halo, which "
                f"needs {need:.3g}; give core= or more memory"
            )
        steps[widest] //= 2


def plan_tiles(
    model: nn.Module,
    source: Source,
    size: tuple[float, ...],
    wanted: tuple[Reach, Ints | None, int | None],
) -> Plan:
    """Return the plan of a cloud's tiles.

    Args:
        model: whose need is measured where no core is given.
        source: the cloud.
        size: metres of a voxel per axis.
        wanted: the model's reach, the core where it is given, the bytes of a tile where they are.
    """
    reach, core, memory = wanted
    stride = reach.stride
    halo = _up(reach.left, stride), _up(reach.right, stride)
    edge = _up((BLOCK,) * len(stride) if core is None else core, stride)
    phase = (0,) * len(stride)
    if any(MULTIPLE_OF % step for step in stride):  # tiles begin where the whole's windows begin
        low, _ = whole_box(take_census(source, size, edge, phase))
        phase = tuple(first % step for first, step in zip(low, stride, strict=True))
    census = take_census(source, size, edge, phase)
    core = edge
    if wanted[1] is None and len(census.counts):
        budget = usable_bytes() // 4 if memory is None else check_int("memory", memory, least=1)
        core = choose_core(census, edge, halo, _weights(model, source, size), budget)
    return make_plan(census, size, (edge, phase), core, halo)


def _up(lengths: Ints, stride: Ints) -> Ints:
    """Return lengths rounded up to multiples of the total stride, 0 where they are negative."""
    both = zip(lengths, stride, strict=True)
    return tuple(-(-max(length, 0) // step) * step for length, step in both)


def _weights(model: nn.Module, source: Source, size: tuple[float, ...]) -> tuple[float, float]:
    """Return the bytes of a point and of a site, measured on the beginning of a cloud."""
    xyz, features = next(part for part in source.parts() if len(part.xyz))
    cells = cells_of(xyz, size)
    rows = np.sort(distinct(cells)[:PROBE_SITES])
    cells = cells[rows]
    low = cells.min(axis=0)
    low -= low % MULTIPLE_OF
    extent = tuple(int(n) for n in -(-(cells.max(axis=0) + 1 - low) // MULTIPLE_OF) * MULTIPLE_OF)
    values = None if features is None else features[rows]
    grid = Grid((0.0,) * len(size), size)
    x, _ = voxels_of(Cut(cells - low, values, extent, grid, slice(0, 0)))
    per_point = VOXELIZE_BYTES + (0 if values is None else 2 * values.itemsize * values.shape[1])
    return per_point, RESERVE * bytes_per_site(model, x)
