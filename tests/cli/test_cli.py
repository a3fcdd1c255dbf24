"""Every command on small files: what it says, what it writes, and errors in one line."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import sparseconv as sc
from sparseconv.cli import label, main, terminal
from sparseconv.cli.command import parser_of
from sparseconv.cli.completion import script
from sparseconv.cli.info import rows_of, width_seen
from sparseconv.io import Points, read_points, write_points
from sparseconv.models import UNet
from sparseconv.models.point_labeller import unet_bytes
from sparseconv.tools import voxel_sizes

COMMANDS = ("info", "convert", "view", "label", "train", "inpaint", "warmup", "engines")


def street(rows: int = 400, seed: int = 0) -> Points:
    """Return a flat ground with a wall on it; the wall is class 4, the ground class 1."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, 6, (rows, 3))
    wall = np.arange(rows) % 2 == 0
    xyz[~wall, 2] = 0.02 * rng.random((~wall).sum())
    xyz[wall, 0], xyz[wall, 2] = 3, 0.5 + xyz[wall, 2] / 3
    labels = np.where(wall, 4, 1)
    return Points(
        xyz.astype(np.float32), rng.random((rows, 1)).astype("f4"), ("intensity",), labels
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.use_deterministic_algorithms(False)
    monkeypatch.chdir(tmp_path)
    write_points(tmp_path / "a.ply", street())
    return tmp_path


def test_the_command_alone_and_each_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"    {command} " in printed for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"example: sparseconv {command}" in " ".join(capsys.readouterr().out.split())


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = street()
    points.xyz[3] = np.nan
    write_points(folder / "a.ply", points)
    assert main(["info", "a.ply"]) == 0
    printed = capsys.readouterr().out
    assert "a.ply: 400 points, PLY" in printed
    assert "1 not finite" in printed and "2 classes" in printed
    assert re.search(r"take [\d.]+: ", printed)
    assert main(["info", "a.ply", "--header"]) == 0
    assert re.search(r"intensity +float32", capsys.readouterr().out)
    assert main(["info", "a.ply", "--voxel-size", "0.5"]) == 0
    assert "take" not in capsys.readouterr().out


def test_the_sizes_of_info_fall_from_one_row_to_the_next() -> None:
    edges = [row.edge for row in rows_of(street()[np.repeat(np.arange(400), 3)])]
    assert len(edges) > 2
    assert edges == sorted(edges, reverse=True)


def test_info_tells_what_each_size_loses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "a.ply", "--voxel-size", "2"]) == 0
    printed = capsys.readouterr().out
    names, row = next(
        (line, after)
        for line, after in pairwise(printed.splitlines())
        if line.split()[:1] == ["size"]
    )
    assert names.split()[-7:] == ["points/site", "moved", "mixed", "neighbours", "alone", "sees",
                                  "U-Net"]  # fmt: skip
    (known,) = voxel_sizes(street(), [2.0])
    assert f"{100 * known.mixed:.1f} %" in row and known.mixed > 0
    assert f"{2 * width_seen():.3g}" in row.split()
    assert "mixed: points whose label" in printed


def test_the_memory_of_a_network_is_what_its_layers_put_out() -> None:
    widths, x = (4, 8, 12), sc.voxelize(torch.rand(300, 3) * 6, 1.0)[0]
    network, counted, sites = UNet(1, 5, widths, convolutions=1), [], {x.num_sites: None}

    def count(_module: object, _input: object, y: sc.SparseTensor) -> None:
        counted.append(y.features.numel())
        sites[y.num_sites] = None

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    network(x)
    skips = sum(n * 2 * width for n, width in zip(sites, widths[:-1], strict=False))
    assert unet_bytes(list(sites), widths, 5) == 4 * (sum(counted) + skips)


def test_convert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = read_points("a.ply")
    for suffix in ("pcd", "npz", "csv", "xyz", "pts"):
        assert main(["convert", "a.ply", f"b.{suffix}"]) == 0
        assert f"wrote 400 points to b.{suffix}" in capsys.readouterr().out
        np.testing.assert_allclose(read_points(f"b.{suffix}").xyz, whole.xyz, atol=1e-5)
    assert main(["convert", "a.ply", "b.las"]) == 1  # an intensity in fractions
    assert "rename the feature" in capsys.readouterr().err
    assert main(["convert", "a.ply", "b.las", "--rename", "intensity=reflectance"]) == 0
    assert "reflectance" in read_points("b.las")
    arguments = ["--every", "3", "--limit", "7", "--fields", "label"]
    assert main(["convert", "a.ply", "c.npz", *arguments]) == 0
    assert len(read_points("c.npz")) == 7 and read_points("c.npz").feature_names == ()
    box = ["--bounds", "0", "0", "0", "3", "3", "9"]
    assert main(["convert", "a.ply", "d.bin", *box, "--drop-labels"]) == 0
    assert read_points("d.bin", layout="kitti").xyz.max() < 9


