"""`sc.tiled`: a model over a cloud that need not fit into memory, with the bits of one run."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseconv import engines
from sparseconv.core.arguments import Ints, check_kind, numbers_per_axis, per_axis
from sparseconv.core.grid import Grid
from sparseconv.errors import SparseConvError, SparseConvNotImplementedError, SparseConvValueError
from sparseconv.tiles import manifest
from sparseconv.tiles.budget import plan_tiles
from sparseconv.tiles.output import Values, gathered, write
from sparseconv.tiles.partition import partition
from sparseconv.tiles.plan import Plan
from sparseconv.tiles.run import LABELS, MODEL, RESULTS, SCORES, Done, Task, lending
from sparseconv.tiles.runners.here import Here, Runner
from sparseconv.tiles.sources import Source, source_of
from sparseconv.tools.fields.reach import Reach, follow

Progress = Callable[[int, int], object]


def tiled(
    model: nn.Module,
    source: Any,
    voxel_size: float | Sequence[float],
    core: int | Sequence[int] | None = None,
    memory: int | None = None,
    keep: str = LABELS,
    folder: str | os.PathLike[str] | None = None,
    runner: Runner | None = None,
) -> Tiled:
    """Prepare to run ``model`` over a cloud tile by tile, with the bits of one run over it all.

    Each tile reads its core and the model's :func:`sparseconv.reach` around it, on the grid of
    the whole cloud, from a multiple of the total stride on, and keeps the points of its core. So
    ``tiled(model, points, size, keep="scores").result()`` equals ``to_points(model(x))`` bit for
    bit, where ``x, to_points = sc.voxelize(points, size)``, for any core, on any runner.

    The source is read twice, part by part, and its points are put into files of ``folder``, tile
    by tile (as many bytes as they have). Results lie there too, each tile's with its hash in a
    manifest: a run that was killed goes on where it was, called again with the same arguments.

    Args:
        model: returns a value for each voxel of its input: a SparseTensor, or features ``[N, C]``.
            It runs in evaluation, without gradients, on the device of its parameters.
        source: points in metres: an array or memory map ``[N, D]``, a pair of such and features
            ``[N, C]``, :class:`sparseconv.io.Points`, a path of a file or a folder of files, or a
            list of any of these. Features and a column of ones in their place are as of
            :func:`sparseconv.voxelize`.
        voxel_size: metres, one number or one per axis.
        core: voxels of a tile that are kept, one number or one per axis, rounded up to the total
            stride; left out, the largest whose tiles stay within ``memory``.
        memory: bytes that a tile's points, voxels and features may take besides the process
            itself, measured by a run of the model on some of the points; a quarter of what this
            process may use where left out.
        keep: ``"labels"``, the channel with the largest score of each point, or ``"scores"``.
        folder: where points and results go; it must be seen by all workers under the same path.
            A temporary one, which goes with the result, where left out.
        runner: one of :mod:`sparseconv.tiles.runners`; left out, tile after tile in this process.

    Raises:
        SparseConvNotImplementedError: a layer without a reach, which is named.
        SparseConvError: NaN or infinite points, a model in training, a folder of another run, a
            model whose outputs lie on another grid than its inputs.

    Example:
        >>> import torch, sparseconv as sc
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(sc.nn.SubmConv3d(1, 4, 3), torch.nn.ReLU()).eval()
        >>> points = 9 * torch.rand(500, 3)
        >>> tiles = sc.tiled(net, points, 0.5, core=8)
        >>> x, to_points = sc.voxelize(points, 0.5)
        >>> tiles.num_tiles, torch.equal(tiles.result(), to_points(net(x)).argmax(1))
        (27, True)
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    if keep not in (LABELS, SCORES):
        raise SparseConvValueError(f"keep: must be {LABELS!r} or {SCORES!r}, got {keep!r}")
    cloud = source_of(source)
    first = next(iter(cloud.parts()), None)
    axes = 3 if first is None else first.xyz.shape[1]
    sizes = numbers_per_axis("voxel_size", voxel_size, axes)
    size = Grid((0.0,) * axes, sizes).voxel_size
    cores = None if core is None else per_axis("core", core, axes)
    channels = 1 if first is None or first.features is None else first.features.shape[1]
    reach = _reach(model, axes, channels)
    engine = engines.asked_for()
    key = {
        "model": manifest.fingerprint(model),
        "source": cloud.fingerprint(),
        "voxel_size": str(size),
        "core": str(cores or memory),
        "keep": keep,
        "engine": str(engine),
    }
    place = Path(tempfile.mkdtemp(prefix="sparseconv_tiles_") if folder is None else folder)
    try:
        (place / RESULTS).mkdir(parents=True, exist_ok=True)
        if not manifest.has_begun(place, key):
            plan = plan_tiles(model, cloud, size, (reach, cores, memory))
            plan.save(place)
            partition(cloud, plan, place)
            manifest.begin(place, key)
    except BaseException:
        if folder is None:
            shutil.rmtree(place)
        raise
    result = Tiled(model, cloud, reach, Task(str(place.resolve()), keep, engine), runner or Here())
    if folder is None:
        weakref.finalize(result, shutil.rmtree, place)
    return result


