"""Point clouds as text, .ply, .pcd and .las: there and back, other programs' files, damage."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseconv.errors import SparseConvError, SparseConvTypeError, SparseConvValueError
from sparseconv.io import Points, read_points, write_points
from sparseconv.io.formats import lzf

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMED = (".ply", ".pcd", ".xyz", ".txt", ".csv", ".npz")  # hold names, labels and every digit
AWKWARD = [0.0, -0.0, 1e-40, 1 / 3, 637177.98, -849393.95, 1e30, np.nan, np.inf]


def here(name: str) -> Path:
    """Return a sample file, or skip the test where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the sample {name} is not here")
    return path


def cloud(rows: int, dtype: Any = np.float32, labels: bool = True, seed: int = 0) -> Points:
    """Return random points with values that formats lose if they can."""
    rng = np.random.default_rng(seed)
    xyz = (rng.normal(0, 20, (rows, 3)) + 1 / 3).astype(dtype)
    features = rng.normal(0, 1, (rows, 2)).astype(np.float32)
    features.flat[: len(AWKWARD)] = AWKWARD[: features.size]
    if rows > 2:
        xyz[2] = np.nan
    classes = rng.integers(-3, 300, rows) if labels else None
    return Points(xyz, features, ("intensity", "height_1"), classes)


def check(found: Points, points: Points, xyz: Any = None) -> None:
    """Compare bit for bit, NaN as NaN; text gives float64 coordinates."""
    assert found.xyz.dtype == (xyz or points.xyz.dtype)
    np.testing.assert_array_equal(found.xyz.astype(points.xyz.dtype), points.xyz)
    np.testing.assert_array_equal(found.features, points.features)
    assert found.features.dtype == np.float32
    assert found.feature_names == points.feature_names
    if points.labels is None:
        assert found.labels is None
    else:
        assert found.labels is not None
        assert found.labels.dtype == np.int64
        np.testing.assert_array_equal(found.labels, points.labels)
    for array in (found.xyz, found.features):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype.isnative


@pytest.mark.parametrize("suffix", NAMED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 2, 50])
@pytest.mark.parametrize("labels", [True, False])
def test_there_and_back(tmp_path: Path, suffix: str, dtype: Any, rows: int, labels: bool) -> None:
    points = cloud(rows, dtype, labels)
    write_points(tmp_path / f"A{suffix.upper()}", points)
    text = suffix in (".xyz", ".txt", ".csv")
    check(read_points(tmp_path / f"A{suffix.upper()}"), points, np.float64 if text else None)


@pytest.mark.parametrize("suffix", [*NAMED, ".npy"])
def test_there_and_back_without_features(tmp_path: Path, suffix: str) -> None:
    points = Points(cloud(4).xyz, np.zeros((4, 0), np.float32))
    write_points(str(tmp_path / f"a{suffix}"), points)
    found = read_points(tmp_path / f"a{suffix}")
    assert found.features.shape == (4, 0)
    np.testing.assert_array_equal(found.xyz.astype(np.float32), points.xyz)


@pytest.mark.parametrize("names", [("intensity",), ("feature_0", "feature_1")])
def test_npy_there_and_back(tmp_path: Path, names: tuple[str, ...]) -> None:
    points = Points(cloud(9).xyz, cloud(9).features[:, : len(names)], names)
    write_points(tmp_path / "a.npy", points)
    check(read_points(tmp_path / "a.npy"), points)
    with pytest.raises(
        SparseConvValueError, match=r"labels: a .npy does not hold them, write .npz"
    ):
        write_points(tmp_path / "a.npy", cloud(3))


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("rows", [0, 1, 60])
def test_las_there_and_back(tmp_path: Path, suffix: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    xyz = rng.normal([637177.98, 849393.95, 411.19], 50, (rows, 3))
    features = rng.normal(0, 1, (rows, 3)).astype(np.float32)
    features[:, 0] = rng.integers(0, 2**16, rows)
    features[:, 1] = rng.integers(0, 16, rows)
    names = ("intensity", "return_number", "height")
    points = Points(xyz, features, names, rng.integers(0, 256, rows))
    write_points(tmp_path / f"a{suffix}", points)
    found = read_points(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found.xyz, xyz, rtol=0, atol=1e-6)
    for column, name in enumerate(names):
        values = found.features[:, found.feature_names.index(name)]
        np.testing.assert_array_equal(values, features[:, column])
    np.testing.assert_array_equal(found.labels, points.labels)


def test_las_rounds_no_more_than_its_integers_need(tmp_path: Path) -> None:
    """A kilometre in steps of a micrometre, the earth's width in steps of a centimetre."""
    for extent, step in ((1_000.0, 1e-6), (12_742_000.0, 1e-2)):
        xyz = np.random.default_rng(1).random((50, 3)) * extent
        write_points(tmp_path / "a.las", Points(xyz, np.zeros((50, 0), np.float32)))
        error = np.abs(read_points(tmp_path / "a.las").xyz - xyz)
        assert error.max() <= step * 0.51


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (cloud(5, labels=False), "xyz: .las holds finite positions only"),
        (
            Points(np.zeros((2, 3)), np.full((2, 1), 0.5, np.float32), ("intensity",)),
            "intensity: a .las holds whole numbers from 0 to 65535 here; rename",
        ),
        (
            Points(np.zeros((2, 3)), np.full((2, 1), 16, np.float32), ("return_number",)),
            "return_number: a .las holds whole numbers from 0 to 15 here",
        ),
        (
            Points(np.zeros((1, 3)), np.zeros((1, 0), np.float32), (), np.array([-1])),
            "classification: a .las holds whole numbers from 0 to 255 here",
        ),
    ],
)
def test_las_refuses_what_it_cannot_hold(tmp_path: Path, points: Points, message: str) -> None:
    with pytest.raises(SparseConvValueError, match=message):
        write_points(tmp_path / "a.las", points)


