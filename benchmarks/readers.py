"""The readers beside the libraries that people use: a million points of each format, one run.

    python -m benchmarks.readers                    # each format, beside those that can be imported
    python -m benchmarks.readers --points 100000

Every library reads the same file into memory, all columns as arrays: Open3D's tensor reader (PCD,
PLY), laspy with lazrs (LAS, LAZ), pandas (text), NumPy (.npy, .npz, .bin). Milliseconds, medians of
interleaved rounds after one to warm up. Figures go to ``results/readers.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sparseconv as sc
from benchmarks.timing import interleaved, machine

RESULTS = Path(__file__).resolve().parent / "results" / "readers.json"
Reader = Callable[[], object]


def cloud(count: int) -> sc.io.Points:
    """Return points of a scan: millimetres, an intensity, a class."""
    rng = np.random.default_rng(0)
    xyz = np.round(np.cumsum(rng.normal(0, 0.1, (count, 3)), axis=0), 3).astype(np.float32)
    return sc.io.Points(
        xyz, np.floor(rng.random((count, 1)) * 255).astype(np.float32), ("intensity",)
    )


def write(folder: Path, count: int) -> dict[str, Path]:
    """Write the cloud in each format; returns the files by what to call them."""
    points = cloud(count)
    files = {suffix: folder / f"cloud.{suffix}" for suffix in ("bin", "npy", "npz", "ply", "pcd")}
    files |= {suffix: folder / f"cloud.{suffix}" for suffix in ("las", "laz")}
    for path in files.values():
        sc.io.write_points(path, points)
    files["pcd, packed"] = folder / "packed.pcd"
    _packed(files["pcd, packed"], points)
    files["text, 4 columns"] = folder / "cloud.csv"
    table = np.column_stack([points.xyz, points.features])
    np.savetxt(files["text, 4 columns"], table, "%.3f", ",", header="x,y,z,intensity", comments="")
    return files


def _packed(path: Path, points: sc.io.Points) -> None:
    """Write a compressed PCD, by Open3D where it is installed."""
    try:
        o3d = importlib.import_module("open3d")
    except ImportError:
        return
    made = o3d.t.geometry.PointCloud(o3d.core.Tensor(points.xyz))
    made.point["intensity"] = o3d.core.Tensor(points.features)
    o3d.t.io.write_point_cloud(str(path), made, compressed=True)


def _open3d(path: Path) -> Reader:
    o3d = importlib.import_module("open3d")

    def read() -> object:
        made = o3d.t.io.read_point_cloud(str(path))
        return [made.point[name].numpy() for name in made.point]

    return read


def _laspy(path: Path) -> Reader:
    laspy = importlib.import_module("laspy")

    def read() -> object:
        las = laspy.read(path)
        names = [name for name in las.point_format.dimension_names if name not in ("X", "Y", "Z")]
        return [np.asarray(las.xyz), *(np.array(las[name]) for name in names)]

    return read


def _pandas(path: Path) -> Reader:
    pandas = importlib.import_module("pandas")
    return lambda: pandas.read_csv(path).to_numpy()


def _numpy(path: Path) -> Reader:
    def read() -> object:
        if path.suffix == ".bin":
            return np.fromfile(path, np.float32).reshape(-1, 4)
        found = np.load(path)
        return {name: found[name] for name in found} if path.suffix == ".npz" else found

    return read


PEERS: tuple[tuple[str, Callable[[Path], Reader], tuple[str, ...]], ...] = (
    ("Open3D", _open3d, ("ply", "pcd", "pcd, packed")),
    ("laspy", _laspy, ("las", "laz")),
    ("NumPy", _numpy, ("bin", "npy", "npz")),
    ("pandas", _pandas, ("text, 4 columns",)),
)


def measure(count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each reader, by format."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in write(Path(folder), count).items():
            if not path.exists():
                continue
            contenders: dict[str, Reader] = {
                "sparseconv": lambda path=path: sc.io.read_points(path)
            }
            for name, make, kinds in PEERS:
                if kind in kinds:
                    with contextlib.suppress(ImportError):
                        contenders[name] = make(path)
            times = interleaved(contenders, rounds)
            found[kind] = {name: float(f"{value:.4g}") for name, value in times.items()}
    return found


def main(arguments: list[str] | None = None, path: Path = RESULTS) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    found = measure(options.points, options.rounds)
    about: dict[str, Any] = {
        "machine": machine(),
        "points": options.points,
        "versions": _versions(),
    }
    path.write_text(json.dumps({**about, "ms": found}, indent=1) + "\n", encoding="utf-8")
    for kind, times in found.items():
        print(kind, *(f"{name} {value:.4g} ms" for name, value in times.items()), sep=" | ")


def _versions() -> dict[str, str]:
    found = {}
    for name in ("open3d", "laspy", "lazrs", "pandas"):
        try:
            found[name] = str(importlib.import_module(name).__version__)
        except ImportError:
            continue
        except AttributeError:
            found[name] = "?"
    return found


if __name__ == "__main__":
    main()
