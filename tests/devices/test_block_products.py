"""Products on devices in several parts have the bits of the whole; halves reach grouped ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import assert_close, permuted, random_input
from devices import bench
from torch import Tensor

import sparseconv as sc
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch import block_products, maps
from sparseconv.engines.torch.blocks import Parts

pytestmark = pytest.mark.skipif(bench.why_not() is not None, reason=f"{bench.why_not()}")
SIZE = (9, 10, 11)


def on_bench(x: sc.SparseTensor, weight: Tensor, **window: int) -> list[Tensor]:
    """Return output and gradients of a convolution on the bench, brought back."""
    t, w = x.to(bench.NAME).requires_grad_(), weight.to(bench.NAME).requires_grad_()
    groups = x.channels // weight.shape[1]
    with sc.engine("torch"):
        y = torch.nn.functional.conv3d(t, w, None, **window, groups=groups)
        cotangent = torch.sin(torch.arange(y.features.numel())).reshape(y.features.shape)
        grads = torch.autograd.grad(y.features, (t.features, w), cotangent.to(y.features))
    return [part.detach().cpu() for part in (y.features, *grads)]


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("window", [{"padding": 1}, {"stride": 2, "padding": 1}])
def test_parts_have_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, groups: int, window: dict[str, int], as_users_run: None
) -> None:
    """Output and input gradient to the bit; the weight gradient adds in other runs of blocks."""
    x = random_input(300, 8, SIZE, batch=2, dtype=torch.float32)
    weight = torch.randn(24, 8 // groups, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = on_bench(x, weight, **window)
    for module in (block_products, maps):
        monkeypatch.setattr(module, "MAX_COPY", 2**17)
    parted = on_bench(permuted_back(x), weight, **window)
    for mine, theirs in zip(parted[:2], whole[:2], strict=True):
        assert torch.equal(mine, theirs)
    assert_close(parted[2], whole[2].double(), torch.float32)


def permuted_back(x: sc.SparseTensor) -> sc.SparseTensor:
    """Return the same tensor on sites of its own, without caches."""
    return sc.SparseTensor(x.features, x.coords, x.spatial_shape, x.batch_size)


def test_a_small_bound_makes_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    build: Callable[[Rulebook, int], Parts] = block_products.scatter_parts

    def counted(rulebook: Rulebook, rows: int) -> Parts:
        parts = build(rulebook, rows)
        counts.append(len(parts.parts))
        return parts

    monkeypatch.setattr(block_products, "scatter_parts", counted)
    monkeypatch.setattr(block_products, "MAX_COPY", 2**17)
    x = random_input(300, 8, SIZE, dtype=torch.float32)
    on_bench(x, torch.randn(8, 8, 3, 3, 3), padding=1)
    assert min(counts) > 2


@pytest.mark.parametrize("order", [0, 1])
def test_bfloat16_reaches_grouped_products(order: int) -> None:
    """By the log of operators; and the numbers are those of float64 to 2e-2."""
    x = random_input(300, 16, SIZE, dtype=torch.bfloat16)
    x = permuted(x, order) if order else x
    weight = torch.randn(32, 16, 3, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    on_bench(x, weight, padding=1)  # asks once whether the device has them
    with bench.counting() as counts:
        mine = on_bench(x, weight, padding=1)
    assert sum(n for (name, _), n in counts.launches.items() if name == "_grouped_mm") == 3
    wide = on_bench(permuted_back(x).to(torch.float64), weight.double(), padding=1)
    for half, full in zip(mine, wide, strict=True):
        assert (half.double() - full).abs().max() <= 2e-2 * full.abs().max()
