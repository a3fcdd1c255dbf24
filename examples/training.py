"""Training for `segment_lidar.py`: in one process or in many, and on from where it was killed.

Each step's batch is the same, scan by scan, whether one process takes it whole or many share it:
the order of the scans and their changes depend on the seed, the epoch and the scan alone, and the
loss is the mean over the sites of all processes. So the loss curves are equal up to rounding.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from drawing import CLASSES
from scans import Scan, Settings, augmented, majority, voxels
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm import tqdm

import sparseconv as sc
from sparseconv.models import UNet

BAR = "{desc} {percentage:3.0f} %|{bar:20}| {n}/{total} steps, {remaining} left{postfix}"

Seconds = dict[str, float]


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: number of this process; the first one prints and writes.
        size: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@contextmanager
def team(backend: str) -> Iterator[Team]:
    """Join the processes that torchrun started; without torchrun there is one.

    Args:
        backend: "gloo" computes on CPUs, "nccl" on a GPU for each process.
    """
    device, size = torch.device("cpu"), int(os.environ.get("WORLD_SIZE", "1"))
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield Team(device=device)
        return
    dist.init_process_group(backend)
    try:
        yield Team(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def clock(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time that the block takes to ``seconds[name]``."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def network_for(settings: Settings) -> UNet:
    """Return the network with fresh weights."""
    torch.manual_seed(settings.seed)
    channels, classes = settings.channels, len(CLASSES)
    widths, depth = settings.widths, settings.convolutions
    return UNet(channels, classes, widths, settings.kernel_size, convolutions=depth)


def recompute(network: UNet) -> None:
    """Let the blocks of all levels keep their inputs alone, and compute again backwards."""
    for block in (*network.encoders, *network.joins, *network.decoders):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def class_weights(settings: Settings, scans: list[Scan]) -> Tensor:
    """Return a weight per class, so that rare ones count: one over the root of their share."""
    labels = torch.cat([majority(scan, voxels(scan, settings)[1]) for scan in scans])
    share = torch.bincount(labels, minlength=len(CLASSES)).clamp(min=1) / labels.numel()
    return share.rsqrt() / share.sqrt().sum()


class Varied(Dataset[tuple[sc.SparseTensor, Tensor]]):
    """The voxels of the scans of one epoch, each changed at random, and the voxels' labels."""

    def __init__(self, scans: list[Scan], settings: Settings, epoch: int) -> None:
        self.scans, self.settings, self.epoch = scans, settings, epoch

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> tuple[sc.SparseTensor, Tensor]:
        seed = np.random.SeedSequence((self.settings.seed, self.epoch, index))
        generator = torch.Generator().manual_seed(int(seed.generate_state(1)[0]))
        scan = augmented(self.scans[index], generator)
        x, to_points = voxels(scan, self.settings)
        return x.with_grid(None), majority(
            scan, to_points
        )  # each turned scan has a grid of its own


def joined(entries: list[tuple[sc.SparseTensor, Tensor]]) -> tuple[sc.SparseTensor, Tensor]:
    """Return one batch of the scans, and the labels of its sites."""
    inputs, labels = zip(*entries, strict=True)
    return sc.collate(list(inputs)), torch.cat(labels)


def batches(
    scans: list[Scan], settings: Settings, epoch: int, who: Team
) -> DataLoader[tuple[sc.SparseTensor, Tensor]]:
    """Return what this process sees of an epoch; scans that fill no whole batch wait for others."""
    varied = Varied(scans, settings, epoch)
    sampler: DistributedSampler[Any] = DistributedSampler(
        varied, who.size, who.rank, seed=settings.seed, drop_last=True
    )
    sampler.set_epoch(epoch)
    return DataLoader(
        varied, settings.batch_size, sampler=sampler, collate_fn=joined, drop_last=True
    )