def test_convert_by_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file is that does not fit into memory: the same as at once."""
    command = ["--rename", "intensity=reflectance", "--every", "3", "--limit", "100", "--bounds"]
    command += ["0", "0", "0", "5", "5", "9"]
    suffixes = ("ply", "pcd", "npz", "csv", "las", "laz")
    for suffix in suffixes:
        assert main(["convert", "a.ply", f"b.{suffix}", *command]) == 0
    monkeypatch.setattr(terminal, "PART", 50)
    for suffix in suffixes:
        assert main(["convert", "a.ply", f"c.{suffix}", *command]) == 0
        one, other = read_points(f"b.{suffix}"), read_points(f"c.{suffix}")
        assert one.names == other.names and len(one) == len(other) == 100
        for name in one.names:
            np.testing.assert_array_equal(one[name], other[name])
    assert main(["convert", "c.laz", "d.ply"]) == 0
    assert np.array_equal(read_points("d.ply").xyz, read_points("c.laz").xyz)


def test_progress_of_large_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(terminal, "PART", 50)
    monkeypatch.setattr(terminal, "LARGE", 1)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["info", "a.ply", "--voxel-size", "1"]) == 0
    printed = capsys.readouterr()
    assert "400 points" in printed.out and "read a.ply" in printed.err
    assert main(["convert", "a.ply", "b.pcd"]) == 0
    assert "read a.ply" in capsys.readouterr().err
    assert len(read_points("b.pcd")) == 400


def test_view(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "a.ply"]) == 0
    assert "wrote a.html" in capsys.readouterr().out
    assert "class 4" in Path("a.html").read_text()
    np.save("p.npy", np.full(400, 4))
    given = ["--labels", "--prediction", "p.npy", "--voxel-size", "0.5", "--classes", "a,b,c,d,e"]
    assert main(["view", "a.ply", *given, "-o", "b.html"]) == 0
    assert "% wrong" in Path("b.html").read_text()
    for given in (["--color-by", "intensity"], ["--color-by", "intensity", "--voxel-size", "1"]):
        assert main(["view", "a.ply", *given, "-o", "c.html"]) == 0
        assert '"legend": []' in Path("c.html").read_text()


@pytest.mark.slow
def test_train_label_and_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scans").mkdir()
    for seed in range(5):
        write_points(folder / "scans" / f"{seed}.npz", street(seed=seed))
    given = ["train", "scans", "-o", "w.pt", "--classes", "ground,wall", "--voxel-size", "0.5"]
    assert main([*given, "--steps", "30"]) == 0
    printed = capsys.readouterr().out
    assert "4 scans to learn from, 1 held out, 2 classes" in printed
    assert "step 30/30: loss" in printed
    iou = {name: float(value) for name, value in re.findall(r"(ground|wall) +([\d.]+)", printed)}
    assert min(iou.values()) > 0.8
    assert main(["label", "a.ply", "--weights", "w.pt", "-o", "b.ply"]) == 0
    assert "wall" in capsys.readouterr().out
    labels, truth = read_points("b.ply").labels, read_points("a.ply").labels
    assert labels is not None and truth is not None
    assert (labels == truth).mean() > 0.9
    assert main(["label", "a.ply", "scans/0.npz", "--weights", "w.pt", "-o", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.ply", "a.ply"]
    assert main(["label", "a.ply", "--weights", "w.pt", "-o", "a.label"]) == 0
    assert np.fromfile("a.label", "<u4").tolist() == labels.tolist()
    assert main([*given, "--steps", "32", "--resume"]) == 0
    assert main([*given, "--steps", "32", "--resume"]) == 1
    assert "w.pt has 32 already" in capsys.readouterr().err


def test_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"cpu +\w+ +used", printed)
    for word in ("threads", "vectors", "kernels", "versions", "torch "):
        assert word in printed


def test_label_takes_the_shipped_network_and_says_where_a_scan_is_unlike_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["label", "a.ply", "-o", "b.ply"]) == 0
    printed = capsys.readouterr().out
    assert "labelling with the shipped network of synthetic streets" in printed
    assert re.search(r"a.ply is unlike .*: extent [\d.]+, theirs", printed)
    assert "vehicle" in printed
    labels = read_points("b.ply").labels
    assert labels is not None and set(labels.tolist()) <= set(range(6))
    monkeypatch.setattr(label, "SHIPPED", folder / "nowhere.pt")  # as in an installed wheel
    assert main(["label", "a.ply", "-o", "b.ply"]) == 1
    assert "weights: give those of `sparseconv train`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere.ply"], "No such file"),
        (["info", "."], "is a folder, give its files"),
        (["info", "a.ply", "--layout", "kitti"], "layout='kitti' is for .bin files"),
        (["convert", "a.ply", "b.foo"], "has suffix '.foo', written are"),
        (["convert", "a.ply", "nowhere/b.ply"], "output: there is no folder nowhere"),
        (["convert", "a.ply", "b.ply", "--fields", "ring"], "has no column 'ring'"),
        (["view", "a.ply", "-o", "b.gif"], "must end in .html or .png"),
        (["view", "a.ply", "--color-by", "ring", "-o", "b.html"], "no 'ring'"),
        (["label", "a.ply", "--weights", "a.ply", "-o", "b.ply"], "weights: a.ply holds no netw"),
        (["train", ".", "-o", "w.pt", "--steps", "0"], "steps: must be 1 or more"),
        (["train", "nowhere", "-o", "w.pt"], "root: there is no folder"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("sparseconv: ")


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert main(["completion"]) == 0
    text = capsys.readouterr().out
    for words, expected in (
        (["sparseconv", "con"], "convert"),
        (["sparseconv", "view", "--p"], "--pred"),
    ):
        quoted = " ".join(words)
        ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _sparseconv x "{words[-1]}"'
        command = f"{text}\n{ask}\necho ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(expected)
    assert "--voxel-size" in script(parser_of()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
