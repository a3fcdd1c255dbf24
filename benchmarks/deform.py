"""Deformable convolution v2 against a gather in plain PyTorch, and torchvision where it is there.

    python -m benchmarks.deform [--threads 2] [--rounds 7]

One input of 64 channels and 128 x 128 cells, a 3 x 3 kernel, 64 output channels, all gradients.
The gather reads every sample through ``grid_sample`` into the columns of an ``unfold``, which one
matrix product then meets; ``gemm`` is that product alone. Writes ``benchmarks/results/deform.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sparseconv as sc
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).parent / "results" / "deform.json"
CHANNELS, SIZE, KERNEL = 64, 128, 3
# of torchvision 0.27 on another machine (one 1x64x128x128 call, two threads), where it can't run
TORCHVISION = {"forward": 173.0, "forward and backward": 1214.0}

Function = Callable[..., Tensor]


def gather(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the same convolution from ``grid_sample``: ``[B, C, K, H, W]`` columns, one product."""
    batch, channels, height, width = x.shape
    cells = KERNEL * KERNEL
    shift = offset.reshape(batch, cells, 2, height, width)
    down, along = torch.meshgrid(torch.arange(KERNEL), torch.arange(KERNEL), indexing="ij")
    rows = torch.arange(height)[:, None] - 1 + down.flatten()[:, None, None] + shift[:, :, 0]
    columns = torch.arange(width) - 1 + along.flatten()[:, None, None] + shift[:, :, 1]
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
    sampled = F.grid_sample(x, grid.flatten(1, 2), align_corners=True)
    sampled = sampled.reshape(batch, channels, cells, -1) * mask.flatten(2).unsqueeze(1)
    product = weight.flatten(1) @ sampled.flatten(1, 2)
    return product.reshape(batch, -1, height, width)


def ours(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the library's."""
    return sc.functional.deform_conv(x, offset, weight, padding=1, mask=mask)


def functions() -> dict[str, Function]:
    """Return what is compared, by name."""
    found: dict[str, Function] = {"sparseconv": ours, "gather": gather}
    try:
        from torchvision.ops import deform_conv2d  # noqa: PLC0415  # where it can be installed
    except ImportError:
        return found
    return {**found, "torchvision": lambda x, o, w, m: deform_conv2d(x, o, w, padding=1, mask=m)}


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
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    check()
    times = interleaved(contenders(), arguments.rounds, warm_up=2)
    for name, milliseconds in times.items():
        print(f"{name:<36}{milliseconds:>9.1f} ms")
    ratios = {
        part: times[f"{peer}: {part}"] / times[f"sparseconv: {part}"]
        for part in TORCHVISION
        for peer in ("torchvision", "gather")
        if f"{peer}: {part}" in times
    }
    for part, ratio in ratios.items():
        print(f"{part}: {ratio:.1f} times as fast as the peer")
    report = {
        "case": f"1x{CHANNELS}x{SIZE}x{SIZE}, k={KERNEL}, {CHANNELS} output channels, v2, float32",
        "machine": machine(),
        "load_average_1_min": os.getloadavg()[0],
        "median_ms": times,
        "times_as_fast": ratios,
        "torchvision_elsewhere_ms": TORCHVISION,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
