"""Files as programs and people write them, and files that lie: the table of public kinds."""

from __future__ import annotations

import gzip
import io
import struct
import time
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FORMATS, fuzz, pointwise

import sparseconv as sc
from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io import numbers
from sparseconv.io.fields import held_by_float32
from sparseconv.io.numbers import _compiled, read_numbers

ROOT = Path(__file__).parents[2]
UTM = "665187.522077 5648349.895035 241.767693\n"


def read(tmp_path: Path, name: str, content: bytes | str, **options: Any) -> sc.io.Points:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return sc.io.read_points(path, **options)


def refused(tmp_path: Path, name: str, content: bytes | str, match: str, **options: Any) -> None:
    before = time.perf_counter()
    with pytest.raises(SparseConvError, match=match) as caught:
        read(tmp_path, name, content, **options)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - before < 5


# --- which columns ---------------------------------------------------------------------------


def test_colours_are_not_read_as_kitti(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-3, 3, (202, 3))
    for colors in (rng.integers(0, 256, (202, 3)), rng.random((202, 3))):
        table = np.column_stack([xyz, colors]).astype("<f4")
        points = read(tmp_path, "a.bin", table.tobytes())
        assert points.feature_names == ("red", "green", "blue")
        np.testing.assert_array_equal(points.features, table[:, 3:])
    doubtful = rng.uniform(0, 255, (202, 6)).astype("<f4").tobytes()
    refused(tmp_path, "a.bin", doubtful, "reads well as kitti and as scannet.*pass layout=")
    assert len(read(tmp_path, "a.bin", doubtful, layout="sunrgbd")) == 202
    names = ("x", "y", "z", "intensity", "_", "time")
    points = read(tmp_path, "a.bin", doubtful, columns=names)
    assert points.feature_names == ("intensity", "time")


