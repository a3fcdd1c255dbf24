"""Make the labelled synthetic scans by ray casting: `python data/make_scans.py`.

A spinning sensor of 64 beams stands in the random streets of `street.py`. The same seed gives the
same bytes; see README.md for the files, and for how they differ from real scans.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from street import CLASSES, GROUND, Array, Ground, Solid, make_scene, unit

SEED = 20240
LAYOUTS = {
    "train": (
        "straight", "crossing", "tee", "curve", "parking", "straight", "crossing",
        "tee", "curve", "parking", "straight", "crossing", "tee", "straight",
    ),
    "test": ("fork", "chicane", "skewed", "straight"),
}  # fmt: skip
COLUMNS = 1024
MAX_RANGE = 80.0
RANGE_NOISE = 0.02
GRID = 64.0
"""Coordinates are multiples of 1 / GRID metres: fine beside the noise, and it compresses well."""

Faces = tuple[tuple[float, float, float], ...]
_BOX: Faces = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
# The walls of a cabin lean inwards: the roof is 0.65 as long in front, 0.75 behind, 0.8 as wide.
_CABIN: Faces = (
    (1.212, 0, 0.212), (-1.143, 0, 0.143), (0, 1.111, 0.111), (0, -1.111, 0.111), *_BOX[4:]
)  # fmt: skip


@dataclass(frozen=True)
class Rays:
    """A grid of rays from one point: rows are beams from top to bottom, columns azimuths.

    Attributes:
        height: Height of the sensor above the road datum in metres.
        elevation: (rows, 2) cosine and sine of each beam's elevation.
        azimuth: (columns, 2) cosine and sine of each azimuth.
        phase: Azimuth of column 0 in radians.
    """

    height: float
    elevation: Array
    azimuth: Array
    phase: float


@dataclass(frozen=True)
class Hits:
    """The nearest surface on each ray; all arrays are (rows, columns).

    Attributes:
        distance: Metres along the ray, infinite where nothing is hit.
        label: Index into `CLASSES`.
        reflectance: Diffuse reflectance of the surface.
        cosine: Cosine of the angle of incidence.
        loss: Extra chance of no return, for glass.
        roughness: Standard deviation of the surface along the ray, added to the range noise.
    """

    distance: Array
    label: NDArray[np.uint8]
    reflectance: Array
    cosine: Array
    loss: Array
    roughness: Array


@dataclass(frozen=True)
class Scan:
    """What a file holds: `xyz` (n, 3), `intensity` (n,) and `label` (n,), in scan order."""

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32]
    label: NDArray[np.uint8]


def make_rays(rng: np.random.Generator, ground: Ground, columns: int) -> Rays:
    """Place the sensor 1.6 to 1.9 m above the road; beams from +2 down to -24.8 degrees."""
    degrees = np.concatenate([np.linspace(2.0, -8.33, 32), np.linspace(-8.83, -24.8, 32)])
    phase = float(rng.uniform(0.0, 2.0 * np.pi / columns))
    turn = np.linspace(0.0, 2.0 * np.pi, columns, endpoint=False) + phase
    road = float(ground.height(np.zeros(1), np.zeros(1))[0])
    return Rays(road + rng.uniform(1.6, 1.9), unit(degrees * (np.pi / 180.0)), unit(turn), phase)


def cast_ground(rng: np.random.Generator, rays: Rays, ground: Ground) -> Hits:
    """Meet the rays with the ground, along one height profile per azimuth."""
    shape = (len(rays.elevation), len(rays.azimuth))
    radii = np.round(2.0 * 42.0 ** np.linspace(0.0, 1.0, 640) * 1024.0) / 1024.0
    cos_az, sin_az = rays.azimuth.T
    profile = ground.height(cos_az[:, None] * radii, sin_az[:, None] * radii) - rays.height
    reach, fall = np.full(shape, np.inf), np.ones(shape)
    every = np.arange(len(rays.azimuth))
    for row, (cos_el, sin_el) in enumerate(rays.elevation):
        gap = radii * (sin_el / cos_el) - profile
        after = np.clip((gap < 0.0).argmax(axis=1), 1, None)
        above, below = gap[every, after - 1], gap[every, after]
        step = radii[after] - radii[after - 1]
        met = below < 0.0
        share = above / np.where(met, above - below, 1.0)
        reach[row] = np.where(met, radii[after - 1] + share * step, np.inf)
        rise = (profile[every, after] - profile[every, after - 1]) / step
        fall[row] = np.abs(rise * cos_el - sin_el) / np.sqrt(1.0 + rise * rise)
    x, y = np.where(np.isfinite(reach), reach, 0.0) * rays.azimuth.T[:, None, :]
    tone, rough = _paint_ground(rng, ground, x, y)
    label = np.full(shape, GROUND, dtype=np.uint8)
    return Hits(reach / rays.elevation[:, :1], label, tone, fall, np.zeros(shape), rough)


def _paint_ground(
    rng: np.random.Generator, ground: Ground, x: Array, y: Array
) -> tuple[Array, Array]:
    """Reflectance and roughness of asphalt, lane markings, pavement and grass."""
    kerb, centre = ground.offsets(x, y)
    asphalt, paving, grass = rng.uniform((0.12, 0.28, 0.4), (0.24, 0.42, 0.55))
    marked = (centre < 0.08) | (np.abs(kerb + 0.3) < 0.07)
    lawn = kerb > ground.pavement
    tone = np.select([lawn, kerb > 0.0, marked], [grass, paving, 0.75], asphalt)
    return tone, np.where(lawn, 0.04, 0.0)


def _window(rays: Rays, solid: Solid) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows and columns of the rays that can meet a solid; None if there are none."""
    (x, y, z), (hx, hy, hz) = solid.centre, solid.half
    reach, away = np.sqrt(hx * hx + hy * hy), np.sqrt(x * x + y * y)
    z -= rays.height
    span = np.array([max(away - reach, 0.1), away + reach])
    slope = rays.elevation[:, 1] / rays.elevation[:, 0]
    inside = (slope >= ((z - hz) / span).min()) & (slope <= ((z + hz) / span).max())
    rows = np.flatnonzero(inside)
    if not len(rows) or span[0] > MAX_RANGE:
        return None
    if away <= reach:
        return rows, np.arange(len(rays.azimuth))
    step = 2.0 * np.pi / len(rays.azimuth)
    middle, half = np.arctan2(y, x) - rays.phase, np.arcsin(reach / away)
    first, last = np.floor((middle - half) / step), np.ceil((middle + half) / step)
    return rows, np.arange(int(first), int(last) + 1) % len(rays.azimuth)


