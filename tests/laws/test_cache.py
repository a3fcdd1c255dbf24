"""Rulebooks are cached by geometry, never confused, and freed by reference counting alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import assert_close, dense_conv, random_input, random_mask
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.sites.sites import Sites

pytestmark = pytest.mark.usefixtures("engine")

SIZE = (7, 8)


def conv(size: int = 3, **options: Any) -> Callable[[Any, Tensor], Any]:
    """Return a convolution with the first cells of the kernel; dense 'same' is written out."""
    return lambda x, weight: (dense_conv if isinstance(x, Tensor) else F.conv2d)(
        x, weight[:, :, :size, :size], **options
    )


def subm(dilation: int) -> Callable[[Any, Tensor], Any]:
    def run(x: Any, weight: Tensor) -> Any:
        if isinstance(x, Tensor):
            return F.conv2d(x, weight, padding=dilation, dilation=dilation)
        return sc.functional.subm_conv(x, weight, dilation=dilation)

    return run


def transposed(**options: Any) -> Callable[[Any, Tensor], Any]:
    return lambda x, weight: F.conv_transpose2d(x, weight.transpose(0, 1), **options)


PAIRS = {
    "padding": (conv(padding=0), conv(padding=1)),
    "one-axis-padding": (conv(padding=(0, 1)), conv(padding=(1, 0))),
    # an even window has 0 in front and 1 behind where the padding is "same"
    "padding-in-front": (conv(2, padding="same"), conv(2, padding=1)),
    "padding-behind": (conv(2, padding="same"), conv(2, padding=0)),
    "dilation": (conv(padding=1, dilation=1), conv(padding=1, dilation=2)),
    "stride": (conv(stride=1, padding=1), conv(stride=2, padding=1)),
    "one-axis-stride": (conv(stride=(1, 2)), conv(stride=(2, 1))),
    "subm-dilation": (subm(1), subm(2)),
    "subm-and-conv": (subm(1), conv(padding=1)),
    "subm-and-transposed": (subm(1), transposed(padding=1)),
    "transposed-stride": (transposed(stride=1), transposed(stride=2)),
    "transposed-end": (transposed(stride=2), transposed(stride=2, output_padding=1)),
    "conv-and-transposed": (conv(padding=1), transposed(padding=1)),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_two_layers_on_one_tensor_do_not_share_what_differs(name: str, swapped: bool) -> None:
    x = random_input(20, 2, SIZE, batch=2)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    for layer in reversed(PAIRS[name]) if swapped else PAIRS[name]:
        y = layer(x, weight)
        assert_close(y.dense(), layer(x.dense(), weight) * y.mask())


def test_kernel_size_is_part_of_the_key() -> None:
    x = random_input(20, 1, SIZE)
    for kernel in ((1, 3), (3, 1), (3, 3), (1, 1)):
        weight = torch.randn(1, 1, *kernel, dtype=torch.float64)
        padding = tuple(size // 2 for size in kernel)
        y = sc.functional.subm_conv(x, weight)
        assert_close(y.dense(), F.conv2d(x.dense(), weight, padding=padding) * y.mask())


@pytest.fixture
def built(engine: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by one geometry for each rulebook built."""
    geometries: list[Any] = []
    module = sc.engines.get(engine)
    build = module.build_rulebook

    def counted(fine: Any, coarse: Any, geometry: Any) -> Rulebook:
        geometries.append(geometry)
        return build(fine, coarse, geometry)

    monkeypatch.setattr(module, "build_rulebook", counted)
    return geometries


def test_one_geometry_is_built_once(built: list[Any]) -> None:
    x = random_input(30, 2, SIZE)
    first, second = (torch.randn(2, 2, 3, 3, dtype=torch.float64) for _ in range(2))
    for weight in (first, second):
        for _ in range(2):
            y = sc.functional.subm_conv(x, weight)
            y = sc.functional.subm_conv(torch.relu(y * 2), weight)
            F.conv2d(y, weight, stride=2, padding=1)
            F.conv2d(x.replace(x.features[:, :1]), weight[:, :1], stride=(2, 2), padding=(1, 1))
    assert len(built) == 2
    assert len(x.sites.rulebooks) == 2