def test_what_is_no_scan_is_no_kitti(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scan = np.column_stack([rng.normal(0, 20, (1004, 3)), rng.random(1004)]).astype("<f4")
    refused(tmp_path, "a.bin", scan.tobytes()[:-4], "content is no scan of nuscenes.*layout=")
    labels = rng.integers(0, 20, 4000)
    for kind in ("<i8", "<u4", "<u2", "u1"):
        refused(tmp_path, "a.bin", labels.astype(kind).tobytes(), "content is no scan")
    waymo = np.column_stack([scan, rng.random(1004) * 1.5, rng.uniform(2, 70, 1004)])
    points = read(tmp_path, "a.bin", waymo.astype("<f4").tobytes())
    assert points.feature_names == ("intensity", "elongation", "time")


def test_labels_come_by_the_names_that_people_use(tmp_path: Path) -> None:
    for name in ("Label", "class", "Classification", "scalar_Label", "semantic", "sem_label"):
        points = read(tmp_path, "a.csv", f"x,y,z,{name}\n1,2,3,4\n1,2,3,5\n")
        assert points.labels is not None and points.labels.tolist() == [4, 5]
    for suffix in ("ply", "pcd", "npz", "csv"):
        whole = sc.io.Points(np.ones((2, 3)), np.array([[4], [5]], "f4"), ("scalar_Class",))
        sc.io.write_points(tmp_path / f"a.{suffix}", whole)
        found = sc.io.read_points(tmp_path / f"a.{suffix}")
        assert found.labels is not None and found.labels.tolist() == [4, 5]
    points = read(tmp_path, "a.csv", "x,y,z,kind\n1,2,3,4\n", label="KIND")
    assert points.labels is not None and points.labels.tolist() == [4]
    with pytest.raises(SparseConvValueError, match=r"label: a\.csv has no column 'sort'"):
        read(tmp_path, "a.csv", "x,y,z,kind\n1,2,3,4\n", label="sort")
    with pytest.raises(SparseConvValueError, match=r"'kind' in a\.csv must hold whole int64"):
        read(tmp_path, "a.csv", "x,y,z,kind\n1,2,3,4.5\n", label="kind")


@pytest.mark.parametrize("word", ["1e30", "inf", "nan", "-1e19"])
def test_labels_never_become_others(tmp_path: Path, word: str) -> None:
    points = read(tmp_path, "a.csv", f"x,y,z,label\n1,2,3,{word}\n")
    assert points.labels is None
    np.testing.assert_array_equal(points["label"], np.array([float(word)], "f4"))
    np.savez(tmp_path / "a.npz", xyz=np.zeros((1, 3)), label=np.array([2**64 - 1], "u8"))
    points = sc.io.read_points(tmp_path / "a.npz")
    assert points.labels is None and points["label"].tolist() == [2**64 - 1]


def test_an_extra_dimension_leaves_the_classification_alone(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    for kind in ("float32", "int32"):
        cloud = laspy.LasData(laspy.LasHeader(point_format=7, version="1.4"))
        cloud.xyz = np.zeros((2, 3))
        cloud.classification = [2, 6]
        cloud.gps_time = [2e9 + 1e-3, 3.0]
        cloud.add_extra_dim(laspy.ExtraBytesParams(name="label", type=kind))
        cloud["label"] = [5, 9]
        cloud.write(tmp_path / "a.las")
        points = sc.io.read_points(tmp_path / "a.las")
        assert points.labels is not None and points.labels.tolist() == [2, 6]
        assert points["label"].tolist() == [2, 6] if "label" not in points.feature_names else True
        assert points.features[:, points.feature_names.index("label")].tolist() == [5, 9]
        assert points["gps_time"].tolist() == [2e9 + 1e-3, 3.0]
        sc.io.write_points(tmp_path / "b.las", points)
        again = sc.io.read_points(tmp_path / "b.las")
        assert again["gps_time"].tolist() == [2e9 + 1e-3, 3.0]
        assert again.header["point_format"] == 7
        np.testing.assert_array_equal(again.features, points.features)


# --- digits ----------------------------------------------------------------------------------


def test_coordinates_as_text_keep_their_digits(tmp_path: Path) -> None:
    expected = [[float(word) for word in UTM.split()]]
    head = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA ascii\n"
    assert read(tmp_path, "a.pcd", head + UTM).xyz.tolist() == expected
    head = "ply\nformat ascii 1.0\nelement vertex 1\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    assert read(tmp_path, "a.ply", head + UTM).xyz.tolist() == expected
    assert read(tmp_path, "a.ply", head + "0.001 21.5 -3.25\n").xyz.dtype == np.float32
    assert read(tmp_path, "a.off", "OFF\n1 0 0\n" + UTM).xyz.tolist() == expected


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1), st.integers(6, 9))
def test_what_a_float32_prints_is_held(values: list[float], digits: int) -> None:
    printed = [float(f"{np.float32(value):.{digits}g}") for value in values]
    near = np.array(printed, np.float32)
    usual = [v for v, n in zip(printed, near, strict=True) if 1e-12 < abs(v) < 1e20 and n]
    shortest = [v for v in usual if float(f"{np.float32(v):.{digits}g}") == v]
    assert held_by_float32(np.array(shortest))


def test_times_and_identifiers_keep_their_dtype(tmp_path: Path) -> None:
    xyz = np.zeros((2, 3), "f4")
    times = np.array([1.6e9 + 0.001, 1.6e9 + 0.002])
    huge = np.array([1e300, 1.0])
    ids = np.array([2**53 + 1, 5])
    np.savez(tmp_path / "a.npz", xyz=xyz, time=times, huge=huge, id=ids, small=np.arange(2))
    points = sc.io.read_points(tmp_path / "a.npz")
    assert points.feature_names == ("small",)
    for name, values in (("time", times), ("huge", huge), ("id", ids)):
        assert points[name].dtype == values.dtype
        np.testing.assert_array_equal(points[name], values)
    for suffix in ("npz", "csv", "pcd"):
        sc.io.write_points(tmp_path / f"b.{suffix}", points)
        again = sc.io.read_points(tmp_path / f"b.{suffix}")
        for name in ("time", "huge", "id"):
            np.testing.assert_array_equal(again[name], points[name])
    with pytest.raises(SparseConvValueError, match=r"a .ply holds no int64 \(id\), write .npz"):
        sc.io.write_points(tmp_path / "b.ply", points)
    head = "# LVIS_LFID SHOTNUMBER X Y Z\n"
    points = read(tmp_path, "a.txt", head + "1234567890123456789 2 3 4 5\n")
    assert points["LVIS_LFID"].tolist() == [1234567890123456789]


