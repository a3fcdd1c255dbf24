"""The lecture's lines run, and the numbers that they print are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "lecture.py"
TOPICS = [
    "connections", "convolution", "output_size", "transposed", "groups", "backward",
    "receptive_field", "equivariance", "activations", "dropout", "normalisation", "pooling",
    "deformable", "partial", "submanifold",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a run wrote."""
    out = tmp_path_factory.mktemp("lecture")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLE), "--output", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    texts = [(out / f"{topic}.txt").read_text() for topic in TOPICS]
    assert done.stdout == "".join(text + "\n" for text in texts)
    return out


def lines(folder: Path, topic: str) -> list[str]:
    """Return a topic's lines, without its title."""
    return [line.strip() for line in (folder / f"{topic}.txt").read_text().splitlines()[1:]]


def numbers(line: str) -> list[float]:
    """Return the numbers of a line."""
    return [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*(?:e-?\d+)?", line)]


@pytest.mark.parametrize("topic", TOPICS)
def test_what_should_agree_agrees(folder: Path, topic: str) -> None:
    differences = re.findall(r"difference (\S+?)(?:,|$)", "\n".join(lines(folder, topic)), re.M)
    assert all(float(difference) < 2e-6 for difference in differences)
    without = {"output_size", "receptive_field", "dropout"}
    assert bool(differences) == (topic not in without)


def test_figures_are_pictures(folder: Path) -> None:
    pictures = {path.stem: path.read_bytes() for path in folder.glob("*.png")}
    assert set(pictures) == {
        "connections", "transposed", "receptive_field", "activations", "deformable", "partial",
        "submanifold",
    }  # fmt: skip
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())


def test_parameter_counts(folder: Path) -> None:
    _, full, local, shared = lines(folder, "connections")
    assert [numbers(line)[0] for line in (full, local, shared)] == [
        32 * 32 * 28 * 28,
        28 * 28 * 25,
        25,
    ]


def test_convolutions_by_hand(folder: Path) -> None:
    one, two, many, _ = lines(folder, "convolution")
    assert one.endswith("[-2, -2]")
    assert two.endswith(str([-5] * 9))
    assert "135 weights and 5 biases" in many


def test_output_sizes(folder: Path) -> None:
    rows = [numbers(line) for line in lines(folder, "output_size")[1:]]
    assert [row[5] for row in rows] == [28, 32, 16, 3, 3, 7, 112, 14]
    assert all(row[5] == row[6] == row[7] for row in rows)


def test_transposed_sizes(folder: Path) -> None:
    stride_one, stride_two, *_ = lines(folder, "transposed")
    assert "2 x 2 to 4 x 4" in stride_one
    assert "3 x 3 to 5 x 5" in stride_two


def test_flops_and_parameters(folder: Path) -> None:
    rows = [numbers(line)[-2:] for line in lines(folder, "groups")[1:6]]
    weights = [64 * 128 * 9, 64 * 128 * 9 // 4, 64 * 9, 64 * 128, 64 * 9 + 64 * 128]
    assert [row[0] for row in rows] == weights
    assert [row[1] for row in rows] == [round(2 * n * 784 / 1e6, 2) for n in weights]


def test_backward_by_hand(folder: Path) -> None:
    *known, sparse = lines(folder, "backward")
    y, d_x, d_w, d_b = (re.search(r"\[.*?\]", line) for line in known)
    # y = 2 x[i] + x[i+1] - x[i+2] + 0.5 for x = 1 2 0 -1 3, and gradient 1 2 -1
    assert numbers(y.group()) == [4.5, 5.5, -3.5]
    assert numbers(d_x.group()) == [2, 1 + 4, -1 + 2 - 2, -2 - 1, 1]
    assert numbers(d_w.group()) == [1 + 4 - 0, 2 + 0 + 1, 0 - 2 - 3]
    assert numbers(d_b.group()) == [2]
    assert sparse.startswith("on the 4 active sites")


def test_receptive_fields(folder: Path) -> None:
    drawn, vgg, resnet = lines(folder, "receptive_field")
    assert drawn.endswith("r 3, 7; jump 2, 4")
    assert vgg.startswith("VGG-16: r 212, jump 32")
    assert resnet.startswith("ResNet-50: r 483, jump 32")


def test_activations(folder: Path) -> None:
    values = {line[:18].strip(): numbers(line[19:])[:3] for line in lines(folder, "activations")}
    assert values["sigmoid"] == [0.1192, 0.5, 0.7311]
    assert values["softmax"] == [0.0351, 0.2595, 0.7054]
    assert values["ReLU"] == [0, 0, 1]
    assert values["PReLU, slope 0.25"] == [-0.5, 0, 1]


def test_dropout(folder: Path) -> None:
    for line in lines(folder, "dropout"):
        kept, factor = numbers(line)
        assert 52 <= kept <= 68
        assert factor == 1.6667
        assert "whole: True" in line


def test_pooling(folder: Path) -> None:
    most, average, whole, *_ = lines(folder, "pooling")
    assert numbers(most.partition(":")[2]) == [4, 2, 8, 7]
    assert numbers(average.partition(":")[2]) == [2.5, 0.75, 2, 5]
    assert numbers(whole) == [8, 41 / 16]


def test_partial(folder: Path) -> None:
    before, behind = numbers(lines(folder, "partial")[2])
    assert before > 36  # a square of 6 x 6 and single cells
    assert 16 <= behind < before / 3  # the square loses its rim, what is single is filled


def test_submanifold(folder: Path) -> None:
    rows = [numbers(line) for line in lines(folder, "submanifold")[1:5]]
    assert rows == [[0, 1, 1], [1, 9, 1], [2, 25, 1], [3, 49, 1]]


def test_one_topic_alone_and_a_wrong_one(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--output", str(tmp_path)]
    done = subprocess.run([*command, "submanfold"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such topic: submanfold" in done.stderr
