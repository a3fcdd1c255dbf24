"""Random streets made of simple solids, for the synthetic scans of `make_scans.py`.

A scene is a ground surface (roads with kerbs, pavements, grass, slopes and bumps) and a list of
solids standing on it. The sensor stands at x = y = 0; heights are metres above the road datum.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

CLASSES = ("ground", "building", "vehicle", "pole", "vegetation", "person")
GROUND, BUILDING, VEHICLE, POLE, VEGETATION, PERSON = range(len(CLASSES))

Array = NDArray[np.float64]
Triple = tuple[float, float, float]


def unit(angle: float | Array) -> Array:
    """Cosine and sine of an angle on a fixed grid, stacked on the last axis.

    Libraries differ in the last bit of sin and cos; rounding to 2**-30 hides that, and all that
    is computed from them is plain arithmetic, so the scans come out alike on most machines.
    """
    pair: Array = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.round(pair * 2.0**30) / 2.0**30


@dataclass(frozen=True)
class Solid:
    """A box, tapered cabin, upright cylinder or ellipsoid, turned about the vertical.

    Attributes:
        shape: "box", "cabin" (a box that narrows upwards), "cylinder" or "ellipsoid".
        centre: Centre in metres.
        half: Half extents in metres along its own axes.
        heading: Cosine and sine of its yaw.
        label: Index into `CLASSES`.
        reflectance: Diffuse reflectance, 0 to 1.
        free_path: Mean depth in metres that a ray travels inside before it returns; 0 is opaque.
        glass: "" for none, "windows" for a facade pattern, "whole" for all of it.
    """

    shape: str
    centre: Triple
    half: Triple
    heading: tuple[float, float]
    label: int
    reflectance: float
    free_path: float = 0.0
    glass: str = ""


@dataclass(frozen=True)
class Street:
    """A road along a polyline, (n, 2) metres, out to `half_width` on both sides."""

    line: Array
    half_width: float


@dataclass(frozen=True)
class Ground:
    """The ground surface: roads with crown and kerb, pavement, and grass with gentle bumps.

    Attributes:
        streets: The roads.
        pavement: Width of the pavement in metres.
        slope: Rise per metre along x and y.
        bumps: (n, 4) rows of x, y, height and radius, metres.
    """

    streets: list[Street]
    pavement: float
    slope: tuple[float, float]
    bumps: Array

    def offsets(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Signed distance to the nearest kerb (negative on a road) and to its centre line."""
        kerb = np.full(x.shape, np.inf)
        centre = np.full(x.shape, np.inf)
        for street in self.streets:
            for (ax, ay), (bx, by) in zip(street.line[:-1], street.line[1:], strict=True):
                ux, uy = bx - ax, by - ay
                along = ((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy)
                along = np.clip(along, 0.0, 1.0)
                dx, dy = x - ax - along * ux, y - ay - along * uy
                distance = np.sqrt(dx * dx + dy * dy)
                nearer = distance - street.half_width < kerb
                kerb = np.where(nearer, distance - street.half_width, kerb)
                centre = np.where(nearer, distance, centre)
        return kerb, centre

    def height(self, x: Array, y: Array) -> Array:
        """Height of the surface in metres."""
        kerb, _ = self.offsets(x, y)
        z = self.slope[0] * x + self.slope[1] * y
        for bx, by, rise, radius in self.bumps:
            near = 1.0 + ((x - bx) * (x - bx) + (y - by) * (y - by)) / (radius * radius)
            z = z + rise / (near * near)
        z = z + 0.025 * np.clip(-kerb, 0.0, 6.0)
        z = z + 0.13 * np.clip(kerb / 0.05, 0.0, 1.0) + 0.02 * np.clip(kerb, 0.0, self.pavement)
        return z + 0.05 * np.clip(kerb - self.pavement, 0.0, 8.0)

    def away(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Kerb distance, and the unit vector pointing away from the nearest road."""
        step = 0.05
        kerb = self.offsets(x, y)[0]
        gx = self.offsets(x + step, y)[0] - self.offsets(x - step, y)[0]
        gy = self.offsets(x, y + step)[0] - self.offsets(x, y - step)[0]
        norm = np.maximum(np.sqrt(gx * gx + gy * gy), 1e-9)
        return kerb, gx / norm, gy / norm


@dataclass(frozen=True)
class Spot:
    """A free place on the ground: position and the heading (cosine, sine) of what stands there."""

    x: float
    y: float
    z: float
    heading: tuple[float, float]

    def at(self, along: float, left: float, up: float) -> Triple:
        """World position of a point given in this place's own frame."""
        c, s = self.heading
        return self.x + c * along - s * left, self.y + s * along + c * left, self.z + up


@dataclass
class Scene:
    """A street under construction: the ground, the solids so far, and the circles they take."""

    rng: np.random.Generator
    ground: Ground
    solids: list[Solid] = field(default_factory=list)
    taken: list[Triple] = field(default_factory=lambda: [(0.0, 0.0, 2.6)])

    def uniform(self, low: float, high: float) -> float:
        """One uniform random number."""
        return float(self.rng.uniform(low, high))

    def add(
        self,
        spot: Spot,
        shape: str,
        at: Triple,
        half: Triple,
        label: int,
        tone: float,
        free_path: float = 0.0,
        glass: str = "",
    ) -> None:
        """Put a solid at `at` = (along, left, up) of its centre in the frame of `spot`."""
        solid = Solid(shape, spot.at(*at), half, spot.heading, label, tone, free_path, glass)
        self.solids.append(solid)

    def spot(
        self,
        kerb: float,
        reach: tuple[float, float],
        size: tuple[float, float],
        turn: float = 0.0,
    ) -> Spot | None:
        """Find a free place at a given distance from the kerb.

        Args:
            kerb: Signed distance to the kerb, negative on the road.
            reach: Nearest and farthest distance from the sensor.
            size: Length and width of the footprint; it is covered by a row of circles.
            turn: Yaw relative to the direction of the street.

        Returns:
            The place, which is then taken, or None when 64 random tries all fail.
        """
        start = unit(self.rng.uniform(0.0, 2.0 * np.pi, 64))
        start = start * self.rng.uniform(reach[0], reach[1], (64, 1))
        x, y = start[:, 0], start[:, 1]
        for _ in range(3):
            now, gx, gy = self.ground.away(x, y)
            x, y = x + (kerb - now) * gx, y + (kerb - now) * gy
        now, gx, gy = self.ground.away(x, y)
        c, s = unit(turn)
        hx, hy = -gy * c - gx * s, gx * c - gy * s
        length, radius = size[0], size[1] / 2.0
        row = np.linspace(-0.5, 0.5, int(length / size[1]) + 1) * (length - size[1])
        cx, cy = x[:, None] + hx[:, None] * row, y[:, None] + hy[:, None] * row
        tx, ty, tr = np.array(self.taken).T
        gap = (cx[..., None] - tx) ** 2 + (cy[..., None] - ty) ** 2 - (tr + radius) ** 2
        far = x * x + y * y
        free = (gap > 0.0).all(axis=(1, 2)) & (np.abs(now - kerb) < 0.2)
        free &= (far > reach[0] ** 2) & (far < reach[1] ** 2)
        if not free.any():
            return None
        i = int(free.argmax())
        self.taken += [(float(a), float(b), radius) for a, b in zip(cx[i], cy[i], strict=True)]
        z = float(self.ground.height(x[i], y[i]))
        return Spot(float(x[i]), float(y[i]), z, (float(hx[i]), float(hy[i])))


def _polyline(headings: Array, step: float) -> Array:
    """Points of a line that takes one step along each heading; its middle is at the origin."""
    points: Array = np.cumsum(unit(headings) * step, axis=0)
    middle: Array = points[len(points) // 2]
    return points - middle


def _arm(start: float, angle: float) -> Array:
    """A straight half line from (start, 0)."""
    return np.array([[start, 0.0], unit(angle) * 130.0 + [start, 0.0]])


def _main(width: float) -> Street:
    return Street(np.array([[-130.0, 0.0], [130.0, 0.0]]), width)


def _straight(rng: np.random.Generator, width: float) -> list[Street]:
    return [_main(width)]


def _crossing(rng: np.random.Generator, width: float) -> list[Street]:
    place, angle = rng.uniform(-18.0, 18.0), rng.uniform(1.3, 1.8)
    side = rng.uniform(3.2, 4.5)
    return [_main(width), *(Street(_arm(place, angle + turn), side) for turn in (0.0, np.pi))]


def _skewed(rng: np.random.Generator, width: float) -> list[Street]:
    place, angle = rng.uniform(-12.0, 12.0), rng.uniform(0.85, 1.05)
    return [_main(width), *(Street(_arm(place, angle + turn), 3.5) for turn in (0.0, np.pi))]


def _tee(rng: np.random.Generator, width: float) -> list[Street]:
    angle = rng.uniform(1.2, 1.9) * rng.choice([-1.0, 1.0])
    return [_main(width), Street(_arm(rng.uniform(-18.0, 18.0), angle), rng.uniform(3.2, 4.5))]


def _curve(rng: np.random.Generator, width: float) -> list[Street]:
    bend = rng.uniform(0.9, 1.4) * rng.choice([-1.0, 1.0])
    return [Street(_polyline(np.linspace(-bend, bend, 17), 11.0), width)]


def _parking(rng: np.random.Generator, width: float) -> list[Street]:
    middle = rng.uniform(-8.0, 8.0)
    lot = np.array([[middle - 18.0, 0.0], [middle + 18.0, 0.0]])
    return [_main(width), Street(lot, rng.uniform(15.0, 19.0))]


def _fork(rng: np.random.Generator, width: float) -> list[Street]:
    place = rng.uniform(-10.0, 10.0)
    angles = np.array([np.pi, 0.45, -0.75]) + rng.uniform(-0.1, 0.1, 3)
    return [Street(_arm(place, angle), width) for angle in angles]


def _chicane(rng: np.random.Generator, width: float) -> list[Street]:
    wave = np.abs(np.arange(21) % 12 - 6.0) / 3.0 - 1.0
    return [Street(_polyline(rng.uniform(0.6, 0.8) * wave, 9.0), width)]


LAYOUTS: dict[str, Callable[[np.random.Generator, float], list[Street]]] = {
    "straight": _straight,
    "crossing": _crossing,
    "tee": _tee,
    "curve": _curve,
    "parking": _parking,
    "fork": _fork,
    "chicane": _chicane,
    "skewed": _skewed,
}


def _make_ground(rng: np.random.Generator, layout: str) -> Ground:
    """Lay out the streets at a random yaw, with the sensor in a lane of the main street."""
    width = rng.uniform(4.6, 6.4)
    c, s = unit(rng.uniform(0.0, 2.0 * np.pi))
    lane = np.array([rng.uniform(-5.0, 5.0), -rng.uniform(0.25, 0.4) * width])
    streets = []
    for street in LAYOUTS[layout](rng, width):
        x, y = (street.line - lane).T
        streets.append(Street(np.stack([c * x - s * y, s * x + c * y], axis=1), street.half_width))
    slope_x, slope_y = rng.uniform(-0.015, 0.015, 2)
    low, high = (-60.0, -60.0, -0.2, 4.0), (60.0, 60.0, 0.25, 16.0)
    bumps = rng.uniform(low, high, (16, 4))
    return Ground(streets, rng.uniform(2.2, 4.0), (slope_x, slope_y), bumps)


def _add_buildings(scene: Scene, front: float, density: float) -> None:
    """Line both sides of every street with houses, `front` metres behind the kerb."""
    for street in scene.ground.streets:
        steps = np.diff(street.line, axis=0)
        ends = np.cumsum(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2))
        for side in (-1.0, 1.0):
            done = scene.uniform(0.0, 6.0)
            while done < ends[-1] - 8.0:
                length, depth = scene.uniform(7.0, 20.0), scene.uniform(8.0, 13.0)
                k = min(int(np.searchsorted(ends, done + length / 2.0)), len(steps) - 1)
                c, s = steps[k] / np.sqrt(steps[k, 0] ** 2 + steps[k, 1] ** 2)
                x, y = street.line[k + 1] - (ends[k] - done - length / 2.0) * np.array([c, s])
                reach = side * (street.half_width + front + scene.uniform(0.0, 2.0) + depth / 2.0)
                x, y = x - s * reach, y + c * reach
                z = float(scene.ground.height(x, y))
                spot = Spot(x, y, z, (side * c, side * s))
                if _plot_is_free(scene.ground, spot, length, depth, front):
                    _add_house(scene, spot, length, depth)
                open_ground = scene.uniform(0.0, 1.0) > density
                done += length + (scene.uniform(2.0, 9.0) if open_ground else 0.0)


def _plot_is_free(ground: Ground, spot: Spot, length: float, depth: float, front: float) -> bool:
    """True if a plot is in sight and clear of all roads; houses may run into each other."""
    along, left = np.meshgrid(np.linspace(-0.5, 0.5, 9) * length, np.linspace(-0.5, 0.5, 7) * depth)
    c, s = spot.heading
    x, y = spot.x + c * along - s * left, spot.y + s * along + c * left
    near = np.min(x * x + y * y) < 85.0**2
    return bool(near and ground.offsets(x, y)[0].min() > front - 0.8)


def _add_house(scene: Scene, spot: Spot, length: float, depth: float) -> None:
    """A house whose street side is at -depth / 2 of its plot, with bays, steps and garages."""
    tone, tall = scene.uniform(0.25, 0.65), scene.uniform(2.6, 16.0)
    length, half = length - 0.1, (tall + 2.0) / 2.0
    body = (length / 2.0, depth / 2.0, half)
    scene.add(spot, "box", (0.0, 0.0, half - 2.0), body, BUILDING, tone, glass="windows")
    for _ in range(int(scene.rng.integers(0, 3))):
        place = scene.uniform(-0.38, 0.38) * length
        bay = (scene.uniform(0.8, 1.8), scene.uniform(0.25, 0.6), half)
        scene.add(spot, "box", (place, -depth / 2.0, half - 2.0), bay, BUILDING, tone * 0.9)
    place = scene.uniform(-0.4, 0.4) * length
    scene.add(spot, "box", (place, -depth / 2.0, 0.1), (0.7, 0.6, 0.55), BUILDING, 0.4)


def _add_car(scene: Scene, spot: Spot) -> None:
    """A car or van: body, tapered glass cabin and wheels."""
    tone = scene.uniform(0.08, 0.8)
    van = scene.uniform(0.0, 1.0) < 0.25
    long, wide = scene.uniform(2.0, 2.4), scene.uniform(0.82, 0.94)
    body, roof = (1.1, 2.0) if van else (scene.uniform(0.8, 0.95), scene.uniform(1.4, 1.7))
    up = (body + 0.25) / 2.0
    scene.add(spot, "box", (0.0, 0.0, up), (long, wide, up - 0.25), VEHICLE, tone)
    cabin = (long * (0.85 if van else 0.62), wide * 0.96, (roof - body) / 2.0)
    back = -0.12 * long
    at = (back, 0.0, (roof + body) / 2.0)
    scene.add(spot, "cabin", at, cabin, VEHICLE, tone, glass="" if van else "whole")
    roof_half = (cabin[0] * 0.65, cabin[1] * 0.78, 0.04)
    scene.add(spot, "box", (back, 0.0, roof), roof_half, VEHICLE, tone)
    for along in (-0.62 * long, 0.62 * long):
        scene.add(spot, "box", (along, 0.0, 0.3), (0.28, wide - 0.03, 0.3), VEHICLE, 0.07)


def _add_truck(scene: Scene, spot: Spot) -> None:
    """A lorry: load box, separate driver's cab and wheels."""
    high = scene.uniform(2.8, 3.5)
    load = (2.6, 1.2, (high - 0.9) / 2.0)
    scene.add(spot, "box", (-0.9, 0.0, (high + 0.9) / 2.0), load, VEHICLE, scene.uniform(0.3, 0.8))
    scene.add(spot, "box", (2.7, 0.0, 0.95), (0.8, 1.1, 0.5), VEHICLE, scene.uniform(0.1, 0.7))
    scene.add(spot, "cabin", (2.6, 0.0, 2.0), (0.8, 1.1, 0.6), VEHICLE, 0.25, glass="whole")
    for along in (-2.4, 2.5):
        scene.add(spot, "box", (along, 0.0, 0.45), (0.45, 1.1, 0.45), VEHICLE, 0.06)


def _add_vehicles(scene: Scene, lot: bool) -> None:
    """Parked and driving vehicles; a car park (`lot`) also has rows of cars side by side."""
    width = scene.ground.streets[0].half_width
    for _ in range(int(scene.rng.integers(2, 5))):
        if spot := scene.spot(1.9 - width, (7.0, 55.0), (4.8, 2.1), scene.uniform(-0.1, 0.1)):
            _add_car(scene, spot)
    for _ in range(int(scene.rng.integers(1, 3))):
        if spot := scene.spot(-1.45, (9.0, 45.0), (7.2, 2.6)):
            _add_truck(scene, spot)
    for _ in range(int(scene.rng.integers(6, 14))):
        if spot := scene.spot(-1.15, (5.0, 45.0), (4.9, 1.9), scene.uniform(-0.06, 0.06)):
            _add_car(scene, spot)
    for _ in range(16 if lot else 0):
        row = -float(scene.rng.choice([3.0, 10.5]))
        turn = np.pi / 2.0 + scene.uniform(-0.06, 0.06)
        if spot := scene.spot(row, (5.0, 32.0), (4.8, 2.2), turn):
            _add_car(scene, spot)


def _add_tree(scene: Scene, spot: Spot) -> None:
    """A trunk (class pole) that carries a crown of porous lumps."""
    thick, base = scene.uniform(0.11, 0.28), scene.uniform(0.9, 2.4)
    scene.add(spot, "cylinder", (0.0, 0.0, 1.4), (thick, thick, 1.7), POLE, 0.3)
    spread = scene.uniform(0.9, 1.8)
    for _ in range(7):
        left, along = scene.rng.uniform(-spread, spread, 2)
        size = scene.uniform(0.7, 1.3)
        half = (size, size * scene.uniform(0.7, 1.2), scene.uniform(0.6, 1.3))
        up = base + half[2] + scene.uniform(0.0, 2.0)
        path = scene.uniform(0.5, 1.2)
        scene.add(spot, "ellipsoid", (along, left, up), half, VEGETATION, 0.45, path)


def _add_bush(scene: Scene, spot: Spot) -> None:
    """A bush of three porous lumps."""
    for _ in range(3):
        along, left = scene.rng.uniform(-0.45, 0.45, 2)
        half = (scene.uniform(0.35, 0.8), scene.uniform(0.35, 0.7), scene.uniform(0.4, 0.9))
        scene.add(spot, "ellipsoid", (along, left, half[2] - 0.1), half, VEGETATION, 0.5, 0.3)


def _add_vegetation(scene: Scene, verge: float) -> None:
    """Street trees, then bushes and hedges on the grass, or in the pavement where there is none."""
    pavement = scene.ground.pavement
    for _ in range(int(scene.rng.integers(7, 13))):
        kerb = pavement + 0.9 if verge > 1.8 else 0.9
        if spot := scene.spot(kerb, (6.0, 40.0), (0.9, 0.9)):
            _add_tree(scene, spot)
    for _ in range(int(scene.rng.integers(8, 15))):
        kerb = pavement + (verge / 2.0 if verge > 1.8 else -0.6)
        if spot := scene.spot(kerb, (6.0, 32.0), (1.3, 1.3)):
            _add_bush(scene, spot)
    for _ in range(int(scene.rng.integers(3, 7)) if verge > 1.8 else 0):
        long, high = scene.uniform(2.0, 6.0), scene.uniform(0.5, 0.9)
        if spot := scene.spot(pavement + 0.6, (7.0, 40.0), (long, 1.0)):
            half = (long / 2.0, 0.4, high)
            scene.add(spot, "box", (0.0, 0.0, high - 0.1), half, VEGETATION, 0.5, 0.15)


def _add_poles(scene: Scene) -> None:
    """Lamp posts, signs with a plate, and bollards."""
    for _ in range(int(scene.rng.integers(8, 13))):
        if spot := scene.spot(0.6, (5.0, 45.0), (0.5, 0.5)):
            thick, high = scene.uniform(0.06, 0.13), scene.uniform(2.5, 4.0)
            scene.add(spot, "cylinder", (0.0, 0.0, high - 0.2), (thick, thick, high), POLE, 0.45)
    for _ in range(int(scene.rng.integers(5, 9))):
        kerb, turn = scene.uniform(0.4, 0.8), scene.uniform(1.2, 1.9)
        if spot := scene.spot(kerb, (4.0, 28.0), (0.5, 0.5), turn):
            thick, up = scene.uniform(0.03, 0.05), scene.uniform(1.6, 2.2)
            scene.add(spot, "cylinder", (0.0, 0.0, 1.2), (thick, thick, 1.3), POLE, 0.5)
            plate = (0.02, scene.uniform(0.25, 0.4), scene.uniform(0.25, 0.4))
            scene.add(spot, "box", (0.06, 0.0, up), plate, POLE, 0.95)
    for _ in range(int(scene.rng.integers(3, 8))):
        if spot := scene.spot(0.35, (4.0, 20.0), (0.4, 0.4)):
            scene.add(spot, "cylinder", (0.0, 0.0, 0.4), (0.08, 0.08, 0.55), POLE, 0.35)


def _add_person(scene: Scene, spot: Spot) -> None:
    """A person of 1.5 to 1.9 m, standing or in mid-stride: legs, torso, arms and head."""
    tall = scene.uniform(1.5, 1.9) / 1.75
    stride = scene.uniform(0.0, 0.22)
    coat, trousers = scene.rng.uniform((0.12, 0.1), (0.7, 0.5))
    parts: list[tuple[Triple, Triple, float]] = [
        ((0.0, 0.0, 1.15), (0.15, 0.21, 0.38), coat),
        ((0.02, 0.0, 1.62), (0.1, 0.09, 0.13), 0.4),
    ]
    for side in (-1.0, 1.0):
        parts.append(((side * stride, side * 0.1, 0.42), (0.1, 0.085, 0.47), trousers))
        parts.append(((-side * stride, side * 0.25, 1.1), (0.065, 0.06, 0.33), coat))
    for at, half, tone in parts:
        centre = (at[0] * tall, at[1] * tall, at[2] * tall)
        size = (half[0] * tall, half[1] * tall, half[2] * tall)
        scene.add(spot, "ellipsoid", centre, size, PERSON, tone)


def _add_people(scene: Scene, lot: bool) -> None:
    """People on the pavements, crossing the road, and walking about a car park (`lot`)."""
    for _ in range(int(scene.rng.integers(20, 31))):
        walking = scene.uniform(0.0, 1.0) < (0.7 if lot else 0.22)
        kerb = scene.uniform(0.4, scene.ground.pavement - 0.2)
        if walking:
            kerb = -scene.uniform(0.5, 13.0 if lot else 4.5)
        if spot := scene.spot(kerb, (4.0, 26.0), (0.55, 0.55), scene.uniform(0.0, 2.0 * np.pi)):
            _add_person(scene, spot)


def make_scene(rng: np.random.Generator, layout: str) -> Scene:
    """Make a random street.

    Args:
        rng: Source of all randomness.
        layout: A key of `LAYOUTS`.

    Returns:
        The scene, with the sensor at x = y = 0 over a road.
    """
    scene = Scene(rng, _make_ground(rng, layout))
    verge = 0.3 if rng.random() < 0.5 else rng.uniform(2.0, 5.0)
    _add_buildings(scene, scene.ground.pavement + verge, rng.uniform(0.2, 0.85))
    _add_vehicles(scene, layout == "parking")
    _add_poles(scene)
    _add_vegetation(scene, verge)
    _add_people(scene, layout == "parking")
    return scene