# --- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"x","y","z","i"\n"1","2","3","4"\n"5","6","7",""\n', ("i",)),
        ("x;y;z;i\n1,0;2,0;3,0;4,0\n5;6;7;\n", ("i",)),
        ("x\ty\tz\ti\n1,0\t2\t3\t4\n5\t6\t7\tNA\n", ("i",)),
        ("2\n1 2 3 4\n5 6 7 nan\n", ("intensity",)),
        ("1,0 2,0 3,0 4,0\n5,0 6,0 7,0 nan\n", ("intensity",)),
        ("Easting, Northing, Elevation, i\n1, 2, 3, 4\n5, 6, 7, \n", ("i",)),
        ("Easting [m];Northing [m];Height [m];i\n1;2;3;4\n5;6;7;\n", ("i",)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_text_of_people(tmp_path: Path, text: str, names: tuple[str, ...], encoding: str) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    points = read(tmp_path, "a.csv", mark + text.encode(encoding))
    assert points.xyz.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert points.feature_names == names
    np.testing.assert_array_equal(points.features[:, 0], np.array([4, np.nan], "f4"))


def test_words_are_kept(tmp_path: Path) -> None:
    text = "Point,Northing,Easting,Elevation,Code\nA1,2,1,3,TREE\nA2,5,4,6,CURB\n"
    points = read(tmp_path, "a.csv", text)
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points["Code"].tolist() == ["TREE", "CURB"]
    sc.io.write_points(tmp_path / "b.csv", points)
    assert sc.io.read_points(tmp_path / "b.csv")["Point"].tolist() == ["A1", "A2"]
    with pytest.raises(SparseConvValueError, match=r"'Point' is text, a \.ply holds numbers"):
        sc.io.write_points(tmp_path / "b.ply", points)


def test_a_comment_with_other_names_is_not_ignored(tmp_path: Path) -> None:
    text = "# ID T LON LAT H\n7 8 9 10 11\n"
    refused(tmp_path, "a.txt", text, "the fields ID, T, LON, LAT, H, must have x, y and z")
    points = read(tmp_path, "a.txt", text, columns=("id", "_", "x", "y", "z"))
    assert points.xyz.tolist() == [[9, 10, 11]]
    assert points.feature_names == ("id",)


def test_the_index_of_a_data_frame(tmp_path: Path) -> None:
    points = read(tmp_path, "a.csv", ",x,y,z\n0,1,2,3\n1,4,5,6\n")
    assert points["index"].tolist() == [0, 1]
    sc.io.write_points(tmp_path / "a.ply", points)


def test_text_with_its_number_of_rows(tmp_path: Path) -> None:
    text = "2\n1 2 3 -4 10 20 30\n5 6 7 -8 40 50 60\n"
    points = read(tmp_path, "a.pts", text)
    assert points.feature_names == ("intensity", "red", "green", "blue")
    refused(tmp_path, "a.pts", "3" + text[1:], "promises 3 rows, 2 found")
    refused(tmp_path, "a.asc", "ncols 4\nnrows 2\n1 2 3 4\n", "grid of heights")


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e6, 1e6).map(lambda value: f"{value:.6f}"),
    st.integers(-(10**22), 10**22).map(str),
    st.sampled_from(["nan", "1e-320", "4.9e-324", "1e400", ".5", "5.", "+1", "1E+05", "-0"]),
    st.tuples(st.integers(0, 10**20), st.integers(-330, 310)).map(lambda p: f"{p[0]}e{p[1]}"),
)


