"""One HTML page that holds a scene and draws it by WebGL, without a network."""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from typing import Any

import numpy as np

from sparseconv.view.colors import SCALE
from sparseconv.view.scene import GAP, Scene

MOST = 1_000_000  # points or voxels that a page holds: 15 to 30 MB
TURN, TILT = -2.2, 0.55  # radians: from where the camera looks first
NEAR_SHARE = 0.85  # of the points lie within the radius that is looked at
COMPACT, WHOLE = 1.4, 1.8  # a scene without far points is shown as a whole, with some room
POINT_SHARE = 0.004  # of the radius: diameter of a point


def page_of(scene: Scene, title: str = "") -> str:
    """Return a self-contained HTML page.

    Args:
        scene: What to show; of more than a million rows an even part, which the page says.
        title: Of the window.
    """
    note, rows = "", len(scene.xyz)
    if rows > MOST:
        chosen = np.linspace(0, rows - 1, MOST).astype(np.int64)
        scene, note = scene.keep(chosen), f"{MOST:,} of {rows:,} shown · "
    centre, radius = look_at(scene)
    place = (scene.xyz - centre).astype("<f4")
    panels = [
        {
            "name": panel.name,
            "colors": _text(panel.colors),
            "kinds": None if panel.kinds is None else _text(panel.kinds.astype("<i2")),
        }
        for panel in scene.panels
    ]
    data: dict[str, Any] = {
        "xyz": _text(place),
        "edges": None if scene.edges is None else [GAP * edge for edge in scene.edges],
        "panels": panels,
        "legend": [
            {"name": name, "color": color.tolist(), "count": count, "kind": max(kind, 0)}
            for name, color, count, kind in scene.legend
        ],
        "bar": None,
        "radius": radius,
        "size": POINT_SHARE * radius,
        "turn": TURN,
        "tilt": TILT,
        "note": note,
    }
    if scene.scale is not None:
        name, low, high = scene.scale
        data["bar"] = {
            "name": name,
            "colors": SCALE.tolist(),
            "ends": [f"{low:.4g}", f"{high:.4g}"],
        }
    text = json.dumps(data).replace("<", "\\u003c")  # a name must not end the script
    template = files("sparseconv.view").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("/*TITLE*/", html.escape(title)).replace("/*DATA*/", text)


def look_at(scene: Scene) -> tuple[Any, float]:
    """Return the middle of a scene, and the radius around it that is looked at.

    It holds most of a scan, whose far points are few, and all of an object.
    """
    middle = np.median(scene.xyz, axis=0)
    distance = np.linalg.norm(scene.xyz - middle, axis=1)
    radius = max(float(np.quantile(distance, NEAR_SHARE)), 1e-6)
    compact = float(distance.max()) < COMPACT * radius
    return middle, radius * (WHOLE if compact else 1.0)


def _text(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