def _reach(model: nn.Module, axes: int, channels: int) -> Reach:
    """Return the reach of a model whose outputs lie on the grid of its inputs."""
    reach, jumps = follow(model, axes, channels)
    if any(jump != 1 for jump in jumps):
        raise SparseConvNotImplementedError(
            f"model: its outputs are {tuple(map(float, jumps))} voxels apart; tiles need a value "
            f"for each voxel of the input"
        )
    return reach


class Tiled:
    """A cloud cut into tiles, and what a model says of it.

    Iterating yields the values of the points in the source's own order, part by part; tiles that
    are not done yet run first. Labels are int64, in memory of a few parts alone.

    Attributes:
        plan: the tiles; ``plan.core`` and ``plan.num_tiles`` tell what was chosen.
        reach: of the model.
        failed: what broke, by the number of the tile, after a run.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        reach: Reach,
        task: Task,
        runner: Runner,
    ) -> None:
        self.reach, self.failed = reach, dict[int, str]()
        self._model, self._source, self._task, self._runner = model, source, task, runner
        self.folder = Path(task.folder)
        self.plan = Plan.load(self.folder)
        self._done: dict[int, Done] = manifest.finished(self.folder)

    def __len__(self) -> int:
        """Return the number of points."""
        return self.plan.num_points

    def __repr__(self) -> str:
        """Return how many tiles there are, and how many are done."""
        return (
            f"Tiled({len(self)} points in {self.num_tiles} tiles of {self.core} voxels, "
            f"{len(self._done)} done)"
        )

    @property
    def num_tiles(self) -> int:
        """Number of tiles."""
        return self.plan.num_tiles

    @property
    def core(self) -> Ints:
        """Voxels of a tile that are kept, per axis."""
        return self.plan.core

    @property
    def num_done(self) -> int:
        """Number of tiles whose results lie in the folder."""
        return len(self._done)

    @property
    def num_sites_read(self) -> int:
        """Voxels that the finished tiles read, halos counted: what their runs cost."""
        return sum(done.sites for done in self._done.values())

    def run(self, progress: Progress | None = None) -> None:
        """Run the tiles that are not done; a tile that breaks is named, and the rest goes on.

        Args:
            progress: called after each tile with the number of those done and of all.

        Raises:
            SparseConvError: some tiles broke, after all others were done and kept; ``failed``
                holds what broke. Another call tries them again.
        """
        self.failed = {}
        left = [number for number in range(self.num_tiles) if number not in self._done]
        if left and self._runner.elsewhere:
            self._save_model()
        with lending(self._task.folder, self._model):
            for number, outcome in self._runner.run(self._task, left):
                if isinstance(outcome, Done):
                    manifest.append(self.folder, outcome)
                    self._done[number] = outcome
                else:
                    self.failed[number] = f"{type(outcome).__name__}: {outcome}"
                if progress is not None:
                    progress(self.num_done, self.num_tiles)
        if self.failed:
            raise SparseConvError(self._what_failed())

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the values of the points, part by part, in the source's own order."""
        return self.values()

    def values(self, fill: int | float | None = None) -> Iterator[Tensor]:
        """Yield as iterating does; points of broken tiles get ``fill``, and nothing raises."""
        for part in self._gathered(fill):
            yield torch.from_numpy(part.astype(np.int64) if self._task.keep == LABELS else part)

    def result(self, fill: int | float | None = None) -> Tensor:
        """Return the values of all points: labels int64 ``[N]``, or scores ``[N, C]``.

        Args:
            fill: the value of points whose tile broke; raises where left out.

        Raises:
            SparseConvError: as of :meth:`run`.
        """
        parts = list(self.values(fill))
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    def write(
        self,
        target: str | os.PathLike[str] | Callable[[int, Tensor], object],
        fill: int | float | None = None,
    ) -> None:
        """Write the values of the points in the source's own order, part by part.

        Args:
            target: an ``.npy`` file, for labels of the smallest dtype that holds them; a ``.las``
                or ``.laz`` file, for a copy of the source with the labels as its classification;
                a folder, for such a copy of each of the source's files; or a function, called with
                the row of the first point of each part and the part's values.
            fill: as of :meth:`result`.

        Raises:
            SparseConvError: as of :meth:`run`; a target that cannot hold the values.
        """
        if callable(target):
            first = 0
            for values in self.values(fill):
                target(first, values)
                first += len(values)
            return
        files = self._source.files()
        write(Path(target), files, Values(len(self), self._task.keep, self._gathered(fill)))

    def _gathered(self, fill: int | float | None) -> Iterator[Any]:
        try:
            if self.num_done < self.num_tiles:
                self.run()
        except SparseConvError:
            if fill is None or not self.failed:
                raise
        return gathered(self.folder, self.plan, self._done, fill)

    def _save_model(self) -> None:
        """Put the model where workers find it."""
        path = self.folder / MODEL
        if path.exists():
            return
        try:
            torch.save(self._model, path.with_suffix(".part"))
        except Exception as error:  # whatever pickling a stranger's module raises
            raise SparseConvValueError(
                f"model: cannot be pickled for other processes: {error}"
            ) from error
        path.with_suffix(".part").replace(path)

    def _what_failed(self) -> str:
        number, reason = next(iter(self.failed.items()))
        return (
            f"{len(self.failed)} of {self.num_tiles} tiles broke, the first is "
            f"{self.plan.describe(number)}: {reason}; all others are done and kept, another run "
            f"tries these again, fill= goes without them"
        )
