"""`Points` as a value, headers alone, and reading by parts: the same rows as at once."""

from __future__ import annotations

import io
import struct
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sparseconv as sc
from sparseconv.errors import SparseConvTypeError, SparseConvValueError
from sparseconv.io import Points, iter_points, join_points, read_points, scan, write_points

SUFFIXES = ("npz", "npy", "ply", "pcd", "las", "laz", "csv", "xyz", "bin")


def cloud(rows: int = 300) -> Points:
    rng = np.random.default_rng(rows)
    xyz = np.round(rng.normal(0, 20, (rows, 3)), 3).astype(np.float32)
    intensity = rng.integers(0, 2, (rows, 1)).astype(np.float32)
    return Points(xyz, intensity, ("intensity",), rng.integers(0, 9, rows))


def written(folder: Path, suffix: str, points: Points) -> Path:
    path = folder / f"a.{suffix}"
    if suffix in ("npy", "bin"):
        points = Points(points.xyz, points.features, points.feature_names)
    write_points(path, points)
    return path


def same(found: Points, expected: Points) -> None:
    np.testing.assert_array_equal(found.xyz, expected.xyz)
    np.testing.assert_array_equal(found.features, expected.features)
    assert found.xyz.dtype == expected.xyz.dtype
    assert found.names == expected.names
    for name in expected.names:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name])


def test_rows_and_columns() -> None:
    points = cloud()
    mask = points["x"] > 0
    for key in (mask, torch.from_numpy(mask), np.flatnonzero(mask), mask.tolist()):
        kept = points[key]
        np.testing.assert_array_equal(kept.xyz, points.xyz[mask])
        assert kept.labels is not None and points.labels is not None
        np.testing.assert_array_equal(kept.labels, points.labels[mask])
    assert len(points[2:7]) == 5 and len(points[-1]) == 1
    assert "intensity" in points and "ring" not in points
    assert points.names == ("x", "y", "z", "intensity", "label")
    assert sum(1 for _ in points) == len(points)
    with pytest.raises(SparseConvValueError, match="no column 'ring', the names are x, y, z, int"):
        points["ring"]
    with pytest.raises(SparseConvValueError, match="mask has 5 entries, there are 300 points"):
        points[np.ones(5, bool)]
    with pytest.raises(SparseConvTypeError, match=r"takes a name, a slice, a bool mask"):
        points[np.ones(5)]
    with pytest.raises(SparseConvValueError, match="extra: 't' has shape"):
        Points(points.xyz, points.features, ("a",), extra={"t": np.zeros(3)})
    assert repr(points) == "Points(300 points; xyz float32; features intensity; labels)"


def test_finite_points_can_be_voxelized() -> None:
    points = cloud()
    points.xyz[3], points.features[5] = np.nan, np.inf
    assert len(points.finite()) == 298
    x, _ = sc.voxelize(points.finite(), 0.2)
    assert x.channels == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [7, 300, 1000])
def test_parts_are_the_whole(tmp_path: Path, suffix: str, rows: int) -> None:
    path = written(tmp_path, suffix, cloud())
    whole = read_points(path)
    parts = list(iter_points(path, rows=rows))
    assert max(map(len, parts)) <= rows
    same(join_points(parts), whole)
    box = ((-10, -5, -20), (15, 5, 20))
    inside = ((whole.xyz >= box[0]) & (whole.xyz < box[1])).all(axis=1)
    assert 0 < inside.sum() < len(whole)
    same(join_points(list(iter_points(path, rows=rows, bounds=box))), whole[inside])
    same(read_points(path, bounds=box), whole[inside])
    same(read_points(path, every=7), whole[::7])
    same(read_points(path, limit=20), whole[:20])
    same(read_points(path, every=7, bounds=box, limit=4), whole[::7][inside[::7]][:4])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_alone(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, cloud())
    found = scan(path)
    assert found.rows == 300
    assert {"x", "y", "z", "intensity"} <= set(found.columns)
    assert found.bounds is None or suffix in ("las", "laz")
    same(read_points(path.read_bytes()), read_points(path))
    with path.open("rb") as file:
        same(read_points(file), read_points(path))
    same(read_points(io.BytesIO(path.read_bytes())), read_points(path))


