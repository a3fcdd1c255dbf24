"""Every format there and back, the doubtful sizes, the damaged files, and one real scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.io import Points, read_points

SCAN = Path(__file__).parents[3] / "shared" / "data" / "kitti_000008.bin"


def scan(rows: int, columns: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Rows of a believable scan: coordinates in metres, reflectance, and for 5 columns a ring."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 20, (rows, columns))
    if columns == 4:
        table[:, 3] = rng.random(rows)
    if columns == 5:
        table[:, 3] = rng.integers(0, 256, rows)
        table[:, 4] = rng.integers(0, 32, rows)
    return table.astype(np.float32)


def check(points: Points, table: np.ndarray[Any, Any], names: tuple[str, ...]) -> None:
    """Compare with the table that was written, types and memory layout included."""
    np.testing.assert_array_equal(points.xyz, table[:, :3])
    np.testing.assert_array_equal(points.features, table[:, 3:].astype(np.float32))
    assert points.feature_names == names
    assert len(points) == len(table)
    assert points.features.dtype == np.float32
    for array in (points.xyz, points.features):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype.isnative


KITTI = ("intensity",)
NUSCENES = ("intensity", "ring")


@pytest.mark.parametrize(("columns", "names"), [(4, KITTI), (5, NUSCENES)])
@pytest.mark.parametrize("rows", [1, 7, 16, 20, 40, 80])
def test_bin_tells_kitti_from_nuscenes(
    tmp_path: Path, rows: int, columns: int, names: tuple[str, ...]
) -> None:
    table = scan(rows, columns)
    table.tofile(tmp_path / "scan.bin")
    points = read_points(tmp_path / "scan.bin")
    check(points, table, names)
    assert points.xyz.dtype == np.float32
    assert points.labels is None


@pytest.mark.parametrize(("columns", "names"), [(4, KITTI), (5, NUSCENES)])
def test_bin_layout_settles_it(tmp_path: Path, columns: int, names: tuple[str, ...]) -> None:
    """320 bytes are 20 KITTI rows and 16 nuScenes rows."""
    table = np.ones((320 // 4 // columns, columns), np.float32)
    table.tofile(tmp_path / "ones.bin")
    with pytest.raises(SparseConvValueError, match=r"320 bytes.*pass layout="):
        read_points(tmp_path / "ones.bin")
    layout = "kitti" if columns == 4 else "nuscenes"
    check(read_points(tmp_path / "ones.bin", layout=layout), table, names)  # type: ignore[arg-type]


def test_bin_layout_wins_over_content_and_name(tmp_path: Path) -> None:
    table = scan(20, 4)
    table.tofile(tmp_path / "scan.pcd.bin")
    forced = read_points(tmp_path / "scan.pcd.bin", layout="kitti")
    check(forced, table, KITTI)
    by_name = read_points(tmp_path / "scan.pcd.bin")
    check(by_name, table.reshape(16, 5), NUSCENES)


def test_bin_keeps_nan_rows_and_decides_without_them(tmp_path: Path) -> None:
    for columns, names in ((4, KITTI), (5, NUSCENES)):
        table = scan(80, columns)
        table[3] = np.nan
        table.tofile(tmp_path / "scan.bin")
        check(read_points(tmp_path / "scan.bin"), table, names)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.bin", 15, r"'a.bin' has 15 bytes, must be a multiple of 16 \(kitti\) or 20 \(nusc"),
        ("a.pcd.bin", 16, r"16 bytes, must be a multiple of 20 \(nuscenes\)$"),
    ],
)
def test_bin_size_that_fits_nothing(tmp_path: Path, name: str, size: int, message: str) -> None:
    (tmp_path / name).write_bytes(bytes(size))
    with pytest.raises(SparseConvValueError, match=message):
        read_points(tmp_path / name)


def test_bin_size_that_does_not_fit_the_layout(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(20))
    with pytest.raises(
        SparseConvValueError, match=r"20 bytes, must be a multiple of 16 \(kitti\)$"
    ):
        read_points(tmp_path / "a.bin", layout="kitti")


@pytest.mark.parametrize(("name", "columns"), [("a.bin", 1), ("a.pcd.bin", 2)])
def test_bin_empty(tmp_path: Path, name: str, columns: int) -> None:
    (tmp_path / name).write_bytes(b"")
    points = read_points(tmp_path / name)
    assert len(points) == 0
    assert points.xyz.shape == (0, 3)
    assert points.features.shape == (0, columns)


def test_layout_is_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    with pytest.raises(SparseConvValueError, match=r"layout='kitti' is for .bin files"):
        read_points(tmp_path / "a.npy", layout="kitti")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(SparseConvValueError, match="layout is 'velodyne', must be one of"):
        read_points(tmp_path / "a.bin", layout="velodyne")  # type: ignore[arg-type]


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SparseConvValueError, match=r"suffix '.foo', known are .bin, .npy, .npz"):
        read_points(tmp_path / "a.foo")


@pytest.mark.parametrize("suffix", [".bin", ".npy", ".npz"])
def test_missing_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path / f"missing{suffix}")


def test_path_may_be_text_and_suffix_in_capitals(tmp_path: Path) -> None:
    table = scan(3, 4)
    table.tofile(tmp_path / "SCAN.BIN")
    check(read_points(str(tmp_path / "SCAN.BIN")), table, KITTI)


@pytest.mark.parametrize(
    ("columns", "names"),
    [(3, ()), (4, ("intensity",)), (6, ("feature_0", "feature_1", "feature_2"))],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, columns: int, names: tuple[str, ...], order: Any) -> None:
    table = scan(9, columns)
    table[2] = np.nan
    np.save(tmp_path / "a.npy", np.asarray(table, order=order))
    check(read_points(tmp_path / "a.npy"), table, names)


@pytest.mark.parametrize(
    ("stored", "xyz"),
    [
        ("<f2", "f4"),
        (">f4", "f4"),
        (">f8", "f8"),
        ("f8", "f8"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("i4", "f8"),
        ("i8", "f8"),
    ],
)
def test_npy_keeps_every_digit_of_the_coordinates(tmp_path: Path, stored: str, xyz: str) -> None:
    largest = {"f2": 2048, "f4": 2**24, "f8": 2**53, "u1": 255, "i2": 2**15 - 1, "i4": 2**31 - 1}
    value = largest.get(stored.lstrip("<>"), 2**53)
    np.save(tmp_path / "a.npy", np.full((2, 3), value, dtype=stored))
    points = read_points(tmp_path / "a.npy")
    assert points.xyz.dtype == np.dtype(xyz)
    assert points.xyz.tolist() == [[value] * 3] * 2


def test_npy_without_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 5)))
    points = read_points(tmp_path / "a.npy")
    assert len(points) == 0
    assert points.features.shape == (0, 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2)), r"'a.npy' has shape \(4, 2\), must be \(N, 3 \+ F\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((2, 3, 3)), r"shape \(2, 3, 3\)"),
        (np.float32(1), r"shape \(\)"),
        (np.zeros((2, 3), complex), "dtype complex128, must be integer or floating"),
        (np.full((2, 3), "a"), "dtype <U1"),
        (np.zeros((2, 3), bool), "dtype bool"),
        (np.zeros(2, [("x", "f4"), ("y", "f4"), ("h", "f4")]), "the fields x, y, h, must have"),
    ],
)
def test_npy_of_another_kind(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SparseConvValueError, match=message):
        read_points(tmp_path / "a.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 3), None), allow_pickle=True)
    with pytest.raises(SparseConvValueError, match=r"'a.npy' cannot be read as .npy: .*pickle"):
        read_points(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", xyz=np.full((2, 3), None))
    with pytest.raises(SparseConvValueError, match=r"'a.npz' cannot be read as .npz: .*pickle"):
        read_points(tmp_path / "a.npz")


def test_one_kind_under_the_name_of_the_other(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(SparseConvValueError, match=r"is a single array, name it .npy"):
        read_points(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", xyz=np.zeros((2, 3)))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(SparseConvValueError, match=r"is an archive, name it .npz"):
        read_points(tmp_path / "b.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damage_is_reported_with_the_files_name(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npy":
        np.save(whole, scan(4, 4))
    else:
        np.savez_compressed(whole, xyz=scan(4, 3))
    data, path = whole.read_bytes(), tmp_path / f"damaged{suffix}"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(SparseConvValueError, match="damaged"):
            read_points(path)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        try:
            read_points(path)
        except SparseConvError as error:
            assert "damaged" in str(error)


def test_npz_with_features_and_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    xyz = rng.normal(0, 1e6, (6, 3))
    xyz[1] = np.nan
    height, color = rng.random(6), rng.integers(0, 256, (6, 3), np.uint8)
    one, ground = rng.random((6, 1)), rng.random(6) < 0.5
    label = np.arange(6, dtype=np.uint32)
    np.savez(tmp_path / "a.npz", height=height, xyz=xyz, rgb=color, label=label, one=one, g=ground)
    points = read_points(tmp_path / "a.npz")
    assert points.feature_names == ("height", "rgb_0", "rgb_1", "rgb_2", "one", "g")
    features = np.column_stack([height, color, one, ground])
    check(points, np.column_stack([xyz, features]), points.feature_names)
    assert points.xyz.dtype == np.float64
    assert points.labels is not None
    assert points.labels.dtype == np.int64
    assert points.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_npz_with_points(tmp_path: Path) -> None:
    table = scan(5, 4)
    np.savez(tmp_path / "a.npz", points=table, labels=np.zeros((5, 1), int), label=np.ones(5))
    points = read_points(tmp_path / "a.npz")
    check(points, np.column_stack([table, np.ones(5, np.float32)]), ("intensity", "label"))
    assert points.labels is not None
    assert points.labels.shape == (5,)


def test_npz_without_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xyz=np.zeros((0, 3)), t=np.zeros(0), rgb=np.zeros((0, 2)))
    points = read_points(tmp_path / "a.npz")
    assert points.features.shape == (0, 3)


ROWS = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"b": ROWS, "a": ROWS}, r"holds the keys \['a', 'b'\], must hold one of \('xyz', 'po"),
        ({"xyz": ROWS, "points": ROWS}, r"keys \['points', 'xyz'\], must hold one of"),
        ({"xyz": ROWS[:, :2]}, r"'xyz' in 'a.npz' has shape \(4, 2\), must be \(N, 3\)"),
        ({"xyz": np.zeros((4, 5))}, r"'xyz' in 'a.npz' has shape \(4, 5\), must be \(N, 3\)"),
        ({"xyz": np.zeros(3)}, r"shape \(3,\)"),
        ({"points": ROWS[:, :2]}, r"'points' in 'a.npz' has shape \(4, 2\)"),
        ({"xyz": ROWS, "t": np.zeros(5)}, "'t' in 'a.npz' has 5 rows, the positions have 4"),
        ({"xyz": ROWS, "label": np.zeros(3, int)}, "'label' in 'a.npz' has 3 rows, the pos.* 4"),
        ({"xyz": ROWS, "t": np.zeros((4, 2, 2))}, r"shape \(4, 2, 2\), must be \(N,\) or"),
        ({"xyz": ROWS, "label": np.zeros((4, 2), int)}, r"shape \(4, 2\), labels must be \(N,\)"),
        ({"xyz": ROWS, "label": np.zeros(4, int), "labels": np.zeros(4, int)}, "keep one"),
        ({"points": np.zeros((4, 4)), "intensity": np.zeros(4)}, "each name may come once"),
    ],
)
def test_npz_of_another_kind(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SparseConvValueError, match=message):
        read_points(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 2), np.float32), ROWS, ("a", "b", "c")), r"xyz has shape \(4, 2\)"),
        ((ROWS, ROWS, ("a", "b")), r"features has shape \(4, 3\), must be \(4, 2\)"),
        ((ROWS, ROWS[:3], ("a", "b", "c")), r"features has shape \(3, 3\), must be \(4, 3\)"),
        ((ROWS, ROWS, ("a", "b", "a")), "feature_names is .* each name may come once"),
        ((ROWS, ROWS, ("a", "b", "c"), np.zeros(3, int)), r"labels has shape \(3,\), must be \(4,"),
    ],
)
def test_points_belong_together(arguments: Any, message: str) -> None:
    with pytest.raises(SparseConvValueError, match=message):
        Points(*arguments)


@pytest.mark.skipif(not SCAN.exists(), reason="the sample scan shared/data is not here")
def test_a_real_scan() -> None:
    points = read_points(SCAN)
    assert len(points) == 17_238
    assert points.feature_names == ("intensity",)
    assert points.features.min() >= 0
    assert points.features.max() <= 1
    assert np.isfinite(points.xyz).all()
    assert np.abs(points.xyz).max() < 200


@pytest.mark.skipif(not SCAN.exists(), reason="the sample scan shared/data is not here")
def test_a_real_scan_of_doubtful_size_is_told_by_its_content(tmp_path: Path) -> None:
    """Five KITTI rows are as long as four nuScenes rows."""
    rows = SCAN.read_bytes()
    for first in range(0, 17_000, 500):
        (tmp_path / "part.bin").write_bytes(rows[first * 16 : (first + 5) * 16])
        assert read_points(tmp_path / "part.bin").feature_names == KITTI
