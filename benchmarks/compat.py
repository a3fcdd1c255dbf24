"""Networks written for spconv, on spconv's own CPU wheel and on its names here.

Run ``OMP_NUM_THREADS=1 python -m benchmarks.compat`` where both are importable: on several threads
the wheel's numbers are wrong. Both get the same weights and the same voxels, and their results are
compared before any time is taken.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.spconv_nets import NETS
from benchmarks.timing import interleaved, machine
from sparseconv.compat.spconv import pytorch as ours

DATA = Path(__file__).resolve().parents[1] / "data" / "test"
SIZE = (0.1, 0.05, 0.05)  # metres, zyx as detectors have it
BOUND = 1e-4  # of the largest value: many layers of float32


def wheel() -> ModuleType | None:
    """Return spconv's own package with its CPU form mended, None where there is none.

    Its backward asks for a CUDA stream, and its evaluation refuses a bias.
    """
    try:
        spconv = importlib.import_module("spconv.pytorch")
    except ImportError:
        return None
    importlib.import_module("spconv.pytorch.ops").get_current_stream = lambda: 0
    native = importlib.import_module("spconv.core").ConvAlgo.Native

    def forward(self: Any, input: Any, add_input: Any = None) -> Any:
        self.algo = native
        return self._conv_forward(True, input, self.weight, self.bias, add_input, name=self.name)

    spconv.conv.SparseConvolution.forward = forward
    return spconv


def scans(paths: Sequence[str]) -> tuple[Tensor, Tensor, list[int], int]:
    """Return voxel features ``[N, 4]``, shuffled zyx indices, shape and batch size of scans."""
    points = [sc.io.read_points(path).xyz for path in paths]
    x, _ = sc.voxelize(points, SIZE[::-1], features=[_four(xyz) for xyz in points])
    shuffle = torch.randperm(x.num_sites, generator=torch.Generator().manual_seed(0))
    shape = list(x.spatial_shape[::-1])
    indices = x.coords[:, [0, 3, 2, 1]][shuffle].int()
    return x.features[shuffle].float(), indices, shape, x.batch_size


def _four(xyz: Any) -> Any:
    """Return the coordinates and the height again: four features for each point."""
    return np.concatenate([xyz, xyz[:, 2:]], axis=1)


def contenders(name: str, scan: tuple[Any, ...], train: bool) -> dict[str, Callable[[], Any]]:
    """Return the network on the names here and, where it is importable, on the wheel.

    Raises:
        ValueError: their results differ.
    """
    modules = {"here": ours, "wheel": wheel()}
    nets: dict[str, nn.Module] = {}
    for label, spconv in modules.items():
        if spconv is not None:
            torch.manual_seed(0)
            nets[label] = NETS[name](spconv).train(train)
    for net in nets.values():
        net.load_state_dict(nets["here"].state_dict())
    _compare({label: _once(copy.deepcopy(net), scan, train) for label, net in nets.items()})
    return {label: functools.partial(_once, net, scan, train) for label, net in nets.items()}


def _once(net: nn.Module, scan: tuple[Any, ...], train: bool) -> Tensor:
    """Return the network's result on indices that nobody has seen; in training with a backward."""
    features, indices, *rest = scan
    with torch.set_grad_enabled(train):
        out = net(features, indices.clone(), *rest)
        if train:
            net.zero_grad()
            out.mean().backward()
    return out.detach()


def _compare(results: dict[str, Tensor]) -> None:
    """Raise unless the results are equal, up to the rounding of float32."""
    first = results["here"]
    for label, result in results.items():
        error = float((result - first).abs().max() / first.abs().max())
        if not error < BOUND:
            raise ValueError(f"{label}: differs from the names here by {error:.1e}")


def main() -> None:
    """Print a line for each network, number of scans and pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="*", help="four scans; those in data/test by default")
    parser.add_argument("--net", choices=NETS, nargs="*", default=list(NETS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, nargs="*", default=[1, 4])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    paths = options.scans or [str(path) for path in sorted(DATA.glob("*.npz"))]
    for count in options.count:
        scan = scans((paths * count)[:count])
        for name in options.net:
            for train in (False, True):
                times = interleaved(contenders(name, scan, train), options.rounds)
                ratio = f", {times['wheel'] / times['here']:.1f} x" if "wheel" in times else ""
                label = "training step" if train else "evaluation"
                shown = ", ".join(f"{label} {value:.0f} ms" for label, value in times.items())
                print(f"{name}, {count} scans, {len(scan[0])} voxels, {label}: {shown}{ratio}")


if __name__ == "__main__":
    main()