@pytest.mark.parametrize("name", ["xyz", "label", "file", "allow_pickle"])
def test_npz_refuses_names_that_mean_something_else(tmp_path: Path, name: str) -> None:
    points = Points(np.zeros((2, 3)), np.ones((2, 1), np.float32), (name,))
    with pytest.raises(SparseConvValueError, match=f"feature_names: '{name}' is taken"):
        write_points(tmp_path / "a.npz", points)


@pytest.mark.parametrize(("suffix", "missing"), [(".las", "laspy"), (".laz", "lazrs")])
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    message = rf"'a{suffix}' needs {missing}, which is not installed: pip install 'laspy\[lazrs"
    with pytest.raises(SparseConvError, match=message):
        read_points(path)
    with pytest.raises(SparseConvError, match=message):
        write_points(path, cloud(1))


@pytest.mark.parametrize("name", ["", "two words", "a,b", 'a"', "x", "Y", "label", "#a", "a\nb"])
@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".csv", ".xyz", ".las"])
def test_names_that_cannot_stand_in_a_header(tmp_path: Path, suffix: str, name: str) -> None:
    points = Points(np.zeros((1, 3)), np.zeros((1, 1), np.float32), (name,))
    with pytest.raises(SparseConvValueError, match="feature_names: "):
        write_points(tmp_path / f"a{suffix}", points)
    assert not (tmp_path / f"a{suffix}").exists()


@pytest.mark.parametrize(
    ("suffix", "name"), [(".pcd", "rgb"), (".pcd", "_"), (".npz", "xyz"), (".npz", "labels")]
)
def test_names_that_would_be_read_as_something_else(tmp_path: Path, suffix: str, name: str) -> None:
    points = Points(np.zeros((1, 3)), np.zeros((1, 1), np.float32), (name,))
    with pytest.raises(SparseConvValueError, match="feature_names: "):
        write_points(tmp_path / f"a{suffix}", points)


def test_what_is_written_is_checked(tmp_path: Path) -> None:
    with pytest.raises(SparseConvValueError, match=r"suffix '.foo', written are .npy, .npz, .ply"):
        write_points(tmp_path / "a.foo", cloud(1))
    with pytest.raises(SparseConvTypeError, match="points: must be Points, got ndarray"):
        write_points(tmp_path / "a.ply", np.zeros((2, 3)))  # type: ignore[arg-type]
    large = Points(np.zeros((1, 3)), np.zeros((1, 0), np.float32), (), np.array([2**31]))
    with pytest.raises(SparseConvValueError, match=r"labels: a .ply holds int32"):
        write_points(tmp_path / "a.ply", large)


PLY_BODY = [(0.5, -1, 2.25, 7, 300), (1, 2, 3, 255, -4)]