class Trainer:
    """A network, its optimiser and schedule, and how far they are.

    Args:
        settings: of the run.
        scans: to learn from.
        who: the processes; all of them have all scans, and take their share of each batch.

    Attributes:
        losses: of all steps so far, means over the sites of the whole batch.
    """

    def __init__(self, settings: Settings, scans: list[Scan], who: Team) -> None:
        self.settings, self.scans, self.who = settings, scans, who
        self.network = network_for(settings).to(who.device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings.learning_rate, settings.steps, pct_start=0.25
        )
        dtype = self.network.head.weight.dtype
        self.weight = class_weights(settings, scans).to(who.device, dtype)
        self.epoch, self.losses = 0, list[float]()
        self.seconds, self.sites = Seconds(), 0

    def state(self) -> dict[str, Any]:
        """Return all that :meth:`resume` needs."""
        parts = ("network", "optimiser", "schedule")
        states = {name: getattr(self, name).state_dict() for name in parts}
        return {**states, "epoch": self.epoch, "losses": self.losses}

    def save(self, path: Path) -> None:
        """Write a checkpoint; a process that is killed here leaves the one before it."""
        unfinished = path.with_suffix(".part")
        torch.save({"settings": asdict(self.settings), **self.state()}, unfinished)
        unfinished.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, on any number of processes.

        Raises:
            SparseConvValueError: it is of a run with other settings.
        """
        saved = torch.load(path, weights_only=True, map_location=self.who.device)
        if Settings(**saved["settings"]) != self.settings:
            raise sc.SparseConvValueError(
                f"{path} is of a run with {saved['settings']}: give those, or leave out --resume"
            )
        for name in ("network", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        self.epoch, self.losses = saved["epoch"], saved["losses"]

    def run(self, saved: Path, recomputing: bool = False) -> None:
        """Train to the last step; write a checkpoint after each epoch.

        Args:
            saved: path of the checkpoints.
            recomputing: whether to trade time for memory, see :func:`recompute`.
        """
        model: torch.nn.Module = self.network
        if self.who.size > 1:
            model = sc.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if recomputing:
            recompute(self.network)
        if self.who.size > 1:
            model = DistributedDataParallel(model)
        options = {"mininterval": 0.5, "bar_format": BAR, "disable": self.who.rank > 0}
        total, start = self.settings.steps, time.perf_counter()
        bar = tqdm(total=total, initial=len(self.losses), desc="training", **options)
        with bar, clock(self.seconds, "total"):
            for x, target in self.remaining(saved):
                self.step(model, x, target)
                rate = self.sites / (time.perf_counter() - start)
                smooth = float(np.mean(self.losses[-len(self.scans) :]))
                bar.set_postfix_str(f"loss {smooth:.3f}, {rate:,.0f} sites/s", refresh=False)
                bar.update()

    def remaining(self, saved: Path) -> Iterator[tuple[sc.SparseTensor, Tensor]]:
        """Give the batches of the steps that are left; write a checkpoint after each epoch."""
        while len(self.losses) < self.settings.steps:
            loader = batches(self.scans, self.settings, self.epoch, self.who)
            yield from islice(self.timed(loader), self.settings.steps - len(self.losses))
            self.epoch += 1
            if self.who.rank == 0:
                self.save(saved)

    def timed(self, loader: DataLoader[Any]) -> Iterator[tuple[sc.SparseTensor, Tensor]]:
        """Give the batches, and count the time that they take to make."""
        entries = iter(loader)
        while True:
            with clock(self.seconds, "augment_and_voxelize"):
                entry = next(entries, None)
            if entry is None:
                return
            yield entry

    def step(self, model: torch.nn.Module, x: sc.SparseTensor, target: Tensor) -> None:
        """Learn from one batch."""
        x, target = x.to(self.weight), target.to(self.who.device)
        with clock(self.seconds, "rulebooks_and_forward"):
            scores = model(x).features
            losses = F.cross_entropy(scores, target, self.weight, reduction="sum")
        # the mean over all processes' sites; DistributedDataParallel divides by their number
        count = losses.new_tensor(x.num_sites)
        sums = torch.stack([losses.detach(), self.weight[target].sum(), count])
        if self.who.size > 1:
            dist.all_reduce(sums)
        with clock(self.seconds, "backward_and_step"):
            self.optimiser.zero_grad()
            (losses * (self.who.size / sums[1])).backward()
            self.optimiser.step()
            self.schedule.step()
        self.sites += int(sums[2])
        self.losses.append(float(sums[0] / sums[1]))

    def report(self) -> dict[str, Any]:
        """Return the losses, and what the steps of this run took; sites of all processes."""
        smooth = float(np.mean(self.losses[-len(self.scans) :]))
        rate = self.sites / max(self.seconds["total"], 1e-9)
        sizes = {"sites_per_second": rate, "sites": self.sites, "seconds": self.seconds}
        return {"final_loss": smooth, "losses": self.losses, **sizes}

    def finished(self) -> UNet:
        """Return the network for evaluation, on the CPU."""
        network = network_for(self.settings).to(self.weight)
        network.load_state_dict(self.network.state_dict())
        # batch normalisation judges by the scans as they are, not by the augmented mixture
        inputs = (voxels(scan, self.settings)[0].to(self.weight) for scan in self.scans)
        update_bn(inputs, network)
        return network.cpu().eval()