def _meet_faces(o: Array, d: Array, half: Array, faces: Faces) -> tuple[Array, Array, Array]:
    """Entry, exit and cosine of incidence for the solid n . p <= 1 over all faces n."""
    enter, leave = np.full(d.shape[1:], -np.inf), np.full(d.shape[1:], np.inf)
    cosine = np.zeros(d.shape[1:])
    for nx, ny, nz in faces:
        rate = nx * d[0] + ny * d[1] + nz * d[2]
        at = (1.0 - nx * o[0] - ny * o[1] - nz * o[2]) / rate
        norm = np.sqrt((nx / half[0]) ** 2 + (ny / half[1]) ** 2 + (nz / half[2]) ** 2)
        later = (rate < 0.0) & (at > enter)
        enter, cosine = np.where(later, at, enter), np.where(later, -rate / norm, cosine)
        leave = np.where(rate > 0.0, np.minimum(leave, at), leave)
    return enter, leave, cosine


def _meet_round(o: Array, d: Array, half: Array, axes: int) -> tuple[Array, Array, Array]:
    """The same for the unit sphere (`axes` = 3) or the unit cylinder without ends (2)."""
    a, b, c = np.zeros(d.shape[1:]), np.zeros(d.shape[1:]), -1.0
    for k in range(axes):
        a, b, c = a + d[k] * d[k], b + o[k] * d[k], c + o[k] * o[k]
    root = np.sqrt(b * b - a * c)
    enter, leave = (-b - root) / a, (root - b) / a
    norm = np.zeros(d.shape[1:])
    for k in range(axes):
        norm = norm + ((o[k] + enter * d[k]) / half[k]) ** 2
    return enter, leave, root / np.sqrt(norm)


def _meet(solid: Solid, o: Array, d: Array, half: Array) -> tuple[Array, Array, Array]:
    """Entry, exit and cosine of incidence of rays, in the solid's own frame and scale.

    Args:
        solid: Gives the shape.
        o: (3,) start of the rays.
        d: (3, rows, columns) directions.
        half: (3,) half extents, by which `o` and `d` were divided.

    Returns:
        Distances along the rays, and the cosine; a miss has NaN or an exit before its entry.
    """
    if solid.shape == "ellipsoid":
        return _meet_round(o, d, half, 3)
    if solid.shape == "box":
        return _meet_faces(o, d, half, _BOX)
    if solid.shape == "cabin":
        return _meet_faces(o, d, half, _CABIN)
    enter, leave, cosine = _meet_round(o, d, half, 2)
    top, bottom, flat = _meet_faces(o, d, half, _BOX[4:])
    return np.maximum(enter, top), np.minimum(leave, bottom), np.where(top > enter, flat, cosine)


