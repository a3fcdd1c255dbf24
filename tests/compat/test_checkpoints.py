"""Checkpoints of other libraries: every layout by its definition, names, guesses and reports."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparseconv as sc
from sparseconv.compat.checkpoints import CheckpointReport
from sparseconv.compat.checkpoints.layouts import LAYOUTS

Cell = tuple[int, ...]


def first_fastest(cell: Cell, kernel: Cell) -> int:
    """Return the number of a cell where the first axis runs fastest."""
    number, step = 0, 1
    for place, size in zip(cell, kernel, strict=True):
        number, step = number + place * step, step * size
    return number


def last_fastest(cell: Cell, kernel: Cell) -> int:
    return first_fastest(cell[::-1], kernel[::-1])


def torchsparse(cell: Cell, kernel: Cell) -> int:
    odd = torch.Size(kernel).numel() % 2
    return first_fastest(cell, kernel) if odd else last_fastest(cell, kernel)


# per library: the shape of a weight, and where the number of cell, input and output lies in it
Place = Callable[[Cell, int, int, Cell], tuple[int, ...]]
DEFINITIONS: dict[str, tuple[Callable[[int, int, Cell], tuple[int, ...]], Place]] = {
    "spconv": (lambda i, o, k: (o, *k, i), lambda c, i, o, k: (o, *c, i)),
    "spconv-2.0": (lambda i, o, k: (*k, o, i), lambda c, i, o, k: (*c, o, i)),
    "spconv-1": (lambda i, o, k: (*k, i, o), lambda c, i, o, k: (*c, i, o)),
    "mmcv": (lambda i, o, k: (*k, i, o), lambda c, i, o, k: (*c, i, o)),
    "minkowski": (
        lambda i, o, k: (torch.Size(k).numel(), i, o),
        lambda c, i, o, k: (first_fastest(c, k), i, o),
    ),
    "torchsparse": (
        lambda i, o, k: (torch.Size(k).numel(), i, o),
        lambda c, i, o, k: (torchsparse(c, k), i, o),
    ),
    "sparseconvnet": (
        lambda i, o, k: (torch.Size(k).numel(), 1, i, o),
        lambda c, i, o, k: (last_fastest(c, k), 0, i, o),
    ),
    "warpconvnet": (
        lambda i, o, k: (torch.Size(k).numel(), i, o),
        lambda c, i, o, k: (last_fastest(c, k), i, o),
    ),
    "fvdb": (lambda i, o, k: (o, i, *k), lambda c, i, o, k: (o, i, *c)),
    "open3d": (lambda i, o, k: (*k[::-1], i, o), lambda c, i, o, k: (*c[::-1], i, o)),
}
CONVS: dict[str, Any] = {
    "conv": torch.nn.Conv3d,
    "transposed": torch.nn.ConvTranspose3d,
    "inverse": sc.nn.InverseConv3d,
    "submanifold": sc.nn.SubmConv3d,
}


def written(name: str, kernel: Cell, c_in: int, c_out: int) -> Tensor:
    """Return a weight of a library whose entries are all different, each where it belongs."""
    shape, place = DEFINITIONS[name]
    weight = torch.full(shape(c_in, c_out, kernel), -1.0)
    numbers = itertools.product(itertools.product(*map(range, kernel)), range(c_in), range(c_out))
    for number, (cell, i, o) in enumerate(numbers):
        weight[place(cell, i, o, kernel)] = number
    assert weight.min() == 0
    return weight


def expected(kind: str, kernel: Cell, c_in: int, c_out: int) -> Tensor:
    """Return the same numbers in PyTorch's layout."""
    cells = torch.arange(float(torch.Size(kernel).numel() * c_in * c_out))
    weight = cells.reshape(*kernel, c_in, c_out)
    order = (3, 4, 0, 1, 2) if kind in ("transposed", "inverse") else (4, 3, 0, 1, 2)
    return weight.permute(order)


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("kind", CONVS)
@given(data=st.data())
@settings(max_examples=8)
def test_a_kernel_arrives_where_its_library_reads_it(
    name: str, kind: str, data: st.DataObject
) -> None:
    sizes = (3, 5) if kind == "submanifold" else (1, 2, 3, 4)
    kernel = tuple(data.draw(st.sampled_from(sizes)) for _ in range(3))
    c_in, c_out = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    stride = {} if kind == "submanifold" else {"stride": 2}  # one cell of stride 1: see below
    model = torch.nn.Sequential(CONVS[kind](c_in, c_out, kernel, bias=False, **stride))
    key = f"0.{LAYOUTS[name].leaf}"
    report = sc.load_checkpoint(model, {key: written(name, kernel, c_in, c_out)}, name)
    assert torch.equal(model[0].weight.detach(), expected(kind, kernel, c_in, c_out))
    assert report.source == name
    back = sc.convert_weights(model.state_dict(), model, "model", name)
    assert torch.equal(back[key].flatten(), written(name, kernel, c_in, c_out).flatten())