def test_columns_are_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, "ply", cloud())
    assert read_points(path, fields=("label",)).names == ("x", "y", "z", "label")
    assert read_points(path, fields=()).names == ("x", "y", "z")
    for options, match in (
        ({"fields": ("ring",)}, "fields: 'a.ply' has no column 'ring', the names are x, y, z, int"),
        ({"fields": "intensity"}, "fields: must be a tuple of names"),
        ({"limit": -1}, "limit: must be 0 or more, got -1"),
        ({"every": 0}, "every: must be 1 or more, got 0"),
        ({"bounds": (1, 2, 3)}, "bounds: must be .low, high. with 3 numbers each"),
        ({"columns": ("x", "y", "z")}, r"columns=.* is for .bin, .npy, .npz, .xyz"),
        ({"key": "a"}, "key='a' is for .npz files"),
    ):
        with pytest.raises(SparseConvValueError, match=match):
            read_points(path, **options)  # type: ignore[arg-type]
    with pytest.raises(SparseConvTypeError, match=r"every: must be a whole number, got 1\.5"):
        read_points(path, every=1.5)  # type: ignore[arg-type]
    with pytest.raises(SparseConvTypeError, match="path: must be a path, bytes or an open file"):
        read_points(3)  # type: ignore[arg-type]
    with pytest.raises(SparseConvValueError, match=r"levels: .a\.ply. is no COPC file"):
        list(iter_points(path, levels=1))


def test_headers_are_kept(tmp_path: Path) -> None:
    head = "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nWIDTH 2\nHEIGHT 3\n"
    head += "VIEWPOINT 1 2 3 1 0 0 0\nPOINTS 6\nDATA binary\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + struct.pack("<3fI", 1, 2, 3, 7) * 6)
    points = read_points(tmp_path / "a.pcd")
    assert points.header["viewpoint"] == (1, 2, 3, 1, 0, 0, 0)
    assert (points.header["width"], points.header["height"]) == (2, 3)
    assert points.units == {"red": "0..255", "green": "0..255", "blue": "0..255"}
    assert "width" not in points[:4].header
    write_points(tmp_path / "b.pcd", points)
    assert read_points(tmp_path / "b.pcd").header["viewpoint"] == (1, 2, 3, 1, 0, 0, 0)
    assert read_points(tmp_path / "b.pcd").header["height"] == 3
    text = "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 1\nproperty float x\n"
    (tmp_path / "a.ply").write_text(
        text + "property float y\nproperty float z\nend_header\n1 2 3\n"
    )
    write_points(tmp_path / "b.ply", read_points(tmp_path / "a.ply"))
    assert read_points(tmp_path / "b.ply").header["comments"] == ("made by hand",)