def test_the_forward_and_the_backward_pass_and_the_inverse_share_a_rulebook(
    built: list[Any],
) -> None:
    x = random_input(30, 2, SIZE).requires_grad_()
    down = nn.Conv2d(2, 3, 2, stride=2).double()
    up = sc.nn.InverseConv2d(3, 2, 2, stride=2).double()
    for _ in range(2):
        y = up(down(x))
        grad = torch.autograd.grad(y.features.sum(), x.features, create_graph=True)[0]
        (grad**2).sum().backward()
    assert len(built) == 1


def test_outputs_of_one_layer_share_their_sites() -> None:
    x = random_input(30, 1, SIZE)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    first, second = (F.conv2d(x, weight, stride=2) for _ in range(2))
    assert first.sites is second.sites
    assert (first + second).sites is first.sites
    assert F.conv2d(x, weight, stride=2, padding=1).sites is not first.sites


def test_down_and_up_and_down_again_comes_back_to_the_same_sites(built: list[Any]) -> None:
    x = random_input(40, 1, (9, 9))
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    options = {"stride": 2, "padding": 1}
    down = F.conv2d(x, weight, **options)
    lower = F.conv2d(down, weight, **options)
    up = sc.functional.inverse_conv(lower, weight, **options)
    assert up.sites is down.sites
    top = sc.functional.inverse_conv(up, weight, **options)
    assert top.sites is x.sites
    assert F.conv2d(top, weight, **options).sites is down.sites
    assert len(built) == 2


def test_the_inverse_finds_its_way_when_the_first_tensor_is_gone() -> None:
    x = random_input(40, 2, SIZE, batch=2)
    weight = torch.randn(3, 2, 2, 3, dtype=torch.float64)
    options = {"stride": (2, 1), "padding": (0, 1)}
    expected = sc.functional.inverse_conv(F.conv2d(x, weight, **options), weight, **options)
    y = F.conv2d(random_input(40, 2, SIZE, batch=2), weight, **options)  # its input dies here
    up = sc.functional.inverse_conv(y, weight, **options)
    assert torch.equal(up.coords, x.coords)
    assert torch.equal(up.features, expected.features)
    assert up.spatial_shape == x.spatial_shape
    assert up.batch_size == x.batch_size
    kernel = weight[:1, :, :1]
    again = sc.functional.subm_conv(up, kernel)  # the rebuilt sites work like any others
    assert torch.equal(again.features, sc.functional.subm_conv(expected, kernel).features)
    assert sc.functional.inverse_conv(y, weight, **options).sites is up.sites


def test_like_names_the_sites_to_return_to() -> None:
    """Other sites of the same extent; the parent's own sites; sites that know nothing."""
    x = random_input(30, 1, SIZE)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    y = F.conv2d(x, weight, stride=2, padding=1)
    other = random_input(25, 1, SIZE, seed=5)
    for target in (other, x):
        for coarse in (y, sc.SparseTensor(y.features, y.coords, y.spatial_shape, 1)):
            up = sc.functional.inverse_conv(coarse, weight, stride=2, padding=1, like=target)
            assert up.sites is target.sites
            full = F.conv_transpose2d(y.dense(), weight, stride=2, padding=1, output_padding=(0, 1))
            assert_close(up.dense(), full * target.mask())


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch the cyclic garbage collector off: what dies now dies by reference counting."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watched(*tensors: sc.SparseTensor) -> list[weakref.ref[Any]]:
    """Return weak references to the sites, their keys, rulebooks and the rulebooks' tensors."""
    objects: list[Any] = []
    for x in tensors:
        objects += [x.sites, x.sites.index, x.sites.index.keys]
        for rulebook in x.sites.rulebooks.values():
            objects += [rulebook, rulebook.in_rows, rulebook.out_rows]
    return [weakref.ref(entry) for entry in objects]


def alive(references: list[weakref.ref[Any]]) -> list[Any]:
    return [type(entry()).__name__ for entry in references if entry() is not None]


def test_sites_and_rulebooks_die_with_the_last_tensor(no_collector: None) -> None:
    x = random_input(30, 1, SIZE)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    y = sc.functional.subm_conv(x, weight)
    y = F.conv2d(y, weight, stride=2, padding=1)
    z = F.conv_transpose2d(y, weight, stride=2)
    references = watched(x, y, z)
    assert len(references) > 12
    z.features.sum().backward()
    del x, y, z
    assert alive(references) == []


