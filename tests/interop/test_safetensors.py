"""Tensors, point maps and weights through files of safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model

import sparseconv as sc
from sparseconv.interop import from_safetensors, to_safetensors


def test_tensors_and_maps_come_back_and_share_what_they_shared(tmp_path: Path) -> None:
    clouds = [torch.rand(40, 3, dtype=torch.float64) * 9 + 5e5, torch.rand(7, 3).double() + 5e5]
    x, to_points = sc.voxelize(clouds, 0.3, bounds=None)
    low = torch.nn.functional.avg_pool3d(x, 2)
    shifted = sc.SparseTensor(torch.rand(2, 2).half(), torch.tensor([[1, -5], [0, 3]]))
    empty = sc.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int32), (3, 3), 2)
    turned = sc.SparseTensor(
        torch.rand(3, 1), torch.tensor([[0, 2], [0, 0], [0, 1]]), (8,)
    ).with_grid(sc.Grid((1.0,), (0.5,), circular=(True,), unit="rad"))
    values = {"x": x, "map": to_points, "low": low, "s": shifted, "e": empty, "t": turned}
    to_safetensors({**values, "plain": torch.ones(3, 2).T}, tmp_path / "a.safetensors")
    found = from_safetensors(tmp_path / "a.safetensors")
    assert found.keys() == {*values, "plain"} and torch.equal(found["plain"], torch.ones(2, 3))
    assert found["x"].sites is found["map"].sites is not found["low"].sites
    for name in ("x", "low", "s", "e", "t"):
        y, wanted = found[name], values[name]
        assert y.sites.same_as(wanted.sites) and torch.equal(y.features, wanted.features), name
        assert y.dtype == wanted.dtype and y.coords.dtype == wanted.coords.dtype
        assert y.grid == wanted.grid and y.sites.inferred == wanted.sites.inferred, name
    assert torch.equal(found["map"](found["low"]), to_points(low)), "grids know where they began"
    assert torch.equal(found["map"].points, to_points.points)
    assert "sites.0.coords" in load_file(tmp_path / "a.safetensors")


def test_weights_go_through_safetensors_own_functions(tmp_path: Path) -> None:
    net = torch.nn.Sequential(sc.nn.SubmConv3d(1, 4, 3), torch.nn.BatchNorm3d(4))
    other = torch.nn.Sequential(sc.nn.SubmConv3d(1, 4, 3), torch.nn.BatchNorm3d(4))
    x, _ = sc.voxelize(torch.rand(30, 3), 0.2)
    save_model(net, tmp_path / "w.safetensors")
    load_model(other, tmp_path / "w.safetensors")
    assert torch.equal(net.eval()(x).features, other.eval()(x).features)
    save_file(net.state_dict(), tmp_path / "d.safetensors")
    other.load_state_dict(load_file(tmp_path / "d.safetensors"))
    assert from_safetensors(tmp_path / "d.safetensors").keys() == net.state_dict().keys()


def test_what_is_damaged_or_of_another_kind_is_told_in_one_line(tmp_path: Path) -> None:
    x, to_points = sc.voxelize(torch.rand(30, 3), 0.2)
    path = tmp_path / "a.safetensors"
    with pytest.raises(sc.SparseConvTypeError, match="'n' must be a Tensor, SparseTensor or"):
        to_safetensors({"n": 3}, path)  # type: ignore[dict-item]
    to_safetensors({"x": x, "map": to_points}, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        for changed in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            path.write_bytes(changed)
            try:
                from_safetensors(path)
            except sc.SparseConvError as error:
                assert "\n" not in str(error)
    with pytest.raises(FileNotFoundError):
        from_safetensors(tmp_path / "none.safetensors")