@given(st.lists(number, min_size=1, max_size=30), st.sampled_from([None, ",", ";"]))
def test_the_compiled_loop_reads_as_python_does(words: list[str], separator: str | None) -> None:
    text = (separator or " ").join(words) + "\n"
    data = np.frombuffer(text.encode(), np.uint8)
    expected = np.array([[float(word) for word in words]])
    for found in (
        _compiled(data, len(words), separator, False, None),
        read_numbers(data, len(words), separator),
    ):
        assert found is not None
        assert found.tobytes() == expected.tobytes()


plain = st.floats(-1e5, 1e5).map(lambda value: f"{value:.3f}")
ends = st.sampled_from(["\n", "\r\n", "\n\n", " \n", "  # a comment\n", "\n# a comment\n"])


@given(
    st.lists(st.tuples(plain | number, plain, ends), min_size=1, max_size=60),
    st.sampled_from([None, ",", ";"]),
    st.integers(0, 40) | st.none(),
)
def test_lines_of_all_kinds_on_several_threads(
    rows: list[tuple[str, str, str]], separator: str | None, most: int | None
) -> None:
    text = "".join(f"{one}{separator or ' '}{two}{end}" for one, two, end in rows)
    data = np.frombuffer(text.encode(), np.uint8)
    expected = np.array([[float(one), float(two)] for one, two, _ in rows])[:most]
    with mock.patch.object(numbers, "COMPILED", 64):  # bytes of a thread
        found = _compiled(data, 2, separator, False, most)
    assert found is not None and found.tobytes() == expected.tobytes()


# --- other kinds -----------------------------------------------------------------------------


def test_arrays_of_other_programs(tmp_path: Path) -> None:
    kind = [("x", "<f4"), ("y", ">f8"), ("z", "<i2"), ("intensity", "<u2"), ("rgb", "u1", (3,))]
    np.save(tmp_path / "a.npy", np.ones(3, kind))
    points = sc.io.read_points(tmp_path / "a.npy")
    assert points.feature_names == ("intensity", "rgb_0", "rgb_1", "rgb_2")
    xyz, pose = np.arange(9.0).reshape(3, 3), np.eye(4)
    for key in ("coord", "arr_0", "XYZ", "pos"):
        np.savez(tmp_path / "a.npz", **{key: xyz}, pose=pose, name="street", n=np.float32(1))
        points = sc.io.read_points(tmp_path / "a.npz")
        np.testing.assert_array_equal(points.xyz, xyz)
        assert set(points.header["left_out"]) == {"pose", "name", "n"}
    np.savez(tmp_path / "a.npz", x=xyz[0], y=xyz[1], z=xyz[2], segment=np.arange(3))
    points = sc.io.read_points(tmp_path / "a.npz")
    np.testing.assert_array_equal(points.xyz, xyz.T)
    assert points.labels is not None and points.labels.tolist() == [0, 1, 2]
    np.savez(tmp_path / "a.npz", a=xyz, b=np.column_stack([xyz, xyz[:, :1]]))
    assert sc.io.read_points(tmp_path / "a.npz", key="b").feature_names[0] == "intensity"
    with pytest.raises(SparseConvValueError, match=r"key: 'a.npz' holds \['a', 'b'\], got 'c'"):
        sc.io.read_points(tmp_path / "a.npz", key="c")


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_lists_before_and_within_the_vertices(tmp_path: Path, order: str) -> None:
    head = f"ply\nformat {order} 1.0\nelement face 2\nproperty list uchar int index\n"
    head += "element vertex 2\nproperty float x\nproperty list uchar short near\nproperty float y\n"
    head += "property float z\nproperty list uchar uchar pair\nend_header\n"
    if order == "ascii":
        body = b"3 0 1 2\n4 0 1 2 3\n1 2 5 6 2 3 2 8 9\n4 0 5 6 2 10 11\n"
    else:
        mark = "<" if "little" in order else ">"
        body = struct.pack(f"{mark}B3iB4i", 3, 0, 1, 2, 4, 0, 1, 2, 3)
        body += struct.pack(f"{mark}fB2h2fB2B", 1, 2, 5, 6, 2, 3, 2, 8, 9)
        body += struct.pack(f"{mark}fB2fB2B", 4, 0, 5, 6, 2, 10, 11)
    points = read(tmp_path, "a.ply", head.encode() + body)
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.feature_names == ("pair_0", "pair_1")
    assert points.features.tolist() == [[8, 9], [10, 11]]
    assert points.header["left_out"] == ("near",)


