"""LeNet-5: its layers, its shapes, dense and sparse input; and the examples that use it."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import assert_close

import sparseconv as sc
from sparseconv.models import LeNet5

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return a function that imports an example by name."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in ("digits", "classify_digits", "deformable", "tilted"):
        sys.modules.pop(name, None)


def run(name: str, *arguments: object) -> str:
    """Run an example as a user does; return what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layers_are_those_of_the_paper() -> None:
    network = LeNet5()
    seen: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(
            lambda _layer, _inputs, output, name=name: seen.update({name: tuple(output.shape[1:])})
        )
    network(torch.zeros(1, 1, 32, 32))
    assert seen == {
        "c1": (6, 28, 28),
        "s2": (6, 14, 14),
        "c3": (16, 10, 10),
        "s4": (16, 5, 5),
        "c5": (120, 1, 1),
        "f6": (84,),
        "output": (10,),
    }
    parameters = {name: sum(p.numel() for p in layer.parameters())
                  for name, layer in network.named_children()}  # fmt: skip
    assert [parameters[name] for name in ("c1", "c3", "c5", "f6")] == [156, 2416, 48120, 10164]


def test_with_every_pixel_active_sparse_is_dense(engine: str) -> None:
    network, images = LeNet5().double(), torch.randn(2, 1, 32, 32, dtype=torch.float64)
    everywhere = sc.SparseTensor.from_dense(images, torch.ones(2, 1, 32, 32, dtype=torch.bool))
    assert_close(network(everywhere), network(images))


def test_without_biases_ink_alone_is_the_dense_image(engine: str) -> None:
    network, images = LeNet5().double(), torch.zeros(2, 1, 32, 32, dtype=torch.float64)
    for layer in (network.c1, network.c3):
        torch.nn.init.zeros_(layer.bias)
    images[:, :, 9:23, 12:20] = torch.rand(2, 1, 14, 8, dtype=torch.float64) + 0.1
    assert_close(network(sc.SparseTensor.from_dense(images)), network(images))


def test_the_sparse_network_is_its_dense_twin(engine: str, example) -> None:
    classify, digits = example("classify_digits"), example("digits")
    network = classify.InkNet()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.bias)
    network.eval().double()
    x = digits.ink(digits.bundled(0)[1].images[:6].double())
    assert_close(network(x), classify.dense_twin(network, x))


def test_the_split_is_80_to_20_in_every_class(example) -> None:
    train, test = example("digits").bundled(3)
    assert train.images.shape == (1437, 1, 32, 32)
    assert test.images.shape == (360, 1, 32, 32)
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert (share - 0.2).abs().max() < 0.005
    assert train.images.min() >= 0
    assert train.images.max() <= 1


def test_flops_are_counted_by_pairs(example) -> None:
    classify = example("classify_digits")
    dense = torch.ones(2, 3, 8, 8)
    layer = torch.nn.Conv2d(3, 5, 2, stride=2)
    expected = 2 * 16 * 4 * 3 * 5 / 1e6
    assert classify.flops(layer, dense) == pytest.approx(expected)
    assert classify.flops(layer, sc.SparseTensor.from_dense(dense)) == pytest.approx(expected)
    one = torch.zeros(1, 3, 8, 8)
    one[0, :, 3, 3] = 1
    x = sc.SparseTensor.from_dense(one)
    assert classify.flops(sc.nn.SubmConv2d(3, 4, 3), x) == pytest.approx(2 * 3 * 4 / 1e6)


def write_mnist(folder: Path, pixels: np.ndarray, labels: np.ndarray, packed: bool) -> None:
    """Write both parts of a data set of the same digits, gzipped or not."""
    for part in ("train", "t10k"):
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            content = header + values.astype(np.uint8).tobytes()
            path = folder / f"{part}-{kind}-ubyte{'.gz' * packed}"
            path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_idx_files(example, tmp_path: Path, packed: bool) -> None:
    pixels = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    write_mnist(tmp_path, pixels, np.array([7, 0, 3]), packed)
    train, test = example("digits").mnist(tmp_path)
    assert train.images.shape == test.images.shape == (3, 1, 32, 32)
    assert torch.equal((train.images[:, 0, 2:-2, 2:-2] * 255).round().byte(),
                       torch.from_numpy(pixels))  # fmt: skip
    assert train.labels.tolist() == [7, 0, 3]
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"no digits")
    with pytest.raises(ValueError, match="IDX"):
        example("digits").mnist(tmp_path)


def test_classify_digits_takes_a_folder_of_mnist(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (70, 28, 28)) * (source.random((70, 28, 28)) < 0.3)
    pixels[:, 10:18, 12:16] = 255
    write_mnist(tmp_path, pixels, source.integers(0, 10, 70), packed=True)
    printed = run("classify_digits.py", tmp_path, "--quick", "--output", tmp_path / "out")
    assert printed.startswith("split 0: LeNet-5, all pixels")
    report = json.loads((tmp_path / "out" / "classify_digits.json").read_text())
    right = [row["accuracy"] * 70 / 100 for row in report["means"].values()]
    assert right == pytest.approx([round(count) for count in right])


def test_classify_digits_runs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run("classify_digits.py", "--quick", "--output", tmp_path)
    report = json.loads((tmp_path / "classify_digits.json").read_text())
    for name, row in report["means"].items():
        assert f"{name:<22}{row['accuracy']:>8.2f} %" in printed
        assert row["MFLOPs"] > 0
    means = report["means"]
    assert means["LeNet-5, ink alone"]["MFLOPs"] < means["LeNet-5, all pixels"]["MFLOPs"]
    assert means["InkNet, ink alone"]["from dense twin"] < 1e-4
    assert (tmp_path / "classify_digits.png").read_bytes().startswith(b"\x89PNG")
