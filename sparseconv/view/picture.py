"""A scene drawn by Open3D: in a window, or off screen into pixels; needs the extra ``view``."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseconv.errors import SparseConvError
from sparseconv.view.page import TILT, TURN, look_at
from sparseconv.view.scene import GAP, Panel, Scene

WIDTH, HEIGHT = 1200, 700  # pixels of a panel
BACKGROUND = (0.902, 0.89, 0.863, 1.0)
FIELD = 48.0  # degrees
POINT_PIXELS = 3.0
DISTANCE = 2.4  # of the camera, in radii of the scene
LINEAR = 2.2  # lit surfaces take colours before the screen's gamma
CORNERS = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) - 0.5
SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
NEEDED = "libgl1 libegl1 libgomp1 libusb-1.0-0 libvulkan1 mesa-vulkan-drivers"


def pixels_of(scene: Scene) -> npt.NDArray[np.uint8]:
    """Return a picture ``[H, W, 3]`` of all panels side by side, drawn without a screen.

    Raises:
        SparseConvError: Open3D is not installed, or the system lacks what it draws by.
    """
    library = _library()
    try:
        renderer = library.visualization.rendering.OffscreenRenderer(WIDTH, HEIGHT)
    except RuntimeError as error:
        raise SparseConvError(
            f"Open3D cannot draw here ({error}): it needs the system packages {NEEDED}"
        ) from error
    rendering = library.visualization.rendering
    middle, radius = look_at(scene)
    back = np.array([np.cos(TILT) * np.cos(TURN), np.cos(TILT) * np.sin(TURN), np.sin(TILT)])
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit" if scene.edges is None else "defaultLit"
    material.point_size = POINT_PIXELS
    pictures = []
    for panel in scene.panels:
        renderer.scene.clear_geometry()
        renderer.scene.set_background(BACKGROUND)
        renderer.scene.add_geometry("cloud", _geometry(library, scene, panel, middle), material)
        renderer.scene.scene.set_sun_light([-0.4, 0.35, -0.85], [1, 1, 1], 75_000)
        renderer.scene.scene.enable_sun_light(True)
        renderer.setup_camera(
            FIELD, np.zeros(3), back * radius * DISTANCE, np.array([0.0, 0.0, 1.0])
        )
        pictures.append(np.asarray(renderer.render_to_image())[..., :3])
    return np.concatenate(pictures, axis=1)


def show(scene: Scene, title: str) -> None:
    """Open a window with the first panel, and wait until it is closed.

    Raises:
        SparseConvError: Open3D is not installed.
    """
    library = _library()
    middle, _ = look_at(scene)
    shown = [_geometry(library, scene, scene.panels[0], middle)]
    library.visualization.draw_geometries(shown, window_name=title)


def _geometry(library: Any, scene: Scene, panel: Panel, middle: Any) -> Any:
    vector = library.utility.Vector3dVector
    colors = panel.colors / 255.0
    if scene.edges is None:
        cloud = library.geometry.PointCloud(vector(scene.xyz - middle))
        cloud.colors = vector(colors)
        return cloud
    edges = GAP * np.array(scene.edges)
    # each side has corners of its own: shared ones would round the edges off
    sides = CORNERS[np.array(SIDES).ravel()] * edges
    places = (scene.xyz - middle)[:, None] + sides
    first = 4 * np.arange(len(scene.xyz) * len(SIDES))[:, None]
    triangles = np.concatenate([first + np.array(half) for half in ((0, 1, 2), (0, 2, 3))])
    mesh = library.geometry.TriangleMesh(
        vector(places.reshape(-1, 3)), library.utility.Vector3iVector(triangles)
    )
    mesh.vertex_colors = vector(np.repeat(colors**LINEAR, len(sides), axis=0))
    mesh.compute_vertex_normals()
    return mesh


def _library() -> Any:
    try:
        return importlib.import_module("open3d")
    except ModuleNotFoundError as error:
        raise SparseConvError(
            "a picture needs Open3D (pip install open3d-cpu); a page (.html) needs nothing"
        ) from error
    except (ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise SparseConvError(
            f"Open3D does not load here ({reason}): it needs the system packages {NEEDED}"
        ) from error
