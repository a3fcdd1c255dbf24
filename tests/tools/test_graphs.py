"""`sc.capture` where nothing can be captured; what can be is tested in tests/devices."""

from __future__ import annotations

import pytest
import torch
from cases import random_input
from torch import nn

import sparseconv as sc


def test_on_the_cpu_the_model_runs_and_one_line_says_so() -> None:
    net = nn.Sequential(sc.nn.SubmConv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ReLU()).eval()
    x = random_input(60, 2, (6, 6, 6), dtype=torch.float32)
    with pytest.warns(UserWarning, match=r"^capture: [^\n]* cuda, the example is on cpu$"):
        fast = sc.capture(net, x)
    y = fast(x)  # no second warning, which would be an error
    assert torch.equal(y.features, net(x).features) and not y.requires_grad
    assert (fast.capacity, fast.model) == (75, net)
    larger = random_input(90, 2, (7, 7, 7), dtype=torch.float32)
    assert torch.equal(fast(larger).features, net(larger).features)


def test_what_is_wrong_is_said_before_any_work() -> None:
    x = random_input(5, 2, (6, 6))
    net = nn.ReLU().eval()
    with pytest.raises(sc.SparseConvValueError, match=r"model: .*model.eval\(\); ReLU is in"):
        sc.capture(nn.ReLU(), x)
    with pytest.raises(sc.SparseConvTypeError, match=r"model: .*Module"):
        sc.capture(net.forward, x)
    with pytest.raises(sc.SparseConvTypeError, match=r"example: .*SparseTensor"):
        sc.capture(net, x.dense())
    with pytest.raises(sc.SparseConvValueError, match=r"capacity: .*5 sites.*got 4"):
        sc.capture(net, x, capacity=4)
    with pytest.raises(sc.SparseConvTypeError, match="capacity"):
        sc.capture(net, x, capacity=5.5)