def ply(kind: str, before: str = "", behind: str = "", newline: str = "\n") -> bytes:
    """Return a .ply file of the two rows above."""
    header = (
        f"ply\nformat {kind} 1.0\ncomment made for a test\n{before}element vertex 2\n"
        f"property double x\nproperty float y\nproperty float32 z\nproperty uchar red\n"
        f"property short label\n{behind}end_header\n"
    ).replace("\n", newline)
    if kind == "ascii":
        rows = "".join(" ".join(str(value) for value in row) + newline for row in PLY_BODY)
        return (header + rows).encode()
    order = "<" if kind == "binary_little_endian" else ">"
    return header.encode() + b"".join(struct.pack(f"{order}dffBh", *row) for row in PLY_BODY)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ply_of_other_programs(tmp_path: Path, kind: str, newline: str) -> None:
    faces = "element face 1\nproperty list uchar int vertex_indices\n"
    body = b"3 0 1 0\n" if kind == "ascii" else bytes(13)
    (tmp_path / "a.ply").write_bytes(ply(kind, behind=faces, newline=newline) + body)
    points = read_points(tmp_path / "a.ply")
    assert points.xyz.dtype == np.float64
    assert points.xyz.tolist() == [list(row[:3]) for row in PLY_BODY]
    assert points.features.tolist() == [[7], [255]]
    assert points.feature_names == ("red",)
    assert points.labels is not None
    assert points.labels.tolist() == [300, -4]


