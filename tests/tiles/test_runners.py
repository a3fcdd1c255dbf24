"""The same bits on every runner, with a worker killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.models import UNet
from sparseconv.tiles.runners import Dask, Pool, Ray, Runner

POINTS = np.random.default_rng(0).uniform(0, 10, (400, 3))


class Deadly(nn.Module):
    """A network that kills its process, as often as there are files of a name to take away."""

    def __init__(self, lives: Path, always: int = -1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = UNet(1, 4, (2, 3), convolutions=1)
        self.lives, self.always = str(lives), always

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, sc.SparseTensor):
            if x.num_sites == self.always:
                os.kill(os.getpid(), signal.SIGKILL)
            for life in Path(self.lives).glob("life*"):
                life.unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGKILL)
        y: Tensor = self.net(x)
        return y


def judge(runner: Runner, tmp_path: Path) -> None:
    """Compare with one process, which nobody kills."""
    net = Deadly(tmp_path).eval()
    here = sc.tiled(net, POINTS, 0.25, 16, keep="scores")
    expected = here.result()
    (tmp_path / "life").touch()
    tiles = sc.tiled(net, POINTS, 0.25, 16, keep="scores", runner=runner)
    assert torch.equal(tiles.result(), expected)
    assert tiles.num_done == here.num_tiles and not (tmp_path / "life").exists()


@pytest.mark.slow
def test_a_pool_loses_nothing_when_a_process_is_killed(tmp_path: Path) -> None:
    net, sites = Deadly(tmp_path).eval(), list[int]()
    hook = net.register_forward_pre_hook(
        lambda _, args: sites.append(getattr(args[0], "num_sites", 0))
    )
    expected = sc.tiled(net, POINTS, 0.25, 32, keep="scores").result()
    hook.remove()
    sites = [count for count in sites if count]  # not what follows the reach, without data
    (tmp_path / "life").touch()
    net.always = sites[-1]  # the last tile kills whoever tries it
    tiles = sc.tiled(net, POINTS, 0.25, 32, keep="scores", runner=Pool(2))
    with pytest.raises(sc.SparseConvError, match=r"1 of 8 tiles broke.*its process died, twice"):
        tiles.run()
    assert list(tiles.failed) == [7] and not (tmp_path / "life").exists()
    got = tiles.result(fill=7.0)
    kept = (got != 7.0).all(1)
    assert torch.equal(got[kept], expected[kept]) and 0.5 < float(kept.double().mean()) < 1


@pytest.mark.slow
def test_dask(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        judge(Dask(client), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself, about its own future
def test_ray(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(sc.__file__).parents[1])])
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": paths}}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    try:
        judge(Ray(2), tmp_path)
    finally:
        ray.shutdown()


def test_wrong_numbers_of_workers() -> None:
    for make in (lambda: Pool(0), lambda: Pool(1, threads=0), lambda: Ray(0)):
        with pytest.raises(sc.SparseConvValueError):
            make()


@pytest.mark.slow
def test_a_model_that_cannot_travel_is_refused() -> None:
    net = nn.Sequential(sc.nn.SubmConv3d(1, 2, 3), nn.ReLU())
    net.helper = lambda x: x
    tiles = sc.tiled(net.eval(), POINTS, 0.25, 32, runner=Pool(1))
    with pytest.raises(sc.SparseConvValueError, match="model: cannot be pickled"):
        tiles.run()
