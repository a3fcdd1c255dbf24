"""Deformable convolution v2 against plain PyTorch, and torchvision where it is there.

    python -m benchmarks.deform [--threads 2] [--rounds 7] [--cpu-time]

One input of 64 channels and 128 x 128 cells, a 3 x 3 kernel, 64 output channels, all gradients.
``gather`` reads the four cells around each sample by index into the columns of an ``unfold``,
which one matrix product then meets; ``grid_sample`` has PyTorch's own function read them; ``gemm``
is that product alone. With ``--cpu-time`` the processor's time is taken instead of the clock's, on
one thread: what a busy machine leaves unchanged. Writes ``benchmarks/results/deform.json``, each
kind of run under its own name.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sparseconv as sc
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).parent / "results" / "deform.json"
CHANNELS, SIZE, KERNEL = 64, 128, 3

Function = Callable[..., Tensor]


def positions(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column of each sample, ``[B, K, H, W]``."""
    shift = offset.reshape(len(offset), KERNEL * KERNEL, 2, *offset.shape[2:])
    down, along = torch.meshgrid(torch.arange(KERNEL), torch.arange(KERNEL), indexing="ij")
    rows = torch.arange(offset.shape[2])[:, None] - 1 + down.flatten()[:, None, None]
    columns = torch.arange(offset.shape[3]) - 1 + along.flatten()[:, None, None]
    return rows + shift[:, :, 0], columns + shift[:, :, 1]


def product(sampled: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the columns ``[B, C, K, H * W]``, modulated, times the weight."""
    columns = sampled * mask.flatten(2).unsqueeze(1)
    return (weight.flatten(1) @ columns.flatten(1, 2)).reshape(len(mask), -1, *mask.shape[2:])


def grid_sample(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the same convolution, its samples read by ``grid_sample``."""
    rows, columns = positions(offset)
    height, width = x.shape[2:]
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    sampled = F.grid_sample(x, grid.flatten(1, 2), align_corners=True)
    return product(sampled.unflatten(2, (KERNEL * KERNEL, -1)).flatten(3), weight, mask)


def gather(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the same convolution, the four cells around each sample read by index."""
    places = positions(offset)
    sampled = x.new_zeros(())
    for corner in itertools.product((0, 1), (0, 1)):
        share, index = x.new_ones(()), torch.zeros((), dtype=torch.int64)
        for place, up, length in zip(places, corner, x.shape[2:], strict=True):
            cell = place.detach().floor() + up
            inside = (cell >= 0) & (cell < length)
            share = share * (1 - (place - cell).abs()) * inside
            index = index * length + cell.clamp(0, length - 1).long()
        flat = index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
        read = x.flatten(2).gather(2, flat).unflatten(2, (KERNEL * KERNEL, -1))
        sampled = sampled + read * share.flatten(2).unsqueeze(1)
    return product(sampled, weight, mask)


def ours(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the library's."""
    return sc.functional.deform_conv(x, offset, weight, padding=1, mask=mask)


def functions() -> dict[str, Function]:
    """Return what is compared, by name."""
    found: dict[str, Function] = {
        "sparseconv": ours,
        "gather": gather,
        "grid_sample": grid_sample,
    }
    try:
        from torchvision.ops import deform_conv2d  # noqa: PLC0415  # where it can be installed
    except ImportError:
        return found
    return {**found, "torchvision": lambda x, o, w, m: deform_conv2d(x, o, w, padding=1, mask=m)}


def torchvision_version() -> str | None:
    """Return the version of the torchvision that is timed, None where there is none."""
    return importlib.metadata.version("torchvision") if find_spec("torchvision") else None


def tensors() -> tuple[Tensor, ...]:
    """Return input, offset, weight and mask, random; offsets of about one cell."""
    torch.manual_seed(0)
    cells = KERNEL * KERNEL
    shapes = [
        (1, CHANNELS, SIZE, SIZE),
        (1, 2 * cells, SIZE, SIZE),
        (CHANNELS, CHANNELS, KERNEL, KERNEL),
    ]
    return (
        *(torch.randn(shape, requires_grad=True) for shape in shapes),
        torch.rand(1, cells, SIZE, SIZE, requires_grad=True),
    )


def contenders() -> dict[str, Callable[[], Any]]:
    """Return every timed call, by ``function: part``."""
    given = tensors()
    cotangent = torch.randn(1, CHANNELS, SIZE, SIZE)

    def forward(function: Function) -> None:
        with torch.no_grad():
            function(*given)

    def both(function: Function) -> None:
        torch.autograd.grad(function(*given), given, cotangent)

    calls: dict[str, Callable[[], Any]] = {}
    for name, function in functions().items():
        calls[f"{name}: forward"] = lambda function=function: forward(function)
        calls[f"{name}: forward and backward"] = lambda function=function: both(function)
    left = torch.randn(CHANNELS, CHANNELS * KERNEL * KERNEL)
    right = torch.randn(CHANNELS * KERNEL * KERNEL, SIZE * SIZE)
    calls["gemm: forward"] = lambda: left @ right
    return calls


def check() -> None:
    """Refuse to time what does not agree."""
    given = tensors()
    results = {name: function(*given) for name, function in functions().items()}
    for name, result in results.items():
        torch.testing.assert_close(result, results["sparseconv"], rtol=1e-3, atol=1e-3, msg=name)


def main() -> None:
    """Time, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    check()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    times = interleaved(contenders(), arguments.rounds, warm_up=2, clock=clock)
    for name, milliseconds in times.items():
        print(f"{name:<36}{milliseconds:>9.1f} ms")
    ratios = {
        name: milliseconds / times[f"sparseconv: {name.partition(': ')[2]}"]
        for name, milliseconds in times.items()
        if not name.startswith(("sparseconv", "gemm"))
    }
    for name, ratio in ratios.items():
        print(f"{ratio:.1f} times as fast as {name}")
    report = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    report["cpu time, one thread" if arguments.cpu_time else "wall clock"] = {
        "case": f"1x{CHANNELS}x{SIZE}x{SIZE}, k={KERNEL}, {CHANNELS} output channels, v2, float32",
        "machine": {**machine(), "torchvision": torchvision_version()},
        "load_average_1_min": os.getloadavg()[0],
        "median_ms": {name: round(value, 2) for name, value in times.items()},
        "times_as_fast_as": {name: round(value, 2) for name, value in ratios.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