def test_ply_with_a_plain_element_before_its_vertices(tmp_path: Path) -> None:
    data = ply("ascii", before="element camera 1\nproperty float fov\n")
    head, body = data.split(b"end_header\n")
    (tmp_path / "a.ply").write_bytes(head + b"end_header\n90\n" + body)
    assert read_points(tmp_path / "a.ply").xyz.tolist() == [list(row[:3]) for row in PLY_BODY]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"plx\n", "the first line must be ply"),
        (ply("ascii").replace(b"double x", b"double u"), "has the fields u, y, z.* must have x, y"),
        (ply("ascii").replace(b"ascii", b"morse"), "must name one of the formats ascii, binary_li"),
        (ply("ascii").replace(b"vertex", b"point"), "has no element vertex"),
        (ply("ascii").replace(b"vertex 2", b"vertex 3"), "3 rows promised, 2 found"),
        (ply("binary_big_endian").replace(b"vertex 2", b"vertex 9"), "9 rows of 19 bytes promised"),
        (ply("ascii").replace(b"comment", b"comet"), "unknown word 'comet'"),
    ],
)
def test_ply_that_cannot_be_read(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(SparseConvValueError, match=rf"^'?a\.ply.*{message}"):
        read_points(tmp_path / "a.ply")


def compressed(data: bytes) -> bytes:
    """Compress with LZF, greedily: the longest match of the last 8192 bytes."""
    out, literals, place = bytearray(), bytearray(), 0

    def flush() -> None:
        for start in range(0, len(literals), 32):
            part = literals[start : start + 32]
            out.extend(bytes([len(part) - 1]) + part)
        literals.clear()

    while place < len(data):
        best, length = 0, 2
        for start in range(max(0, place - 8192), place):
            size = 0
            while size < 264 and place + size < len(data):
                if data[start + size] != data[place + size]:
                    break
                size += 1
            if size > length:
                best, length = place - start - 1, size
        if length < 3:
            literals.append(data[place])
            place += 1
            continue
        flush()
        high = best >> 8
        coded = length - 2
        out.extend([coded << 5 | high] if coded < 7 else [7 << 5 | high, coded - 7])
        out.append(best & 255)
        place += length
    flush()
    return bytes(out)


@settings(max_examples=100)
@given(st.lists(st.sampled_from([b"a", b"abc", b"\0" * 9, bytes(300), b"xyzw"]) | st.binary()))
def test_lzf_there_and_back(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert lzf.decompress(compressed(data), len(data)) == data


FIELDS = "VERSION .7\nFIELDS x _ y z rgb normal _ label\nSIZE 4 1 4 4 4 4 2 4\n"
FIELDS += "TYPE F U F F F F I U\nCOUNT 1 3 1 1 1 2 1 1\nWIDTH 2\nHEIGHT 1\n"
ROWS = [
    (0.5, -1.5, np.nan, 0xFF102030, 1.0, 2.0, 7),
    (1e-3, 4.0, 5.0, 0x00405060, 3.0, 4.0, 70_000),
]


def pcd(encoding: str) -> bytes:
    """Return the two rows with padding and packed colours."""
    header = f"# made for a test\n{FIELDS}VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA {encoding}\n"
    color = [struct.unpack("<f", struct.pack("<I", row[3]))[0] for row in ROWS]
    if encoding == "ascii":
        return (
            header.encode()
            + "".join(
                f"{x} 0 0 0 {y} {z} {color[i]!r} {u} {v} 0 {label}\n"
                for i, (x, y, z, _, u, v, label) in enumerate(ROWS)
            ).encode()
        )
    if encoding == "binary":
        return header.encode() + b"".join(
            struct.pack("<f3xffIffhI", *row[:6], -1, row[6]) for row in ROWS
        )
    x, y, z, packed, u, v, label = (np.array(column) for column in zip(*ROWS, strict=True))
    normal = np.stack([u, v], axis=1)
    columns = [x.astype("<f4"), np.zeros(6, "u1"), y.astype("<f4"), z.astype("<f4")]
    columns += [packed.astype("<u4"), normal.astype("<f4"), np.zeros(2, "<i2"), label.astype("<u4")]
    data = b"".join(column.tobytes() for column in columns)
    small = compressed(data)
    return header.encode() + struct.pack("<II", len(small), len(data)) + small


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_other_programs(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.pcd").write_bytes(pcd(encoding))
    points = read_points(tmp_path / "a.pcd")
    assert points.xyz.dtype == np.float32
    np.testing.assert_array_equal(
        points.xyz, np.array([(x, y, z) for x, y, z, *_ in ROWS], np.float32)
    )
    assert points.feature_names == ("red", "green", "blue", "normal_0", "normal_1")
    assert points.features.tolist() == [[16, 32, 48, 1, 2], [64, 80, 96, 3, 4]]
    assert points.labels is not None
    assert points.labels.tolist() == [7, 70_000]


def test_pcd_with_alpha_and_without_counts(tmp_path: Path) -> None:
    header = b"FIELDS x y z rgba\nSIZE 8 8 8 4\nTYPE F F F U\nWIDTH 1\nHEIGHT 2\nDATA binary\n"
    row = struct.pack("<dddI", 0.1, 0.2, 0.3, 0x80010203)
    (tmp_path / "a.pcd").write_bytes(header + 2 * row)
    points = read_points(tmp_path / "a.pcd")
    assert points.feature_names == ("red", "green", "blue", "alpha")
    assert points.features.tolist() == [[1, 2, 3, 128]] * 2
    assert points.xyz.tolist() == [[0.1, 0.2, 0.3]] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no line DATA"),
        (pcd("binary")[:-1], "2 rows of .* bytes promised"),
        (pcd("binary_compressed")[:-1], "compressed part"),
        (pcd("binary").replace(b"DATA binary", b"DATA base64"), "DATA is 'base64', must be ascii"),
        (pcd("binary").replace(b"FIELDS x", b"FIELDS u"), "has the fields u, y, z"),
    ],
)
def test_pcd_that_cannot_be_read(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.pcd").write_bytes(data)
    with pytest.raises(SparseConvValueError, match=message):
        read_points(tmp_path / "a.pcd")


TABLE = [[0.5, -1.0, 2e5, 7.0], [1.0, 2.0, np.nan, 0.25]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0.5 -1 2e5 7\n1 2 nan .25\n", ("intensity",)),
        ("  0.5\t-1   2e5  7  \r\n\r\n1 2 NaN .25", ("intensity",)),
        ("0.5,-1,2e5,7\n1,2,nan,.25\n", ("intensity",)),
        ("0.5; -1; 2e5; 7\n1; 2; nan; .25\n", ("intensity",)),
        ("# a comment\n0.5 -1 2e5 7\n# another\n1 2 nan .25 # of this row\n", ("intensity",)),
        ("//X Y Z Reflectance\n0.5 -1 2e5 7\n1 2 nan .25\n", ("Reflectance",)),
        ("\ufeffX,Y,Z,Time\n0.5,-1,2e5,7\n1,2,nan,.25\n", ("Time",)),
        ('"t"; "z" ;"y";"x"\n7;2e5;-1;0.5\n.25;nan;2;1\n', ("t",)),
        ("# x y z t\n# written by a program\n0.5 -1 2e5 7\n1 2 nan .25\n", ("t",)),
    ],
)
@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv"])
def test_text_of_other_programs(
    tmp_path: Path, suffix: str, text: str, names: tuple[str, ...]
) -> None:
    (tmp_path / f"a{suffix}").write_text(text, encoding="utf-8", newline="")
    points = read_points(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.column_stack([points.xyz, points.features]), TABLE)
    assert points.feature_names == names
    assert points.xyz.dtype == np.float64


def test_text_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y,z,label\n1,2,3,4\n1,2,3,-5\n")
    points = read_points(tmp_path / "a.csv")
    assert points.labels is not None
    assert points.labels.tolist() == [4, -5]
    (tmp_path / "a.csv").write_text("x,y,z,label\n1,2,3,4.5\n1,2,3,-5\n")
    assert read_points(tmp_path / "a.csv").feature_names == ("label",)


@pytest.mark.parametrize("text", ["", "\n\n", "# x y z\n", "x,y,z\n"])
def test_text_without_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    points = read_points(tmp_path / "a.txt")
    assert points.xyz.shape == (0, 3)
    assert points.features.shape == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n", r"shape \(1, 2\), must be \(N, 3 \+ F\)"),
        ("1 2 3\n1 2\n", "columns"),
        ("1,2,3\n1,a,3\n", "could not convert"),
        ("x y z\n1 2 3 4\n", "3 names for 4 columns"),
        ("x y z t t\n1 2 3 4 5\n", "must differ"),
        ("lat lon alt\n1 2 3\n", "has the fields lat, lon, alt, must have x, y and z once"),
        ("\0\1\2\3", "fields|convert|columns|shape"),
    ],
)
def test_text_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(SparseConvValueError, match=rf"a\.txt.*{message}"):
        read_points(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".csv", ".las", ".laz"])
