"""What happens to one tile: a function that travels to other processes and machines."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sparseconv import engines
from sparseconv.autograd.segments import reduce_groups
from sparseconv.core.arguments import came
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.sites.coordinates import grouped_sites
from sparseconv.tensor import SparseTensor
from sparseconv.tiles.partition import Cut, cut
from sparseconv.tiles.plan import Plan
from sparseconv.tiles.sources import Array

MODEL, RESULTS = "model.pt", "results"
LABELS, SCORES = "labels", "scores"


class Done(NamedTuple):
    """One finished tile.

    Attributes:
        number: of the tile.
        digest: SHA-256 of the file of its results.
        sites: voxels that it read.
        kept: points that it keeps.
        seconds: that it took.
    """

    number: int
    digest: str
    sites: int
    kept: int
    seconds: float


@dataclass(frozen=True)
class Task:
    """Labels one tile: ``task(number)`` reads it, runs the model, and writes the results.

    It holds no data, so it travels to any process that sees the folder under the same path.

    Attributes:
        folder: where plan, points, model and results lie.
        keep: ``"labels"``, the channel with the largest score of each point, or ``"scores"``.
        engine: the engine that was asked for; None for the one that fits.
        threads: of PyTorch while a tile runs; None leaves them as they are.
    """

    folder: str
    keep: str
    engine: str | None = None
    threads: int | None = None

    def __call__(self, number: int) -> Done:
        """Return what became of a tile; its results lie in the folder."""
        begin = time.perf_counter()
        folder = Path(self.folder)
        plan, model = _plan(self.folder), model_of(self.folder)
        with self._setting(), torch.no_grad():
            read = cut(plan, folder, number)
            x, rows = _voxels(read, model)
            values = _values(model(x), x, rows)
            if self.keep == LABELS:
                values = _labels(values)
        digest = save(result_file(folder, number), values.cpu().numpy())
        seconds = time.perf_counter() - begin
        return Done(number, digest, x.num_sites, len(values), seconds)

    @contextmanager
    def _setting(self) -> Iterator[None]:
        """Run with the engine and the threads that were asked for."""
        threads = torch.get_num_threads()
        with engines.engine(self.engine) if self.engine else contextlib.nullcontext():
            try:
                if self.threads is not None:
                    torch.set_num_threads(self.threads)
                yield
            finally:
                if self.threads is not None:
                    torch.set_num_threads(threads)


# Models of the folders that this process works on, so that a tile does not load one again. The
# process that asked for the tiles puts its own here, and takes it away again.
_models: dict[str, nn.Module] = {}


def model_of(folder: str) -> nn.Module:
    """Return the model of a folder, loaded once in each process."""
    if folder not in _models:
        _models.clear()  # a worker holds one
        path = Path(folder) / MODEL
        _models[folder] = torch.load(path, weights_only=False).eval()
    return _models[folder]


@contextmanager
def lending(folder: str, model: nn.Module) -> Iterator[None]:
    """Let tasks in this process use a model, in evaluation, and leave it as it was."""
    modes = {module: module.training for module in model.modules()}
    _models[folder] = model.eval()
    try:
        yield
    finally:
        _models.pop(folder, None)
        for module, training in modes.items():
            module.training = training


@functools.lru_cache(maxsize=2)
def _plan(folder: str) -> Plan:
    return Plan.load(Path(folder))


def voxels_of(read: Cut) -> tuple[SparseTensor, Tensor]:
    """Return the voxels of points, the mean of whose features they carry, and each point's row."""
    coords = torch.zeros(len(read.cells), 1 + read.cells.shape[1], dtype=torch.int64)
    coords[:, 1:] = torch.from_numpy(read.cells)
    values = torch.ones(len(coords), 1)
    if read.features is not None:
        values = torch.from_numpy(read.features)
    sites, groups = grouped_sites(coords, read.extent, 1, grid=read.grid)
    x = SparseTensor.on_sites(reduce_groups(values, groups, "mean"), sites)
    return x, groups.site_of_row[read.kept]


def _voxels(read: Cut, model: nn.Module) -> tuple[SparseTensor, Tensor]:
    """Return the voxels on the model's device, and the row of each point that is kept."""
    x, rows = voxels_of(read)
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device == x.device:
        return x, rows
    return x.to(parameter.device), rows.to(parameter.device)


def _values(output: object, x: SparseTensor, rows: Tensor) -> Tensor:
    """Return what the model says of the points that are kept, ``[n, C]``."""
    if isinstance(output, SparseTensor):
        if not output.sites.same_as(x.sites):
            here, found = output.at(x.coords[rows])
            if not bool(found.all()):
                raise SparseConvValueError(
                    f"model: must return a value for each voxel of its input, got none for "
                    f"{int((~found).sum())} of {found.numel()} points"
                )
            return output.features[here]
        output = output.features
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != x.num_sites:
        raise SparseConvTypeError(
            f"model: must return a SparseTensor, or features [N, C] of its {x.num_sites} voxels, "
            f"got {came(output)}"
        )
    return output[rows]


def _labels(scores: Tensor) -> Tensor:
    """Return the channel with the largest score, in the smallest dtype that holds all."""
    dtype = torch.uint8 if scores.shape[1] <= 256 else torch.int32
    return scores.argmax(1).to(dtype)


def result_file(folder: Path, number: int) -> Path:
    """Return where the results of a tile lie."""
    return folder / RESULTS / f"{number:08d}.npy"


def save(path: Path, values: Array) -> str:
    """Write an array so that the file is there as a whole or not at all; return its SHA-256."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        digest = digest_of(Path(name))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return digest


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
