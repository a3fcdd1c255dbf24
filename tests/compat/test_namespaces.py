"""Programs that import another library find its names here, and what was there comes back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import sparseconv as sc
from sparseconv.compat import namespaces


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take back whatever a test installed."""
    yield
    sc.compat.uninstall()


def test_imports_find_the_names() -> None:
    sc.compat.install("spconv", force=True)
    spconv = importlib.import_module("spconv.pytorch")
    core = importlib.import_module("spconv.pytorch.core")
    assert core.SparseConvTensor is spconv.SparseConvTensor
    assert spconv.SparseConvTensor.__module__ == "sparseconv.compat.spconv.tensor"


def test_a_library_in_use_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without force an import that already happened stands; with force it comes back."""
    theirs = ModuleType("spconv")
    monkeypatch.setitem(sys.modules, "spconv", theirs)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", ModuleType("spconv.pytorch"))
    monkeypatch.setitem(sys.modules, "spconv.theirs", ModuleType("spconv.theirs"))
    with pytest.raises(sc.SparseConvError, match=r"spconv was imported .* force=True"):
        sc.compat.install("spconv")
    assert sys.modules["spconv"] is theirs
    sc.compat.install("spconv", force=True)
    assert sys.modules["spconv"] is not theirs
    assert "spconv.theirs" not in sys.modules
    sc.compat.uninstall()
    assert sys.modules["spconv"] is theirs
    assert "spconv.theirs" in sys.modules


def test_an_installed_library_is_hidden_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "spconv", raising=False)
    (tmp_path / "spconv.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match=r"spconv is installed .*uninstall"):
        sc.compat.install("spconv")


def test_version_1_lies_flat() -> None:
    sc.compat.install("spconv", version=1, force=True)
    spconv = importlib.import_module("spconv")
    assert spconv.__version__ == "1.2.1"
    conv = importlib.import_module("spconv.conv")
    assert issubclass(spconv.SubMConv3d, conv.SparseConvolution)
    assert importlib.import_module("spconv.utils").VoxelGeneratorV2
    with pytest.raises(ImportError):  # what programs ask to tell the versions apart
        importlib.import_module("spconv.pytorch")


def test_version_2_lies_below_pytorch() -> None:
    sc.compat.install("spconv", force=True)
    root = importlib.import_module("spconv")
    assert root.__version__ == "2.3.8"
    assert root.SparseConvTensor is root.pytorch.SparseConvTensor
    utils = importlib.import_module("spconv.utils")
    assert not hasattr(utils, "VoxelGenerator")
    assert utils.Point2VoxelCPU3d
    view = importlib.import_module("cumm.tensorview")
    assert view.from_numpy(np.arange(3)).numpy().tolist() == [0, 1, 2]
    assert importlib.import_module("spconv.core").ConvAlgo is root.ConvAlgo
    with pytest.raises(AttributeError, match="nothing"):
        _ = root.nothing


def test_minkowski_engine_and_torchsparse_are_found() -> None:
    sc.compat.install("MinkowskiEngine", "torchsparse")
    engine = importlib.import_module("MinkowskiEngine")
    assert engine.__version__ == "0.5.4"
    ops = importlib.import_module("MinkowskiEngine.MinkowskiOps")
    assert ops.cat is engine.cat
    assert importlib.import_module("MinkowskiEngine.MinkowskiFunctional").relu
    pooling = importlib.import_module("MinkowskiEngine.MinkowskiPooling")
    assert pooling.MinkowskiAvgPooling is engine.MinkowskiAvgPooling
    blocks = importlib.import_module("MinkowskiEngine.modules.resnet_block")
    assert blocks.BasicBlock is engine.modules.resnet_block.BasicBlock
    assert importlib.import_module("MinkowskiEngine.utils.quantization").sparse_quantize
    with pytest.raises(AttributeError, match="nothing"):
        _ = engine.nothing
    torchsparse = importlib.import_module("torchsparse")
    assert torchsparse.__version__ == "2.1.0"
    functional = importlib.import_module("torchsparse.nn.functional")
    assert functional.spvoxelize is torchsparse.nn.functional.spvoxelize
    weights = importlib.import_module("torchsparse.nn.functional.devoxelize").calc_ti_weights
    assert weights is functional.calc_ti_weights
    assert importlib.import_module("torchsparse.nn").Conv3d(1, 1, padding=1).padding == (1, 1, 1)
    assert importlib.import_module("torchsparse.utils.collate").sparse_collate_fn
    assert callable(torchsparse.utils.to_dense)
    sc.compat.uninstall()
    sc.compat.install("torchsparse", version=1)
    old = importlib.import_module("torchsparse")
    assert old.SparseTensor is not torchsparse.SparseTensor
    assert old.nn.functional.conv3d is not functional.conv3d
    assert importlib.import_module("torchsparse.nn.functional").spvoxelize is functional.spvoxelize
    assert importlib.import_module("torchsparse.nn.utils").get_kernel_offsets(2).shape == (8, 3)
    assert not hasattr(old, "generative_add")


def test_mmcv_is_taken_on_request() -> None:
    sc.compat.install(force=True)
    assert "mmcv.ops" not in sys.modules
    sc.compat.install("mmcv")
    assert importlib.import_module("mmcv.ops").SparseConvTensor
    sc.compat.uninstall()
    assert "mmcv.ops" not in sys.modules


PROGRAM = """
import sys, torch
import spconv.pytorch as spconv
from spconv.pytorch.utils import PointToVoxel
print(__name__, sys.argv[1:], spconv.SubMConv3d(1, 1, 3).weight.shape[0])
"""


def test_a_program_runs_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(namespaces, "_check_hidden", lambda modules: None)
    (tmp_path / "program.py").write_text(PROGRAM)
    namespaces.main([str(tmp_path / "program.py"), "--epochs", "3"])
    assert capsys.readouterr().out == "__main__ ['--epochs', '3'] 1\n"
    monkeypatch.syspath_prepend(str(tmp_path))
    namespaces.main(["program", "-v"])
    assert capsys.readouterr().out == "__main__ ['-v'] 1\n"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [(("torch",), {}, "libraries: must be some of"), ((), {"version": 3}, "version: must be 1 or")],
)
def test_wrong_calls(arguments: tuple[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(sc.SparseConvValueError, match=message):
        sc.compat.install(*arguments, **options)