def test_las_is_written_as_it_was_read(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    las = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    las.header.scales, las.header.offsets = np.full(3, 0.01), np.array([6e5, 8e5, 0])
    las.xyz = np.random.default_rng(0).uniform([6e5, 8e5, 0], [6.1e5, 8.1e5, 90], (50, 3))
    las.classification, las.gps_time = np.arange(50) % 30, np.arange(50) * 1e-6 + 2e5
    las.write(tmp_path / "a.laz")
    points, las = read_points(tmp_path / "a.laz"), laspy.read(tmp_path / "a.laz")
    assert points.header["scales"] == (0.01,) * 3
    write_points(tmp_path / "b.las", points)
    again = laspy.read(tmp_path / "b.las")
    assert again.header.point_format.id == 3
    for name in {*las.point_format.dimension_names, "x", "y", "z"} - {"X", "Y", "Z"}:
        np.testing.assert_array_equal(np.asarray(again[name]), np.asarray(las[name]))
    moved = Points(points.xyz + 1 / 3, points.features, points.feature_names, header=points.header)
    write_points(tmp_path / "c.las", moved)
    assert np.abs(read_points(tmp_path / "c.las").xyz - moved.xyz).max() < 1e-5


def copc(path: Path, points: Any) -> None:
    """Write a cloud-optimised file of one level, then a second one of the eight octants."""
    laspy = pytest.importorskip("laspy")
    lazrs = pytest.importorskip("lazrs")
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.scales, header.offsets = np.full(3, 0.001), np.zeros(3)
    las = laspy.LasData(header)
    las.xyz = points.xyz
    octant = (points.xyz >= 0) @ np.array([4, 2, 1])
    octant[: len(points) // 4] = -1  # the first level has a part of everything
    order = np.argsort(octant, kind="stable")
    raw = las.points.array[order]
    counts = np.bincount(octant + 1, minlength=9)
    vlr = lazrs.LazVlr.new_for_compression(6, 0, True)
    info = struct.pack("<4d", 0, 0, 0, 100) + bytes(128)
    records = [(b"copc", 1, info), (b"laszip encoded", 22204, bytes(vlr.record_data()))]
    head = bytearray(375)
    start = 375 + sum(54 + len(record) for _, _, record in records)
    template = io.BytesIO()
    las.write(template)
    head[:] = template.getvalue()[:375]
    struct.pack_into("<II", head, 96, start, len(records))
    head[104] |= 0x80
    body, sizes, places = io.BytesIO(), [], []
    for part in np.split(raw, np.cumsum(counts)[:-1]):
        chunk = io.BytesIO()
        packer = lazrs.LasZipCompressor(chunk, vlr)
        packer.compress_many(np.frombuffer(part.tobytes(), np.uint8))
        packer.done()
        data = chunk.getvalue()
        (table,) = struct.unpack_from("<q", data)
        places.append(start + 8 + body.tell())
        sizes.append((len(part), table - 8))
        body.write(data[8:table])
    table = io.BytesIO()
    lazrs.write_chunk_table(table, sizes, vlr)
    hierarchy = start + 8 + len(body.getvalue()) + len(table.getvalue())
    keys = [(0, 0, 0, 0)] + [(1, n >> 2, n >> 1 & 1, n & 1) for n in range(8)]
    entries = b"".join(
        struct.pack("<4iQii", *key, place, size[1], size[0])
        for key, place, size in zip(keys, places, sizes, strict=True)
    )
    info = info[:40] + struct.pack("<QQ", hierarchy, len(entries)) + bytes(104)
    records[0] = (b"copc", 1, info)
    with path.open("wb") as file:
        file.write(head)
        for user, number, record in records:
            file.write(struct.pack("<H16sHH32s", 0, user, number, len(record), b"") + record)
        file.write(struct.pack("<q", start + 8 + len(body.getvalue())))
        file.write(body.getvalue() + table.getvalue() + entries)


def test_boxes_and_levels_of_a_cloud_optimised_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.copc.laz"
    copc(path, cloud(400))
    whole = read_points(path)
    assert len(whole) == 400
    coarse = join_points(list(iter_points(path, levels=1)))
    same(coarse, whole[:100])
    box = ((1, 1, 1), (90, 90, 90))
    inside = ((whole.xyz >= box[0]) & (whole.xyz < box[1])).all(axis=1)
    parts = list(iter_points(path, bounds=box))
    assert len(parts) == 2  # of nine nodes
    same(join_points(parts), whole[inside])
    same(read_points(path, bounds=box), whole[inside])
    same(join_points(list(iter_points(path))), whole)


def test_a_bin_is_written_in_its_layout(tmp_path: Path) -> None:
    points = cloud()
    with pytest.raises(SparseConvValueError, match=r"a .bin holds features only"):
        write_points(tmp_path / "a.bin", points)
    bad = Points(points.xyz, points.features, ("height",))
    with pytest.raises(SparseConvValueError, match=r"a .bin has the columns of kitti"):
        write_points(tmp_path / "a.bin", bad)


@pytest.mark.parametrize("target", ("npz", "npy", "ply", "pcd", "las", "laz", "csv", "pts", "bin"))
@pytest.mark.parametrize("rows", [7, 299, 300])
def test_what_is_written_by_parts_is_what_is_written_at_once(
    tmp_path: Path, target: str, rows: int
) -> None:
    points = cloud()
    if target in ("npy", "bin", "pts"):
        points = Points(points.xyz, points.features, points.feature_names)
    write_points(tmp_path / "a.npz", points)
    write_points(tmp_path / f"b.{target}", points)
    low, high = points.xyz.min(axis=0), points.xyz.max(axis=0)
    parts = iter_points(tmp_path / "a.npz", rows=rows)
    write_points(tmp_path / f"c.{target}", parts, bounds=(low, high))
    same(read_points(tmp_path / f"c.{target}"), read_points(tmp_path / f"b.{target}"))
    assert not list(tmp_path.glob("*.part"))


def test_few_parts_lie_in_memory(tmp_path: Path) -> None:
    """Two at first, to see whether there is a second one."""
    references: list[weakref.ref[Points]] = []
    most: list[int] = []

    def parts() -> Any:
        for _ in range(6):
            most.append(sum(reference() is not None for reference in references))
            part = cloud()
            references.append(weakref.ref(part))
            yield part
            del part

    for suffix in ("ply", "pcd", "csv", "las"):
        write_points(tmp_path / f"a.{suffix}", parts(), bounds=((-99,) * 3, (99,) * 3))
        assert len(read_points(tmp_path / f"a.{suffix}")) == 1800
        assert max(most) <= 3, suffix


def test_parts_that_do_not_fit_leave_no_file(tmp_path: Path) -> None:
    points = cloud()
    other = Points(points.xyz, points.features, ("ring",), points.labels)
    for suffix in ("ply", "pcd", "csv"):
        with pytest.raises(SparseConvValueError, match="parts: must have the same columns"):
            write_points(tmp_path / f"a.{suffix}", [points, other])
    with pytest.raises(SparseConvValueError, match="parts: must be one cloud or more, got none"):
        write_points(tmp_path / "a.ply", [])
    with pytest.raises(SparseConvTypeError, match="points: must be Points, got parts int"):
        write_points(tmp_path / "a.ply", [3])  # type: ignore[list-item]
    far = Points(points.xyz + 1e9, points.features, points.feature_names, points.labels)
    with pytest.raises(SparseConvValueError, match="a point lies far outside of bounds"):
        write_points(tmp_path / "a.las", [points, far])
    assert list(tmp_path.iterdir()) == []


def test_each_so_many_th_row_and_a_limit_by_parts(tmp_path: Path) -> None:
    path = written(tmp_path, "ply", cloud())
    for every, limit in ((1, 100), (3, None), (7, 11), (400, None), (2, 0)):
        parts = list(iter_points(path, rows=64, every=every, limit=limit))
        same(join_points(parts), read_points(path, every=every, limit=limit))


def test_part_of_an_organised_cloud_is_not_organised(tmp_path: Path) -> None:
    points = cloud(12)
    organised = Points(
        points.xyz, points.features, ("intensity",), None, {}, {"width": 4, "height": 3}
    )
    write_points(tmp_path / "a.pcd", organised)
    assert read_points(tmp_path / "a.pcd").header["width"] == 4
    assert "width" not in read_points(tmp_path / "a.pcd", every=2).header
    write_points(tmp_path / "b.pcd", iter_points(tmp_path / "a.pcd", rows=5))
    assert len(read_points(tmp_path / "b.pcd")) == 12
    write_points(tmp_path / "b.pcd", iter_points(tmp_path / "a.pcd"))
    assert read_points(tmp_path / "b.pcd").header["height"] == 3
