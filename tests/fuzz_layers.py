"""More random calls: partial and deformable convolution, power pooling, resampling.

Where PyTorch has no such function, :mod:`sparseconv.reference` is the judge.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from cases import CONV, assert_close, dense_conv
from fuzz_calls import (
    CALLS,
    WrongOutcome,
    judged,
    outcome,
    parameters,
    per_axis,
    rarely,
    sparse_tensor,
    spoiled,
    tensor,
    window,
)
from torch import Tensor

import sparseconv as sc
from sparseconv import reference

LP_POOL = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)
MODES = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "area", "no")


def partial(rng: Random) -> str:
    """Run a partial convolution."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    drawn = window(rng, axes) | {"normalize": rarely(rng, rng.choice(["ratio", "mean"]), "sum")}
    submanifold = rng.choice([True, False])
    weight, bias = parameters(rng, axes, 2 // drawn["groups"] or 1, 6, odd=submanifold)
    names = ("dilation", "groups", "normalize") if submanifold else tuple(drawn)
    options, wrong = spoiled(rng, {name: drawn[name] for name in names})
    kind = "subm_partial_conv" if submanifold else "partial_conv"

    def judge() -> Tensor:
        if submanifold and any(size % 2 == 0 for size in weight.shape[2:]):
            raise ValueError("even")
        if options["normalize"] not in ("ratio", "mean"):
            raise ValueError("normalize")
        plain = {name: value for name, value in options.items() if name != "normalize"}
        dense_conv(x.dense(), weight, bias, **plain, **({"padding": "same"} if submanifold else {}))
        y, _ = getattr(reference, kind)(x.dense(), x.mask(), weight, bias, **options)
        return y

    function = getattr(sc.functional, kind)
    return judged(lambda: function(x, weight, bias, **options), judge, lenient=wrong)


def deform(rng: Random) -> str:
    """Run a deformable convolution, with offsets on its output sites or on others."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    options = window(rng, axes, groups=False)
    weight, bias = parameters(rng, axes, 2, 3)
    cells = math.prod(weight.shape[2:])
    guide = outcome(lambda: sc.functional.conv(x, weight, **options))
    if isinstance(guide, Exception):
        return "refused"
    groups = rarely(rng, 1, 2)
    offset = guide.replace(tensor(rng, guide.num_sites, groups * cells * axes))
    share = rng.choice([None, guide.replace(tensor(rng, guide.num_sites, groups * cells))])
    given: dict[str, Any] = options | {"offset": offset, "mask": share}
    given, wrong = spoiled(rng, given)

    def judge() -> Tensor:
        if any(given[name] is not value for name, value in (options | {"offset": offset}).items()):
            raise ValueError("another geometry")
        mask = None if given["mask"] is None else share.dense()
        return reference.deform_conv(x.dense(), offset.dense(), weight, bias, **options, mask=mask)

    return judged(
        lambda: sc.functional.deform_conv(x, weight=weight, bias=bias, **given),
        judge,
        lenient=wrong,
    )


def power(rng: Random) -> str:
    """Run a power-average pooling; an odd power of negative values has no root."""
    axes = rng.randint(1, 3)
    x = abs(sparse_tensor(rng, axes, 2))
    options: dict[str, Any] = {
        "norm_type": rng.choice([1.0, 2.0, 3.0, 2]),
        "kernel_size": rng.randint(1, 3) if axes == 1 else per_axis(rng, axes, 1, 3),
        "stride": rng.choice([None, per_axis(rng, axes, 1, 3)]),
        "ceil_mode": rng.choice([True, False]),
    }
    pool = LP_POOL[axes - 1]
    return judged(lambda: pool(x, **options), lambda: pool(x.dense(), **options))


def resample(rng: Random) -> str:
    """Interpolate to another extent."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    options: dict[str, Any] = {"mode": rng.choice(MODES)}
    if rng.choice([True, False]):
        options["size"] = per_axis(rng, axes, rarely(rng, 1, 0), 9)
    else:
        options["scale_factor"] = rng.choice([0.5, 1.5, 2, 3.0])
    if rng.choice([True, False]):
        options["align_corners"] = rng.choice([None, True, False])
    options, wrong = spoiled(rng, options, share=6)
    # modes without a sparse meaning are refused
    lenient = wrong or options["mode"] in ("area", "no")
    return judged(
        lambda: F.interpolate(x, **options), lambda: F.interpolate(x.dense(), **options), lenient
    )


def given_sites(rng: Random) -> str:
    """Convolve to the sites of another tensor."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    weight, bias = parameters(rng, axes, 2, 3)
    options = window(rng, axes, groups=False)
    like = rng.choice([x, sparse_tensor(rng, axes, 1)])
    try:
        expected: Any = CONV[axes](x.dense(), weight, bias, **options)
        like = rarely(rng, sc.SparseTensor.from_dense(expected.relu()[:, :1]), like)
    except Exception as error:  # whatever PyTorch says of wrong arguments
        expected = error
    result = outcome(lambda: sc.functional.conv(x, weight, bias, **options, like=like))
    fits = isinstance(expected, Tensor) and like.mask()[:, 0].shape == expected[:, 0].shape
    if isinstance(result, Exception) == fits:
        raise WrongOutcome(f"{result!r} for {x} at {like}; dense {expected!r}")
    if not fits:
        return "refused"
    assert_close(result.dense(), torch.where(like.mask(), expected, 0.0))
    return "compared"


CALLS |= {call.__name__: call for call in (partial, deform, power, resample, given_sites)}
