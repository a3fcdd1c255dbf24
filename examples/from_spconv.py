"""A detector's backbone written for spconv, on the sample scans, on a CPU.

The network imports spconv and nothing of this library. It runs on the names here, says how long it
takes and how many sites each layer makes, loads its own checkpoint, and becomes plain PyTorch.

    python examples/from_spconv.py                 # the scans of data/test
    python examples/from_spconv.py scan.bin        # or your own
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import sparseconv as sc

sc.compat.install("spconv", force=True)  # what `python -m sparseconv.compat` does for a program

import spconv.pytorch as spconv  # noqa: E402

DATA = Path(__file__).resolve().parents[1] / "data" / "test"
VOXEL = (0.1, 0.1, 0.1)  # metres


def block(convolution: nn.Module) -> nn.Module:
    """Return a convolution with its normalisation and its ReLU."""
    return spconv.SparseSequential(
        convolution, nn.BatchNorm1d(convolution.out_channels, eps=1e-3, momentum=0.01), nn.ReLU()
    )


class Backbone(nn.Module):
    """The middle extractor of a SECOND-style detector: eightfold stride, then a bird's-eye view."""

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        a, b, c = widths
        self.layers = spconv.SparseSequential(
            block(spconv.SubMConv3d(channels, a, 3, indice_key="subm1", bias=False)),
            block(spconv.SubMConv3d(a, a, 3, indice_key="subm1", bias=False)),
            block(spconv.SparseConv3d(a, b, 3, 2, padding=1, bias=False)),
            block(spconv.SubMConv3d(b, b, 3, indice_key="subm2", bias=False)),
            block(spconv.SparseConv3d(b, c, 3, 2, padding=1, bias=False)),
            block(spconv.SubMConv3d(c, c, 3, indice_key="subm3", bias=False)),
            block(spconv.SparseConv3d(c, c, 3, 2, padding=1, bias=False)),
            block(spconv.SubMConv3d(c, c, 3, indice_key="subm4", bias=False)),
        )

    def forward(self, features: Tensor, indices: Tensor, shape: list[int], batch: int) -> Tensor:
        """Return the bird's-eye view ``[B, C * Z, Y, X]``."""
        x = self.layers(spconv.SparseConvTensor(features, indices, shape, batch))
        return x.dense().flatten(1, 2)


def voxels(paths: list[str]) -> tuple[Tensor, Tensor, list[int], int]:
    """Return mean positions ``[N, 3]``, indices zyx, shape and batch size of scans."""
    points = [sc.io.read_points(path).xyz for path in paths]
    x, _ = sc.voxelize(points, VOXEL, features=points)
    return x.features.float(), x.coords[:, [0, 3, 2, 1]].int(), [*x.spatial_shape[::-1]], len(paths)


def timed(net: nn.Module, scan: tuple[Tensor, Tensor, list[int], int]) -> tuple[float, Tensor]:
    """Return the milliseconds of a run on indices that nobody has seen, and its result."""
    features, indices, *rest = scan
    start = time.perf_counter()
    with torch.no_grad():
        out = net(features, indices.clone(), *rest)
    return 1e3 * (time.perf_counter() - start), out


def report(net: Backbone, scan: tuple[Tensor, Tensor, list[int], int]) -> None:
    """Print the sites and the time of each layer."""
    features, indices, shape, batch = scan
    x = spconv.SparseConvTensor(features, indices.clone(), shape, batch)
    for number, layer in enumerate(net.layers):
        start = time.perf_counter()
        with torch.no_grad():
            x = layer(x)
        took = 1e3 * (time.perf_counter() - start)
        sites = x.features.shape[0]
        print(f"  layer {number}: {sites:7,} sites of {x.spatial_shape}, {took:6.1f} ms")


def main() -> None:
    """Run the backbone three ways, and compare the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scans", nargs="*", help="files of points; those of data/test by default")
    parser.add_argument("--quick", action="store_true", help="one scan and a narrow network")
    options = parser.parse_args()
    torch.manual_seed(0)
    paths = options.scans or [str(path) for path in sorted(DATA.glob("*.npz"))]
    scan = voxels(paths[:1] if options.quick else paths)
    net = Backbone(3, (4, 8, 8) if options.quick else (16, 32, 64)).eval()
    timed(net, scan)  # compiles kernels where this is the first run
    milliseconds, view = timed(net, scan)
    print(f"{scan[3]} scans, {len(scan[0]):,} voxels: {tuple(view.shape)} in {milliseconds:.0f} ms")
    report(net, scan)
    twin = Backbone(3, (4, 8, 8) if options.quick else (16, 32, 64)).eval()
    print(sc.load_checkpoint(twin, net.state_dict(), source="spconv").source, "weights loaded")
    fast = sc.optimize(sc.compat.to_native(twin))
    timed(fast, scan)
    milliseconds, same = timed(fast, scan)
    error = float((same - view).abs().max() / view.abs().max())
    print(f"as plain PyTorch, optimized: {milliseconds:.0f} ms, largest difference {error:.0e}")


if __name__ == "__main__":
    main()
