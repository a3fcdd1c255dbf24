"""A warm layer takes a short way: how many functions of the package run, in how many files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from cases import random_sites, skip_unless_it_can
from torch.nn import functional as F

import sparseconv as sc

PACKAGE = str(Path(sc.__file__).parent)
CHANNELS = 16


def calls_of(run: Callable[[], Any]) -> list[str]:
    """Return the file of each function of the package that a third run calls."""
    run()
    run()
    files: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            files.append(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return files


@pytest.fixture(scope="module")
def x() -> sc.SparseTensor:
    coords = random_sites(3000, (40, 40, 40))
    return sc.SparseTensor(torch.randn(3000, CHANNELS), coords, (40, 40, 40))


def fused() -> torch.nn.Module:
    convolution = sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3)
    return sc.nn.FusedConvolution(convolution, torch.nn.BatchNorm3d(CHANNELS), relu=True)


def strided(x: sc.SparseTensor) -> Any:
    return F.conv3d(x, torch.ones(CHANNELS, CHANNELS, 3, 3, 3), stride=2)


# calls and files at most
LIMITS: dict[str, tuple[Callable[[], Callable[[Any], Any]], int, int]] = {
    "submanifold convolution": (lambda: sc.nn.SubmConv3d(CHANNELS, CHANNELS, 3), 60, 19),
    "strided convolution": (lambda: strided, 60, 18),
    "partial convolution": (lambda: sc.nn.PartialConv3d(CHANNELS, CHANNELS, 3, padding=1), 75, 24),
    "fused convolution": (fused, 50, 20),
    "batch normalisation in training": (lambda: torch.nn.BatchNorm3d(CHANNELS), 70, 15),
    "batch normalisation": (lambda: torch.nn.BatchNorm3d(CHANNELS).eval(), 30, 14),
    "ReLU": (torch.nn.ReLU, 12, 6),
    "max pooling": (lambda: torch.nn.MaxPool3d(2), 70, 19),
    "sum": (lambda: lambda x: x + x, 40, 11),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_warm_layer_calls_few_functions(name: str, x: sc.SparseTensor) -> None:
    skip_unless_it_can("numba", torch.float32)
    make, most_calls, most_files = LIMITS[name]
    layer = make()
    with sc.engine("numba"), torch.no_grad():
        files = calls_of(lambda: layer(x))
    assert len(files) <= most_calls
    assert len(set(files)) <= most_files


def test_every_function_of_the_package_is_counted(x: sc.SparseTensor) -> None:
    files = calls_of(lambda: x.requires_grad)
    assert [Path(name).name for name in files] == ["base.py"]
