"""Label a cloud tile by tile: in this process, on a pool of processes, on Dask or on Ray.

    python examples/tile_cloud.py                              # a cloud made here, in this process
    python examples/tile_cloud.py --runner pool --workers 2    # the same bits on two processes
    python examples/tile_cloud.py --runner dask                # pip install 'sparseconv[cluster]'
    python examples/tile_cloud.py --runner ray
    python examples/tile_cloud.py town.laz --voxel-size 0.2 --output town_labels.laz

Interrupt it and start it again: finished tiles are kept in --folder. On a cluster, give a folder
that all machines see, and the address of its scheduler by --address. The network has weights of
no training; put yours in its place.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import sparseconv as sc
from sparseconv.models import UNet
from sparseconv.tiles.runners import Dask, Here, Pool, Ray, Runner


def make_cloud(path: Path, points: int) -> None:
    """Write a hilly street scene of some hundred metres."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 300, (points, 2))
    z = 6 * np.sin(xy[:, 0] / 40) + np.where(xy[:, 1] % 60 < 15, 8 * rng.random(points), 0)
    np.save(path, np.round(np.column_stack([xy, z]), 2).astype(np.float32))


@contextmanager
def runner(kind: str, workers: int, address: str | None) -> Iterator[Runner]:
    """Give what runs the tiles, and stop it afterwards."""
    if kind == "dask":
        distributed = importlib.import_module("distributed")
        local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(address, **({} if address else local)) as client:
            yield Dask(client)
    elif kind == "ray":
        ray = importlib.import_module("ray")
        ray.init(address, **({} if address else {"num_cpus": workers, "include_dashboard": False}))
        yield Ray(workers)
        ray.shutdown()
    else:
        yield Pool(workers) if kind == "pool" else Here()


def channels_of(path: Path) -> int:
    """Return how many features the cloud's points have, 1 (of ones) where there are none."""
    first = next(sc.io.iter_points(path, rows=1))
    return max(1, len(first.feature_names))


def main() -> None:
    """Label the cloud and write the labels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cloud", nargs="?", type=Path, help="any file that sc.io.read_points reads")
    parser.add_argument("--runner", choices=("here", "pool", "dask", "ray"), default="here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="of a Dask or Ray cluster (default: one made here)")
    parser.add_argument("--voxel-size", type=float, default=0.25, help="metres")
    parser.add_argument("--core", type=int, help="voxels of a tile (default: as memory allows)")
    parser.add_argument("--folder", type=Path, default=Path("out/tiles"))
    parser.add_argument("--output", type=Path, help="(default: labels.npy in the folder)")
    parser.add_argument("--points", type=int, default=200_000, help="of the cloud made here")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    cloud = options.cloud or options.folder / "cloud.npy"
    if options.cloud is None and not cloud.exists():
        make_cloud(cloud, options.points)
    torch.manual_seed(0)
    net = UNet(channels_of(cloud), 6, (16, 32, 64), convolutions=1).eval()
    with runner(options.runner, options.workers, options.address) as where:
        tiles = sc.tiled(
            net,
            cloud,
            options.voxel_size,
            options.core,
            folder=options.folder / "work",
            runner=where,
        )
        print(f"{tiles}, which reads {tiles.reach.left} voxels to the left")
        with tqdm(total=tiles.num_tiles, initial=tiles.num_done, unit=" tiles") as bar:
            tiles.run(lambda done, total: bar.update(done - bar.n))
    output = options.output or options.folder / "labels.npy"
    tiles.write(output)
    counts = np.zeros(6, np.int64)
    for labels in tiles:
        counts += np.bincount(labels.numpy(), minlength=6)
    print(f"wrote {len(tiles):,} labels to {output}; points a class: {counts.tolist()}")


if __name__ == "__main__":
    main()
