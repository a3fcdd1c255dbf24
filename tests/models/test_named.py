"""Networks by name: as many parameters as the code that published them, and dense PyTorch's values.

The numbers are those of MinkowskiEngine's ``examples/minkunet.py`` and ``examples/resnet.py``, for
3 channels and 20 or 40 classes, and of OpenPCDet's ``VoxelBackBone8x`` and
``VoxelResBackBone8xVoxelNeXt`` for 4 channels, counted with that code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_close, random_mask, sparse
from torch import Tensor, nn

import sparseconv as sc

MINKUNET = {
    "14": 11_580_852,
    "14A": 8_024_500,
    "14B": 8_961_588,
    "14C": 11_919_924,
    "14D": 43_315_764,
    "18": 21_704_244,
    "18A": 15_493_172,
    "18B": 17_204_660,
    "18D": 79_874_484,
    "34": 37_856_052,
    "34A": 36_607_412,
    "34B": 36_226_484,
    "34C": 37_856_052,
    "50": 31_763_444,
    "101": 70_809_588,
}
RESNET = {14: 21_442_408, 18: 40_246_888, 34: 70_556_520, 50: 159_470_568, 101: 198_516_712}


def parameters(make: Callable[[], nn.Module]) -> int:
    """Return the number of parameters; on the meta device, which takes no memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


@pytest.mark.parametrize("name", MINKUNET)
def test_minkunet_has_the_published_parameters(name: str) -> None:
    assert parameters(lambda: sc.models.MinkUNet(3, 20, name)) == MINKUNET[name]


@pytest.mark.parametrize("depth", RESNET)
def test_resnet_has_the_published_parameters(depth: int) -> None:
    assert parameters(lambda: sc.models.ResNet(3, 40, depth)) == RESNET[depth]


def test_encoders_of_detectors_have_the_published_parameters() -> None:
    assert parameters(lambda: sc.models.SECONDEncoder(4)) == 711_872
    assert parameters(lambda: sc.models.VoxelNeXtEncoder(4)) == 7_368_288


def prepared(net: Any) -> Any:
    """Return a network in float64 and evaluation whose statistics are not those of a fresh one."""
    draw = torch.Generator().manual_seed(0)
    for name, buffer in net.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return net.double().eval()


def everywhere(*shape: int) -> tuple[Tensor, sc.SparseTensor]:
    """Return a dense tensor, and the sparse one in which each of its sites is active."""
    dense = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return dense, sparse(dense, torch.ones(shape[0], *shape[2:], dtype=torch.bool))


def assert_like_dense(sparse_outputs: Any, dense_outputs: Any) -> None:
    for ours, theirs in zip(sparse_outputs, dense_outputs, strict=True):
        assert isinstance(ours, sc.SparseTensor)
        assert_close(ours.dense(), theirs)


@pytest.mark.parametrize("name", ["14A", "50"])
def test_minkunet_is_the_dense_network_where_all_is_active(name: str) -> None:
    net = prepared(sc.models.MinkUNet(2, 3, name, dimensions=2))
    dense, x = everywhere(2, 2, 16, 16)
    with torch.no_grad():
        assert_like_dense([net(x)], [net(dense)])


def test_minkunet_labels_the_sites_that_it_was_given() -> None:
    net = prepared(sc.models.MinkUNet(2, 3, "14", dimensions=2))
    dense = torch.randn(2, 2, 32, 32, dtype=torch.float64)
    x = sparse(dense, random_mask(2, (32, 32), 0.1), seed=3)
    with torch.no_grad():
        assert net(x).sites is x.sites


def test_resnet_is_the_dense_network_where_all_is_active() -> None:
    net = prepared(sc.models.ResNet(2, 5, 14, dimensions=2))
    dense, x = everywhere(1, 2, 64, 64)
    with torch.no_grad():
        assert_like_dense(net.levels(x), net.levels(dense))
        assert net(x).shape == (1, 5)


def test_second_is_the_dense_network_where_all_is_active() -> None:
    net = prepared(sc.models.SECONDEncoder(4))
    dense, x = everywhere(1, 4, 25, 16, 24)
    with torch.no_grad():
        assert_like_dense([*net.levels(x), net(x)], [*net.levels(dense), net(dense)])
        assert net(x).shape == (1, 128, 1, 2, 3)


def test_voxelnext_adds_its_coarse_levels_in_the_birds_eye_view() -> None:
    net = prepared(sc.models.VoxelNeXtEncoder(4, widths=(4, 6, 8, 10, 10), out_channels=8))
    dense, x = everywhere(2, 4, 41, 32, 40)
    with torch.no_grad():
        fine, *coarse = (level.sum(2) for level in net.levels(dense)[3:])
        for step, level in zip((2, 4), coarse, strict=True):
            fine[:, :, ::step, ::step] += level
        assert_like_dense([net(x)], [net.shared_conv(net.conv_out(fine))])


def test_checkpoints_of_their_first_homes_load_by_name() -> None:
    net, new = (sc.models.MinkUNet(3, 20, "14A", dimensions=2) for _ in range(2))
    state = sc.convert_weights(net.state_dict(), net, "model", "minkowski")
    for key in ("conv0p1s1.kernel", "bn0.bn.weight", "block5.0.downsample.0.kernel", "final.bias"):
        assert key in state
    report = sc.load_checkpoint(new, state)
    assert report.source == "minkowski"
    assert not any(entry.by_order for entry in report.entries)
    assert torch.equal(net.convtr4p16s2.weight, new.convtr4p16s2.weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sc.models.MinkUNet(1, 2, "35"), "name: must be one of 14, 14A"),
        (lambda: sc.models.MinkUNet(1, 2, dimensions=5), "dimensions: must be 1 to 4, got 5"),
        (lambda: sc.models.ResNet(1, 2, 20), "depth: must be one of"),
        (lambda: sc.models.ResNet(1, 2, dimensions=4), "dimensions: must be 1 to 3"),
    ],
)
def test_a_wrong_name_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(sc.SparseConvValueError, match=words):
        make()