def cast_solid(rng: np.random.Generator, rays: Rays, solid: Solid, hits: Hits) -> None:
    """Meet the rays with one solid and keep what is nearer than `hits`, in place."""
    window = _window(rays, solid)
    if window is None:
        return
    rows, columns = window
    (cos_el, sin_el), (cos_az, sin_az) = rays.elevation[rows].T, rays.azimuth[columns].T
    (c, s), half = solid.heading, np.array(solid.half)
    x, y, z = solid.centre
    o = np.array([-c * x - s * y, s * x - c * y, rays.height - z]) / half
    flat = cos_el[:, None]
    d = np.stack(
        [
            flat * (c * cos_az + s * sin_az) / half[0],
            flat * (c * sin_az - s * cos_az) / half[1],
            np.broadcast_to(sin_el[:, None] / half[2], (len(rows), len(columns))),
        ]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        enter, leave, cosine = _meet(solid, o, d, half)
    if solid.free_path:
        # A porous solid returns from a random depth, or lets the ray through.
        enter = enter + solid.free_path * rng.standard_exponential(enter.shape)
        cosine = np.full(enter.shape, 0.6)
    grid = np.ix_(rows, columns)
    nearer = (enter < leave) & (enter > 0.5) & (enter < hits.distance[grid])
    pane = _panes(solid, o, d, enter, half)
    for target, value in (
        (hits.distance, enter),
        (hits.label, solid.label),
        (hits.reflectance, np.where(pane, 0.08, solid.reflectance)),
        (hits.cosine, cosine),
        (hits.loss, np.where(pane, 0.4, 0.0)),
        (hits.roughness, 0.0),
    ):
        target[grid] = np.where(nearer, value, target[grid])


def _panes(solid: Solid, o: Array, d: Array, enter: Array, half: Array) -> NDArray[np.bool_]:
    """Where a ray meets glass."""
    if solid.glass != "windows":
        return np.full(enter.shape, solid.glass == "whole")
    with np.errstate(invalid="ignore"):
        x, y, z = (o[:, None, None] + enter * d) * half[:, None, None]
        # One of x and y is constant on each wall, so that their sum counts along it.
        glazed = ((x + y) % 2.7 < 1.2) & ((z + half[2] - 2.0) % 3.0 > 1.0)
    return np.asarray(glazed, dtype=np.bool_)


def sense(rng: np.random.Generator, rays: Rays, hits: Hits) -> Scan:
    """Turn hits into returns: range noise, drop-outs, intensity, and rounding to the grid."""
    shape = hits.distance.shape
    found = np.where(np.isfinite(hits.distance), hits.distance, 2.0 * MAX_RANGE)
    spread = np.sqrt(RANGE_NOISE**2 + hits.roughness**2)
    measured = found + spread * rng.standard_normal(shape)
    signal = hits.reflectance * (0.2 + 0.8 * hits.cosine) / (1.0 + (found / 60.0) ** 2)
    lost = 0.015 + 0.6 * 0.008 / (0.008 + signal) + hits.loss
    seen = (rng.random(shape) > lost) & (measured < MAX_RANGE)
    strength = signal * (1.0 + 0.1 * rng.standard_normal(shape))
    (cos_el, sin_el), (cos_az, sin_az) = rays.elevation.T, rays.azimuth.T
    directions = (cos_el[:, None] * cos_az, cos_el[:, None] * sin_az, sin_el[:, None])
    xyz = np.stack([(measured * d)[seen] for d in directions], axis=1)
    # Adding zero turns -0.0 into 0.0.
    xyz = np.round(xyz * GRID) / GRID + 0.0
    intensity = np.round(np.clip(strength[seen], 0.0, 1.0) * 255.0) / 255.0
    return Scan(xyz.astype(np.float32), intensity.astype(np.float32), hits.label[seen])


def make_scan(index: int, layout: str, columns: int = COLUMNS) -> Scan:
    """Make one scan of `columns` azimuths; `index` seeds it."""
    rng = np.random.default_rng([SEED, index])
    scene = make_scene(rng, layout)
    rays = make_rays(rng, scene.ground, columns)
    hits = cast_ground(rng, rays, scene.ground)
    for solid in scene.solids:
        cast_solid(rng, rays, solid, hits)
    return sense(rng, rays, hits)


def scan_list() -> Iterator[tuple[int, str, str, str]]:
    """Index, split, name and layout of every scan."""
    index = 0
    for split, layouts in LAYOUTS.items():
        for layout in layouts:
            yield index, split, f"street_{index:02d}", layout
            index += 1


def main() -> None:
    """Write the scans and print the share of each class."""
    parser = argparse.ArgumentParser(description="Make the labelled synthetic scans.")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--only", metavar="NAME", help="make one scan, such as street_03")
    args = parser.parse_args()
    names = [name for _, _, name, _ in scan_list()]
    if args.only and args.only not in names:
        parser.error(f"--only must be one of {names[0]} to {names[-1]}, not {args.only!r}")
    for index, split, name, layout in scan_list():
        if args.only not in (None, name):
            continue
        scan = make_scan(index, layout)
        path = args.output / split / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, xyz=scan.xyz, intensity=scan.intensity, label=scan.label)
        share = 100.0 * np.bincount(scan.label, minlength=len(CLASSES)) / len(scan.label)
        words = (f"{word} {part:.1f} %" for word, part in zip(CLASSES, share, strict=True))
        print(f"{split}/{name} {layout:9s}{len(scan.label)} points: {', '.join(words)}")


if __name__ == "__main__":
    main()