def test_damage_is_reported_with_the_files_name(tmp_path: Path, suffix: str) -> None:
    points = Points(np.ones((3, 3)), np.ones((3, 1), np.float32), ("a",), np.ones(3, np.int64))
    write_points(tmp_path / f"whole{suffix}", points)
    data, path = (tmp_path / f"whole{suffix}").read_bytes(), tmp_path / f"damaged{suffix}"
    for place in range(0, len(data), 7 if suffix in (".las", ".laz") else 1):
        for bad in (data[:place], data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :]):
            path.write_bytes(bad)
            try:
                read_points(path)
            except SparseConvError as error:
                assert "damaged" in str(error)
                assert "\n" not in str(error)


def test_hdl32_returns_without_echo_are_kept() -> None:
    for name, rows, zeros in (
        ("hdl32_target.ply", 69_088, 5_032),
        ("hdl32_source.ply", 69_792, 5_107),
    ):
        points = read_points(here(name))
        assert len(points) == rows
        assert points.feature_names == ("scalar_intensity",)
        assert points.xyz.dtype == np.float32
        assert (points.xyz == 0).all(axis=1).sum() == zeros
        assert points.xyz.min() < 0


def test_airborne_coordinates_keep_their_digits() -> None:
    points = read_points(here("autzen_trim.laz"))
    assert len(points) == 110_000
    assert points.xyz.dtype == np.float64
    hundredths = points.xyz * 100
    np.testing.assert_allclose(hundredths, np.round(hundredths), rtol=0, atol=1e-5)
    assert not np.array_equal(points.xyz.astype(np.float32), points.xyz)
    assert points.labels is not None
    assert set(points.labels.tolist()) == {1, 2}
    assert {"intensity", "return_number", "red", "green", "blue"} <= set(points.feature_names)
    assert "gps_time" not in points.feature_names


def test_organised_frame_keeps_its_nan_rows() -> None:
    points = read_points(here("pcl_office1.pcd"))
    assert len(points) == 640 * 480
    assert np.isnan(points.xyz).any(axis=1).sum() == 52_744
    assert points.feature_names == ("red", "green", "blue")
    assert points.features.min() >= 0
    assert points.features.max() <= 255
    # neighbouring pixels of a photograph look alike; wrongly unpacked ones do not
    grey = points.features.mean(axis=1).reshape(480, 640)
    assert np.abs(np.diff(grey, axis=1)).mean() < grey.std() / 5


def test_fragment_has_unit_normals() -> None:
    points = read_points(here("open3d_fragment.pcd"))
    assert len(points) == 113_662
    names = ("red", "green", "blue", "normal_x", "normal_y", "normal_z", "curvature")
    assert points.feature_names == names
    np.testing.assert_allclose(np.linalg.norm(points.features[:, 3:6], axis=1), 1, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["hdl32_target.ply", "autzen_trim.laz", "open3d_fragment.pcd", "kitti_000008.bin"]
)
@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".npz", ".csv"])
def test_real_scans_there_and_back(tmp_path: Path, name: str, suffix: str) -> None:
    whole = read_points(here(name))
    some = slice(None, None, 50)
    labels = None if whole.labels is None else whole.labels[some]
    points = Points(whole.xyz[some], whole.features[some], whole.feature_names, labels)
    write_points(tmp_path / f"a{suffix}", points)
    check(read_points(tmp_path / f"a{suffix}"), points, np.float64 if suffix == ".csv" else None)
