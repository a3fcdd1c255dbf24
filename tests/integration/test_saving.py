"""Tensors in files, in shared memory and in the batches of a DataLoader."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import sparseconv as sc


def scan(seed: int = 0) -> sc.SparseTensor:
    torch.manual_seed(seed)
    coords = torch.nonzero(torch.rand(1, 5, 4) < 0.5)
    coords = coords[torch.randperm(len(coords))]
    return sc.SparseTensor(torch.randn(len(coords), 3), coords, (5, 4), 1)


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file)


def test_torch_load_at_its_defaults_takes_tensors_and_point_maps() -> None:
    x = scan()
    y = saved({"x": [x]})["x"][0]
    assert torch.equal(y.features, x.features) and y.sites.same_as(x.sites)
    assert torch.equal(saved(x.double().cpu()).coords, x.coords)
    voxels, to_points = sc.voxelize(torch.rand(30, 3), 0.3)
    voxels, back = saved((voxels, to_points))
    assert torch.equal(back(voxels.features), to_points(voxels.features))
    empty = sc.SparseTensor(torch.zeros(0, 2), torch.zeros(0, 3, dtype=torch.int32), (3, 3), 1)
    assert saved(empty).shape == empty.shape


def test_a_damaged_file_is_no_site_set() -> None:
    function, args = scan().sites.__reduce__()
    keys, order = args[0], args[1]
    for damaged in (
        (keys.flip(0), order),
        (keys + 10**9, order),
        (keys, order + 1),
        (keys, order.clamp(min=1)),
        (keys.int(), order),
    ):
        with pytest.raises(sc.SparseConvValueError, match="damaged"):
            function(*damaged, *args[2:])


def test_default_collate_makes_batches_in_nested_containers() -> None:
    scans = [scan(seed) for seed in range(4)]
    samples = [({"x": x, "all": [x, x]}, seed) for seed, x in enumerate(scans)]
    batches = list(DataLoader(samples, batch_size=2))
    expected = sc.collate(scans[2:])
    for found in (batches[1][0]["x"], batches[1][0]["all"][1]):
        assert found.sites.same_as(expected.sites)
        assert torch.equal(found.features, expected.features)
    assert batches[1][1].tolist() == [2, 3]


class Scans(IterableDataset[sc.SparseTensor]):
    def __iter__(self) -> Any:
        return iter([scan(0), scan(1)])


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_send_what_they_collate(start: str) -> None:
    loader = DataLoader(Scans(), batch_size=2, num_workers=1, multiprocessing_context=start)
    expected = sc.collate([scan(0), scan(1)])
    (batch,) = loader
    assert batch.sites.same_as(expected.sites)
    assert torch.equal(batch.features, expected.features)


def test_memory_can_be_shared() -> None:
    x = scan()
    assert not x.is_shared() and not x.is_pinned()
    assert x.share_memory_() is x
    assert x.is_shared() and x.sites.index.keys.is_shared()


def test_pickles_leave_caches_behind() -> None:
    x = scan()
    before = len(pickle.dumps(x))
    torch.nn.Conv2d(3, 4, 2, 2)(x)
    assert len(pickle.dumps(x)) == before