@pytest.mark.parametrize("name", ["spconv", "spconv-2.0"])
@pytest.mark.parametrize("layer", [torch.nn.Conv3d, sc.nn.SubmConv3d])
def test_one_cell_is_read_as_spconv_reads_it(name: str, layer: Any) -> None:
    """spconv multiplies by ``weight.view(I, O)``, whatever its axes are called."""
    model, x = torch.nn.Sequential(layer(3, 5, 1, bias=False)), torch.randn(7, 3)
    shape, _ = DEFINITIONS[name]
    weight = torch.randn(shape(3, 5, (1, 1, 1)))
    sc.load_checkpoint(model, {"0.weight": weight}, name)
    torch.testing.assert_close(x @ model[0].weight.detach().flatten(1).t(), x @ weight.view(3, 5))
    back = sc.convert_weights(model.state_dict(), model, "model", name)
    assert torch.equal(back["0.weight"], weight)


@pytest.mark.parametrize("name", ["minkowski", "torchsparse", "sparseconvnet"])
def test_one_cell_may_be_a_matrix(name: str) -> None:
    model = torch.nn.Sequential(sc.nn.SubmConv3d(3, 5, 1, bias=False))
    weight = torch.randn(3, 5)
    sc.load_checkpoint(model, {f"0.{LAYOUTS[name].leaf}": weight}, name)
    assert torch.equal(model[0].weight.detach().flatten(1), weight.t())