def test_a_u_net_with_its_backward_pass_leaves_nothing(no_collector: None) -> None:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = sc.nn.SubmConv2d(1, 4, 3)
            self.down = nn.Conv2d(4, 8, 2, stride=2)
            self.bottom = nn.Sequential(sc.nn.SubmConv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
            self.up = sc.nn.InverseConv2d(8, 4, 2, stride=2)
            self.leave = sc.nn.SubmConv2d(8, 1, 3)

        def forward(self, x: sc.SparseTensor) -> sc.SparseTensor:
            skip = self.enter(x)
            y = self.up(self.bottom(self.down(skip)), like=skip)
            return self.leave(torch.cat([skip, y], dim=1))

    net = UNet().double()
    x = random_input(40, 1, SIZE, batch=2)
    y = net(x)
    assert y.sites is x.sites
    references = watched(x, y, *(x.replace(x.features) for _ in range(1)))
    references += [weakref.ref(layer.sites) for layer in x.sites._layers.values() if layer.sites]
    y.features.sum().backward()
    del x, y
    assert alive(references) == []
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_like_leaves_nothing(no_collector: None) -> None:
    x = random_input(30, 1, SIZE)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    y = F.conv2d(x, weight, stride=2, padding=1)
    other = random_input(25, 1, SIZE, seed=5)
    up = sc.functional.inverse_conv(y, weight, stride=2, padding=1, like=other)
    references = watched(y, other, up)
    kept = watched(x)
    del y, other, up
    dead = alive(references)
    assert "Sites" in dead  # y's, which x keeps for the next call
    assert len([name for name in dead if name == "Sites"]) == 1
    del x
    assert alive(references) == alive(kept) == []


def test_memory_stays_flat_over_a_loop_of_new_scans(no_collector: None) -> None:
    down = nn.Conv2d(1, 2, 3, stride=2, padding=1).double()
    up = sc.nn.InverseConv2d(2, 1, 3, stride=2, padding=1).double()
    counts = []
    for number in range(6):
        x = random_input(20 + number, 1, SIZE, seed=number)
        up(down(x)).features.sum().backward()
        kinds = (Sites, Rulebook, Tensor)
        living = [entry for entry in gc.get_objects() if issubclass(type(entry), kinds)]
        counts.append([sum(issubclass(type(entry), kind) for entry in living) for kind in kinds])
        del living
    assert counts[1:] == counts[1:2] * 5


def test_a_child_alone_keeps_its_way_back_and_nothing_else(no_collector: None) -> None:
    """The parent's coordinates and the one rulebook live on; its other rulebooks do not."""
    x = random_input(30, 1, SIZE)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    sc.functional.subm_conv(x, weight)
    y = F.conv2d(x, weight, stride=2, padding=1)
    sites = weakref.ref(x.sites)
    rulebooks = {geometry.kind.value: weakref.ref(r) for geometry, r in x.sites.rulebooks.items()}
    del x
    assert sites() is None
    assert rulebooks["submanifold"]() is None
    assert rulebooks["regular"]() is not None
    del y
    assert rulebooks["regular"]() is None


def test_tensors_that_shared_sites_share_them_in_another_dtype() -> None:
    x = random_input(10, 1, SIZE)
    assert x.half().sites is x.sites
    assert x.to(torch.float32).sites is x.sites
    assert x.detach().sites is x.sites
    mask = random_mask(1, SIZE, 0.5)
    assert sc.SparseTensor.from_dense(torch.ones(1, 1, *SIZE), mask).sites is not x.sites


def test_the_sites_that_a_layer_would_take_anyway_need_no_second_rulebook() -> None:
    x = random_input(20, 2, (6, 6))
    for geometry in (make_geometry((1, 1)), make_geometry((3, 3), kind=Kind.SUBMANIFOLD)):
        sites, rulebook = x.sites.convolve(geometry)
        assert sites is x.sites
        assert x.sites.convolve(geometry, like=x.sites)[1] is rulebook
    back = x.sites.inverse(make_geometry((1, 1)), like=x.sites)
    assert back[0] is x.sites
    assert back[1].in_rows is x.sites.inverse(make_geometry((1, 1)))[1].in_rows
    assert len(x.sites.rulebooks) == 2