def test_old_headers_of_pcd(tmp_path: Path) -> None:
    head = "COLUMNS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n1 2 3\n"
    assert read(tmp_path, "a.pcd", head).xyz.tolist() == [[1, 2, 3]]
    refused(tmp_path, "a.pcd", "SIZE 4\nTYPE F\nDATA ascii\n", "its header has no line FIELDS")


@pytest.mark.parametrize("rows", [1, 2000])
def test_laszip_without_chunks(tmp_path: Path, rows: int) -> None:
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    cloud.xyz = np.random.default_rng(0).normal(0, 50, (rows, 3))
    cloud.intensity = np.arange(rows) % 999
    out = io.BytesIO()
    cloud.write(out, do_compress=True, laz_backend=laspy.LazBackend.Lazrs)
    points = read(tmp_path, "a.laz", pointwise(out.getvalue()))
    np.testing.assert_allclose(points.xyz, cloud.xyz, atol=1e-9)
    np.testing.assert_array_equal(points["intensity"], cloud.intensity)


def test_meshes_and_packed_files(tmp_path: Path) -> None:
    rows = "0 0 0\n1 0 0\n0 1 0\n"
    for head in ("OFF\n3 1 0\n", "OFF3 1 0\n", "OFF\n# made\n3 1 0\n"):
        assert len(read(tmp_path, "a.off", head + rows + "3 0 1 2\n")) == 3
    vertices = "".join(f"v {row} 0.5 0.25 1\n" for row in rows.splitlines())
    points = read(tmp_path, "a.obj", "# o\n" + vertices + "vn 0 0 1\nf 1 2 3\n")
    assert points.feature_names == ("red", "green", "blue")
    packed = gzip.compress(("x y z\n" + rows).encode())
    assert len(read(tmp_path, "a.xyz.gz", packed)) == 3
    refused(tmp_path, "a.xyz.gz", packed[:-9], "too early")
    refused(tmp_path, "a.xyz.gz", gzip.compress(bytes(200_000_000)), "claims to hold")
    assert len(read(tmp_path, "a.xyzn", "0 0 0 0 0 1\n")) == 1


def test_libraries_for_formats_of_others(tmp_path: Path) -> None:
    refused(tmp_path, "a.e57", b"ASTM-E57", "needs pye57|cannot be read as .e57")
    refused(tmp_path, "a.vtk", b"# vtk", "needs vtk|cannot be read as .vtk")


def test_e57_there_and_back(tmp_path: Path) -> None:
    pye57 = pytest.importorskip("pye57")
    file = pye57.E57(str(tmp_path / "a.e57"), mode="w")
    names = ("cartesianX", "cartesianY", "cartesianZ", "intensity")
    file.write_scan_raw({name: np.arange(4.0) + at for at, name in enumerate(names)})
    file.close()
    points = sc.io.read_points(tmp_path / "a.e57")
    assert points.xyz.tolist() == [[i, i + 1, i + 2] for i in range(4)]
    assert points["intensity"].tolist() == [3, 4, 5, 6]


def test_vtk_polygons(tmp_path: Path) -> None:
    pytest.importorskip("vtk")
    text = (
        "# vtk DataFile Version 3.0\nmade\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3\n4 5 6\n"
    )
    text += "POINT_DATA 2\nSCALARS intensity float 1\nLOOKUP_TABLE default\n7\n8\n"
    points = read(tmp_path, "a.vtk", text)
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points["intensity"].tolist() == [7, 8]