@pytest.mark.parametrize("name", ["sparseconvnet", "warpconvnet"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_arrive_at_their_channels(name: str, groups: int) -> None:
    model = torch.nn.Sequential(sc.nn.SubmConv3d(4, 8, 3, groups=groups, bias=False))
    weight = torch.randn(27, groups, 4 // groups, 8 // groups)
    sc.load_checkpoint(model, {"0.weight": weight}, name)
    for group in range(groups):
        ours = model[0].weight.detach().unflatten(0, (groups, -1))[group]  # [O / G, I / G, *k]
        assert torch.equal(ours.flatten(2).permute(2, 1, 0), weight[:, group])


def test_a_channelwise_kernel_of_minkowski_is_depthwise() -> None:
    model = torch.nn.Sequential(sc.nn.SubmConv3d(4, 4, 3, groups=4, bias=False))
    weight = torch.randn(27, 4)
    sc.load_checkpoint(model, {"0.kernel": weight}, "minkowski")
    ours = model[0].weight.detach()[:, 0].permute(3, 2, 1, 0).reshape(27, 4)
    assert torch.equal(ours, weight)
    back = sc.convert_weights(model.state_dict(), model, "model", "minkowski")
    assert torch.equal(back["0.kernel"], weight)


class Net(torch.nn.Module):
    """Layers of every kind, as backbones have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            sc.nn.SubmConv3d(4, 16, 3, bias=False), torch.nn.BatchNorm1d(16), torch.nn.ReLU()
        )
        self.down = torch.nn.Conv3d(16, 32, 3, 2, 1)
        self.norm = torch.nn.BatchNorm3d(32)
        self.mix = sc.nn.SubmConv3d(32, 24, 1)
        self.up = torch.nn.ConvTranspose3d(24, 16, 2, 2, bias=False)
        self.head = torch.nn.Linear(16, 5)


def randomised(seed: int = 0) -> Net:
    net = Net()
    draw = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(value.shape, generator=draw)
        if value.is_floating_point()
        else torch.tensor(7)
        for name, value in net.state_dict().items()
    }
    net.load_state_dict(state)
    return net


def assert_equal(left: torch.nn.Module, right: torch.nn.Module) -> None:
    other = right.state_dict()
    for name, value in left.state_dict().items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "torch"])
@pytest.mark.parametrize("source", ["named", "auto"])
def test_a_network_comes_back_from_every_library(name: str, source: str) -> None:
    net, new = randomised(), Net()
    state = sc.convert_weights(net.state_dict(), net, "model", name)
    report = sc.load_checkpoint(new, state, name if source == "named" else "auto")
    assert_equal(net, new)
    assert not report.problems
    assert len(report.entries) == len(net.state_dict())


def test_what_trainers_put_around_it_is_taken_off(tmp_path: Path) -> None:
    net = randomised()
    wrapped = {f"module.{name}": value for name, value in net.state_dict().items()}
    file = tmp_path / "last.pth"
    torch.save({"epoch": 3, "model_state": wrapped, "lr": 0.1}, file)
    new = Net()
    sc.load_checkpoint(new, file)
    assert_equal(net, new)
    new = Net()
    sc.load_checkpoint(new, str(file))
    assert_equal(net, new)


def test_other_names_are_told_by_order_and_said_so() -> None:
    net, new = randomised(), Net()
    state = sc.convert_weights(net.state_dict(), net, "model", "spconv")
    modules = {name.rpartition(".")[0] for name in state}
    renamed = {module: f"backbone.layer{number}" for number, module in enumerate(sorted(modules))}
    other = {
        f"{renamed[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
        for name, value in state.items()
    }
    report = sc.load_checkpoint(new, other, "spconv")
    assert_equal(net.stem, new.stem)
    assert_equal(net.up, new.up)
    assert all(entry.by_order for entry in report.of("taken", "converted"))
    assert "by order" in str(report)


def test_nothing_happens_in_silence() -> None:
    net, new = randomised(), Net()
    before = {name: value.clone() for name, value in new.state_dict().items()}
    state = sc.convert_weights(net.state_dict(), net, "model", "spconv")
    del state["down.bias"]
    state["extra.weight"] = torch.zeros(3)
    with pytest.raises(sc.SparseConvValueError, match=r"down.bias: missing.*extra.weight: unexp"):
        sc.load_checkpoint(new, state, "spconv")
    for name, value in new.state_dict().items():
        assert torch.equal(value, before[name]), name
    report = sc.load_checkpoint(new, state, "spconv", strict=False)
    assert [entry.key for entry in report.problems] == ["down.bias", "extra.weight"]
    assert torch.equal(new.down.weight, net.down.weight)
    state["down.weight"] = torch.zeros(2, 2)
    with pytest.raises(sc.SparseConvValueError, match=r"down.weight: unfit"):
        sc.load_checkpoint(new, state, "spconv", strict=False)


def test_shapes_that_do_not_tell_the_library_are_refused() -> None:
    """Where channels are equal, spconv 1 and 2.0 look the same; a layer that differs tells."""
    square = torch.nn.Sequential(sc.nn.SubmConv3d(16, 16, 3, bias=False))
    state = {"0.weight": torch.randn(3, 3, 3, 16, 16)}
    with pytest.raises(sc.SparseConvValueError, match=r'source: must be named.*"spconv-2.0"'):
        sc.load_checkpoint(square, state)
    both = torch.nn.Sequential(*square, sc.nn.SubmConv3d(16, 8, 3, bias=False))
    state["1.weight"] = torch.randn(3, 3, 3, 16, 8)
    assert sc.load_checkpoint(both, state).source == "spconv-1"
    assert torch.equal(both[0].weight.permute(2, 3, 4, 1, 0), state["0.weight"])
    even = torch.nn.Sequential(torch.nn.Conv3d(4, 8, 2, 2, bias=False))
    with pytest.raises(sc.SparseConvValueError, match='"minkowski", "torchsparse"'):
        sc.load_checkpoint(even, {"0.kernel": torch.randn(8, 4, 8)})
    three = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, bias=False))  # C_in is the kernel's size
    with pytest.raises(sc.SparseConvValueError, match='"model", "torch", "spconv"'):
        sc.load_checkpoint(three, {"0.weight": torch.randn(8, 3, 3, 3, 3)})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: sc.load_checkpoint(net, {}), "no tensors"),
        (lambda net: sc.load_checkpoint(net, 3), "checkpoint: must be a file"),
        (lambda net: sc.load_checkpoint({}, {}), "model: must be"),
        (lambda net: sc.load_checkpoint(net, {"a": torch.ones(1)}, "caffe"), "source: must be"),
        (
            lambda net: sc.convert_weights(net.state_dict(), net, "model", "caffe"),
            "target: must be",
        ),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(sc.SparseConvError, match=words):
        call(Net())


def test_a_library_without_groups_is_not_written_for() -> None:
    net = torch.nn.Sequential(sc.nn.SubmConv3d(4, 8, 3, groups=2, bias=False))
    with pytest.raises(sc.SparseConvValueError, match=r"spconv: 0.weight: it has no layers of 2"):
        sc.convert_weights(net.state_dict(), net, "model", "spconv")


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("code ran",))

    file = tmp_path / "trap.pth"
    torch.save({"state_dict": Trap()}, file)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        sc.load_checkpoint(Net(), file)


def test_the_report_prints_a_line_for_each_tensor() -> None:
    net = randomised()
    report = sc.load_checkpoint(Net(), net.state_dict())
    assert isinstance(report, CheckpointReport)
    assert len(str(report).splitlines()) == 1 + len(net.state_dict())


@pytest.mark.parametrize("name", ["spconv-1", "spconv-2.0", "spconv", "torchsparse"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_model_written_for_spconv_takes_them_too(name: str, version: int) -> None:
    """The same numbers as a model of PyTorch's layers gives with the same checkpoint."""
    from sparseconv.compat.spconv import flat, pytorch  # noqa: PLC0415  # loads a namespace

    spconv: Any = pytorch if version == 2 else flat
    model = spconv.SparseSequential(
        spconv.SubMConv3d(4, 6, 3, indice_key="a"),
        spconv.SparseConv3d(6, 8, 3, 2, padding=1, indice_key="b"),
        spconv.SubMConv3d(8, 5, 1),
        spconv.SparseInverseConv3d(5, 4, 3, indice_key="b"),
    )
    native = torch.nn.Sequential(
        sc.nn.SubmConv3d(4, 6, 3),
        torch.nn.Conv3d(6, 8, 3, 2, 1),
        sc.nn.SubmConv3d(8, 5, 1),
        sc.nn.InverseConv3d(5, 4, 3, 2, 1),
    )
    state = sc.convert_weights(native.state_dict(), native, "model", name)
    report = sc.load_checkpoint(model, state, name)
    assert not report.problems
    coords = torch.rand(2, 6, 6, 6, generator=torch.Generator().manual_seed(0)).lt(0.3).nonzero()
    x = sc.SparseTensor(torch.randn(len(coords), 4), coords, (6, 6, 6), batch_size=2)
    with torch.no_grad():
        theirs = model(spconv.SparseConvTensor(x.features, coords.int(), [6, 6, 6], 2))
        torch.testing.assert_close(theirs.dense(), native(x).dense())
    back = sc.convert_weights(model.state_dict(), model, "model", "torch")
    for key, value in native.state_dict().items():
        assert torch.equal(back[key], value), key
