"""The names of spconv, its paths, and what its own wheel computes with them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import make_spconv_fixtures as fixtures
import numpy as np
import pytest
import torch
from cases import assert_close

from sparseconv.compat.spconv import flat
from sparseconv.compat.spconv import pytorch as spconv
from tools import compat_table

NAMES = json.loads((fixtures.FIXTURES / "spconv_names.json").read_text(encoding="utf-8"))
RECORDED = dict(np.load(fixtures.FIXTURES / "spconv.npz"))


def test_the_page_is_current() -> None:
    text = compat_table.TARGET.read_text(encoding="utf-8")
    assert compat_table.written(text) == text


def test_every_name_is_here_and_tested_or_has_a_reason() -> None:
    for line in compat_table.lines("spconv"):
        assert line.supported != "no", line
        assert line.tests or line.supported.startswith("no: "), line


@pytest.mark.parametrize("path", NAMES)
def test_parameters_are_spconvs_and_in_their_order(path: str) -> None:
    """A call by position means the same: theirs come first."""
    module = importlib.import_module(f"sparseconv.compat.spconv.{path}")
    for name, parameters in NAMES[path].items():
        if hasattr(module, name) and name not in compat_table.MADE_BY_LAYERS:
            own = compat_table.parameters_of(getattr(module, name))
            known = [parameter for parameter in parameters if parameter in own]
            assert own[: len(known)] == known, name


def test_small_things() -> None:
    core = importlib.import_module("sparseconv.compat.spconv.core")
    assert core.ConvAlgo.Native.value == 0
    assert core.AlgoHint.NoHint.value == 0
    assert spconv.core.expand_nd(3, 2) == [2, 2, 2]
    assert spconv.core.expand_nd(2, (1, 3)) == [1, 3]
    with pytest.raises(ValueError, match="must have 3 entries"):
        spconv.core.expand_nd(3, [1, 2])
    assert spconv.modules.is_spconv_module(spconv.ToDense())
    assert spconv.modules.is_sparse_conv(spconv.SubMConv1d(1, 1, 3))
    assert not spconv.modules.is_sparse_conv(torch.nn.ReLU())
    assert spconv.conv.SparseConvolutionBase is spconv.conv.SparseConvolution
    assert spconv.core.ImplicitGemmIndiceData is spconv.core.IndiceData
    assert issubclass(spconv.SparseGlobalMaxPool, spconv.pool.SparseGlobalMaxOrAvgPool)
    assert spconv.SparseSyncBatchNorm(2).num_features == 2
    with spconv.utils.nullcontext():
        pass
    assert (spconv.__version__, float(spconv.__version__[2:])) == ("2.3.8", 3.8)
    spconv.constants.SPCONV_USE_DIRECT_TABLE = False  # as OpenPCDet does
    spconv.constants.SPCONV_USE_DIRECT_TABLE = True


def test_extents_and_pairs() -> None:
    ops = spconv.ops
    assert ops.get_conv_output_size([9, 8], [3, 2], [2, 1], [1, 0], [1, 1]) == [5, 7]
    assert ops.get_deconv_output_size([5, 7], [3, 2], [2, 1], [1, 0], [1, 1], [0, 0]) == [9, 8]
    indices = torch.tensor([[0, 1], [0, 2]], dtype=torch.int32)
    out, pairs, counts = ops.get_indice_pairs(
        indices, 1, [5], ops.ConvAlgo.Native, [3], [1], [1], [1], [0], subm=True
    )
    assert out is indices
    assert counts.tolist() == [1, 2, 1]
    assert pairs[:, 0, 0].tolist() == [0, 1]


def net_of(name: str) -> Any:
    layers, size = fixtures.CASES[name]
    torch.manual_seed(list(fixtures.CASES).index(name))
    made = [getattr(spconv, kind)(*args, **options) for kind, args, options in layers]
    return spconv.SparseSequential(*made), size


@pytest.mark.parametrize("name", fixtures.CASES)
def test_numbers_are_those_of_the_wheel(name: str) -> None:
    """Initial weights bit for bit, outputs and gradients to 1e-12."""
    check(name, fixtures.computed(spconv), RECORDED)


def check(name: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    keys = {key for key in wanted if key.startswith(f"{name}/")}
    assert keys == {key for key in found if key.startswith(f"{name}/")}
    for key in keys:
        if "/initial/" in key or key.endswith("/indices"):
            assert np.array_equal(found[key], wanted[key]), key
        else:
            assert_close(torch.from_numpy(found[key]), torch.from_numpy(wanted[key]))


WHEEL = importlib.util.find_spec("spconv") is not None
ONE_THREAD = os.environ.get("OMP_NUM_THREADS") == "1"


@pytest.mark.skipif(not WHEEL, reason="spconv's own wheel is not installed")
@pytest.mark.skipif(not ONE_THREAD, reason="OMP_NUM_THREADS is not 1: the wheel's threads race")
@pytest.mark.filterwarnings("default")
def test_the_wheel_still_says_so() -> None:
    found = fixtures.computed(fixtures.wheel())
    for name in fixtures.CASES:
        check(name, found, RECORDED)


def test_version_1_has_its_weights_and_its_tensor() -> None:
    new, size = net_of("strided and back")
    old = flat.SparseSequential(
        flat.SparseConv2d(3, 4, [3, 2], [2, 1], [1, 0], indice_key="a"),
        flat.SubMConv2d(4, 4, 3, indice_key="b", use_hash=True),
        flat.SparseInverseConv2d(4, 2, [3, 2], "a"),
    ).double()
    assert old[0].weight.shape == (3, 2, 3, 4)
    state = {
        key: value.movedim(0, -1) if key.endswith("weight") else value
        for key, value in new.state_dict().items()
    }
    old.load_state_dict(state)
    features, indices = fixtures.inputs(0, new, size)
    x = flat.SparseConvTensor(features, indices, size, 2)
    wanted = new.double()(spconv.SparseConvTensor(features, indices, size, 2))
    y = old(x)
    assert_close(y.features, wanted.features)
    y.features = y.features * 2
    assert_close(y.dense(), wanted.dense() * 2)
    assert flat.__version__ == "1.2.1"
    matrix = flat.SubMConv2d(3, 4, 1, bias=False).double()
    assert_close(matrix(x).features, features @ matrix.weight[0, 0])


def test_every_file_of_the_fixtures_is_small() -> None:
    assert all(path.stat().st_size < 100_000 for path in Path(fixtures.FIXTURES).iterdir())