def test_semantickitti_labels_beside_and_given(tmp_path: Path) -> None:
    scan = np.array([[1, 2, 3, 0.5], [4, 5, 6, 0.25]], "<f4")
    for folder in ("velodyne", "labels"):
        (tmp_path / folder).mkdir()
    scan.tofile(tmp_path / "velodyne" / "000000.bin")
    np.array([3 << 16 | 40, 10], "<u4").tofile(tmp_path / "labels" / "000000.label")
    path = tmp_path / "velodyne" / "000000.bin"
    points = sc.io.read_points(path)
    assert points.labels is not None and points.labels.tolist() == [40, 10]
    assert points["instance"].tolist() == [3, 0]
    assert points.feature_names == ("intensity",)
    assert sc.io.read_points(path, label=False).labels is None
    np.array([7], "u1").tofile(tmp_path / "b_lidarseg.bin")
    with pytest.raises(SparseConvValueError, match=r"has 1 labels, '000000\.bin' 2 points"):
        sc.io.read_points(path, label=tmp_path / "b_lidarseg.bin")
    np.save(tmp_path / "c.npy", np.array([8, 9], "u1"))
    given = sc.io.read_points(path, label=tmp_path / "c.npy")
    assert given.labels is not None and given.labels.tolist() == [8, 9]


# --- files that lie --------------------------------------------------------------------------


def test_promises_cost_nothing(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 1000000000\nproperty float x\nproperty float y\n"
    refused(tmp_path, "a.ply", head + "property float z\nend_header\n1 2 3\n", "promised")
    lists = head.replace("vertex", "face").replace("float x", "list uchar int i")
    lists = lists.replace("ascii", "binary_little_endian") + "end_header\n"
    refused(tmp_path, "a.ply", lists, "promised")
    head = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 1000000000\nHEIGHT 1\nDATA "
    for encoding in ("ascii\n1 2 3\n", "binary\n", "binary_compressed\n\1\1\1\1\1\1\1\1"):
        refused(tmp_path, "a.pcd", head + encoding, "promised|missing")
    out = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}
    np.lib.format.write_array_header_1_0(out, shape)  # type: ignore[no-untyped-call]
    refused(tmp_path, "a.npy", out.getvalue() + bytes(24), "bytes promised, 24 bytes found")
    refused(tmp_path, "a.off", "OFF\n500000000 0 0\n1 2 3\n", "promised")


def test_bombs(tmp_path: Path) -> None:
    out = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10_000_000, 3)}
    for name in ("xyz.npy", "other.npy"):
        out = io.BytesIO()
        archive = zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED)
        with archive, archive.open(name, "w") as member:
            np.lib.format.write_array_header_1_0(member, shape)  # type: ignore[no-untyped-call]
            for _ in range(120):
                member.write(bytes(1_000_000))
        match = "claims to hold" if name == "xyz.npy" else "must hold one of"
        refused(tmp_path, "a.npz", out.getvalue(), match)


def test_laz_claims(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    for kind, version in ((7, "1.4"), (3, "1.2")):
        cloud = laspy.LasData(laspy.LasHeader(point_format=kind, version=version))
        cloud.xyz = np.random.default_rng(0).normal(0, 50, (2000, 3))
        out = io.BytesIO()
        cloud.write(out, do_compress=True, laz_backend=laspy.LazBackend.Lazrs)
        data = bytearray(out.getvalue())
        for claim in (len(data) * 999, 10**6, 60_000):
            place, form = (247, "<Q") if version == "1.4" else (107, "<I")
            struct.pack_into(form, data, place, claim)
            refused(tmp_path, "a.laz", bytes(data), "claims to hold|fewer points")
        refused(tmp_path, "a.laz", out.getvalue()[:-20], "cannot be read")


@pytest.mark.parametrize("suffix", ["ply", "pcd", "las", "npz", "npy", "bin", "csv"])
def test_pointers_are_named(tmp_path: Path, suffix: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    refused(tmp_path, f"a.{suffix}", pointer, "is a Git LFS pointer.*git lfs pull")


@pytest.mark.slow
def test_mutations_of_every_format() -> None:
    """200 here; `make fuzz-files` reads 10,000 of each format."""
    pytest.importorskip("laspy")
    counts, wrong = fuzz(list(FORMATS), 200)
    assert wrong == []
    assert counts.total() == 200 * len(FORMATS)
    assert counts["read"] > 200
