"""The sites that a layer reaches, merged in parts side by side, are those found one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import LAYERS, Layer, layers
from hypothesis import given
from hypothesis import strategies as st

import sparseconv as sc
from sparseconv.core.geometry import Kind, make_geometry
from sparseconv.engines.numba.keys import index as numba_index
from sparseconv.engines.numba.keys.kernels import MAX_EXACT_KEY, quotient

KINDS = {"conv": Kind.REGULAR, "transposed": Kind.TRANSPOSED}


def reached(layer: Layer, coords: torch.Tensor, engine: str) -> torch.Tensor:
    """Return the coordinates of the output sites."""
    window = dict(layer.window)
    geometry = make_geometry(layer.kernel, kind=KINDS[layer.kind], **window)
    with sc.engines.engine(engine):
        x = sc.SparseTensor(torch.ones(len(coords), 1), coords, (30,) * layer.axes)
        return x.sites.convolve(geometry)[0].coords


@given(
    layer=st.integers(1, 4).flatmap(lambda axes: layers(list(KINDS), axes)),
    count=st.integers(0, 60),
    spread=st.integers(3, 30),
    least=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_parts_are_the_whole(layer: Layer, count: int, spread: int, least: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(0, 3, (count, 1), generator=generator)
    places = torch.randint(0, spread, (count, layer.axes), generator=generator)
    coords = torch.unique(torch.cat([samples, places], dim=1), dim=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_index, "MIN_SITES_PER_MERGE", least)
        found = reached(layer, coords, "numba")
    assert torch.equal(found, reached(layer, coords, "torch"))


@pytest.mark.parametrize("name", [name for name in LAYERS if LAYERS[name].kind in KINDS])
def test_every_kind_of_layer_on_many_sites(name: str) -> None:
    layer = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 30, (40_000, layer.axes), generator=generator)
    samples = torch.arange(len(places))[:, None] % 4
    coords = torch.unique(torch.cat([samples, places], dim=1), dim=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_index, "MIN_SITES_PER_MERGE", 100)
        found = reached(layer, coords, "numba")
    assert torch.equal(found, reached(layer, coords, "torch"))


@given(
    whole=st.integers(-(2**25), 2**25),
    off=st.integers(-2, 2),
    divisor=st.one_of(st.integers(1, 50), st.integers(1, 2**26)),
)
def test_a_quotient_by_an_inverse_is_exact(whole: int, off: int, divisor: int) -> None:
    number = min(max(whole * divisor + off, -MAX_EXACT_KEY), MAX_EXACT_KEY)
    assert quotient(np.int64(number), np.int64(divisor), 1 / divisor) == number // divisor
