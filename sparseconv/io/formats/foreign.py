"""Formats that only their own libraries read: ``.e57`` by pye57, ``.vtk`` by vtk (extras)."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.errors import SparseConvError
from sparseconv.io.fields import Fields
from sparseconv.io.source import Source
from sparseconv.io.table import Table, array_columns

E57_NAMES = {
    "cartesianX": "x",
    "cartesianY": "y",
    "cartesianZ": "z",
    "colorRed": "red",
    "colorGreen": "green",
    "colorBlue": "blue",
    "rowIndex": "row",
    "columnIndex": "column",
    "timeStamp": "time",
}


def open_e57(source: Source) -> Table:
    """Read all scans of an ``.e57`` file, each moved to where its pose says; needs ``e57``.

    Raises:
        SparseConvError: pye57 is not installed.
        ValueError: The file is damaged.

    Source: ASTM E2807, "Standard Specification for 3D Imaging Data Exchange".
    """
    pye57 = _library(source, "pye57")
    with tempfile.TemporaryDirectory() as folder:
        file = pye57.E57(str(_on_disk(source, folder)))
        try:
            scans = [
                file.read_scan(number, ignore_missing_fields=True, colors=True, intensity=True)
                for number in range(file.scan_count)
            ]
        finally:
            file.close()
    if not scans:
        raise ValueError("it holds no scan")
    names = [name for name in scans[0] if all(name in scan for scan in scans)]
    arrays = {
        E57_NAMES.get(name, name): np.concatenate([np.asarray(scan[name]) for scan in scans])
        for name in names
    }
    header = {"format": "e57", "scans": len(scans)}
    left_out = tuple({name for scan in scans for name in scan} - set(names))
    header |= {"left_out": left_out} if left_out else {}
    return Table(len(arrays["x"]), array_columns(arrays), header, at_once=True)


def open_vtk(source: Source) -> Table:
    """Read the points of a legacy ``.vtk`` file with polygons, with what it says of each point.

    Raises:
        SparseConvError: vtk is not installed.
        ValueError: The file is damaged or holds other data.

    Source: Kitware, "VTK File Formats".
    """
    _library(source, "vtk")
    readers = importlib.import_module("vtkmodules.vtkIOLegacy")
    support = importlib.import_module("vtkmodules.util.numpy_support")
    logger = importlib.import_module("vtkmodules.vtkCommonCore")
    logger.vtkObject.GlobalWarningDisplayOff()
    reader = readers.vtkPolyDataReader()
    reader.ReadFromInputStringOn()
    data = source.buffer().tobytes()
    reader.SetBinaryInputString(data, len(data))
    reader.Update()
    cloud = reader.GetOutput()
    if cloud.GetPoints() is None or not data.lstrip().startswith(b"# vtk"):
        raise ValueError("it holds no polygon data with points")
    xyz = np.array(support.vtk_to_numpy(cloud.GetPoints().GetData()))
    arrays: Fields = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2]}
    values = cloud.GetPointData()
    for number in range(values.GetNumberOfArrays()):
        array = np.array(support.vtk_to_numpy(values.GetArray(number)))
        arrays[values.GetArrayName(number) or f"array_{number}"] = array
    return Table(len(xyz), array_columns(arrays), {"format": "vtk"}, at_once=True)


def _on_disk(source: Source, folder: str) -> Path:
    if source.path is not None:
        return source.path
    path = Path(folder) / "scan.e57"
    path.write_bytes(source.data or b"")
    return path


def _library(source: Source, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SparseConvError(
            f"{source.name!r} needs {name}, which is not installed: pip install {name}"
        ) from error
