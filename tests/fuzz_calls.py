"""Random calls of the library, right and wrong, with what judges them.

A call that PyTorch's dense functions take must come out as they say; any other must raise one of
our exceptions. ``test_fuzz.py`` makes a few hundred, ``tools/fuzz.py`` as many as it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from cases import CONV_TRANSPOSE, assert_close, dense_conv, dense_inverse, generator
from torch import Tensor

import sparseconv as sc

POOL = {
    "max": (F.max_pool1d, F.max_pool2d, F.max_pool3d),
    "avg": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
}
LONGEST = {1: 9, 2: 5, 3: 4, 4: 3}
WEIRD = [
    None, -1, 0, 1.5, "two", True, (), (1, 2, 3, 4, 5, 6), [0], (1, "a"), math.nan, 2**40,
     torch.tensor(1), torch.ones(2), object(), {},
]  # fmt: skip


class WrongOutcome(AssertionError):
    """A call that should have raised did not, or the reverse."""


def tensor(rng: Random, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normal numbers."""
    source = generator(rng.randint(0, 2**16))
    return torch.randn(*size, generator=source, dtype=torch.float64).to(dtype)


def sparse_tensor(rng: Random, axes: int, channels: int, batch: int | None = None) -> Any:
    """Return a SparseTensor on random sites in random order, often few or none."""
    size = tuple(rng.randint(1, LONGEST[axes]) for _ in range(axes))
    batch = rng.randint(1, 3) if batch is None else batch
    cells = batch * math.prod(size)
    count = rng.choice([0, 1, cells, cells // 2, cells // 4, 3])
    source = generator(rng.randint(0, 2**16))
    places = torch.randperm(cells, generator=source)[: min(count, cells)]
    coords = torch.stack(torch.unravel_index(places, (batch, *size)), dim=1)
    features = torch.randn(len(coords), channels, generator=source, dtype=torch.float64)
    return sc.SparseTensor(features, coords, size, batch)


def spoiled(rng: Random, options: dict[str, Any], share: int = 4) -> tuple[dict[str, Any], bool]:
    """Return the options, once in ``share`` calls with one of them replaced, and whether so."""
    if not options or rng.randint(1, share) > 1:
        return options, False
    name = rng.choice(sorted(options))
    return options | {name: rng.choice(WEIRD)}, True


def outcome(call: Callable[[], Any]) -> Any:
    """Return the call's result, or our exception; any other exception goes on."""
    try:
        return call()
    except sc.SparseConvError as error:
        if "\n" in str(error):
            raise WrongOutcome(f"more than one line: {error}") from error
        return error


def judged(call: Callable[[], Any], judge: Callable[[], Tensor], lenient: bool = False) -> str:
    """Compare the call with the dense one, at the active output sites.

    Args:
        call: ours; returns a SparseTensor or raises.
        judge: returns the dense output or raises.
        lenient: whether we may take what PyTorch refuses, and refuse what it takes.
    """
    result = outcome(call)
    try:
        expected: Any = judge()
    except Exception as error:  # whatever PyTorch says of wrong arguments
        expected = error
    if isinstance(result, Exception) and isinstance(expected, Exception):
        return "refused"
    if isinstance(result, Exception) or isinstance(expected, Exception):
        # of windows that hang out by ceil_mode, PyTorch refuses in 3D what it takes in 2D
        lenient = lenient or "smaller than kernel size" in str(expected)
        if lenient:
            return "refused" if isinstance(result, Exception) else "taken"
        raise WrongOutcome(f"ours: {result!r}; PyTorch: {expected!r}")
    assert result.shape == expected.shape
    assert_close(result.dense(), torch.where(result.mask(), expected, 0.0))
    assert torch.isfinite(result.features).all()
    return "compared"


def rarely(rng: Random, usual: Any, odd: Any) -> Any:
    """Return ``odd`` once in a dozen times."""
    return odd if rng.randint(1, 12) == 1 else usual


def per_axis(rng: Random, axes: int, low: int, high: int) -> Any:
    one = rng.randint(low, high)
    several = tuple(rng.randint(low, high) for _ in range(axes))
    return rng.choice([one, several])


def construct(rng: Random) -> str:
    """Make a SparseTensor of anything; the judge is a dictionary of sites."""
    axes, rows = rng.randint(1, 4), rng.randint(0, 6)
    source = generator(rng.randint(0, 2**16))
    high = rng.choice([1, 3, 4])
    coords = torch.randint(rarely(rng, 0, -1), high + 1, (rows, 1 + axes),
                           generator=source)  # fmt: skip
    dtype = rarely(rng, rng.choice([torch.int64, torch.int32, torch.int8]), torch.float32)
    options, _ = spoiled(
        rng,
        {
            "features": tensor(rng, rarely(rng, rows, rows + 1), 2),
            "coords": coords.to(dtype),
            "spatial_shape": rng.choice([None, (5,) * axes, [5] * axes, (3,) * axes, (9,) * axes]),
            "batch_size": rng.choice([None, 5, 9]),
            "reduce": rng.choice([None, "sum", "mean", "max", "min", "first", "last"]),
        },
        share=3,
    )
    result = outcome(lambda: sc.SparseTensor(**options))
    legal = legal_construction(**options)
    if isinstance(result, Exception) == legal:
        raise WrongOutcome(f"{result!r} for {options}")
    if not legal:
        return "refused"
    expected: dict[tuple[int, ...], list[Tensor]] = {}
    for site, row in zip(options["coords"].tolist(), options["features"], strict=True):
        expected.setdefault(tuple(site), []).append(row)
    assert len(expected) == result.num_sites
    for site, row in zip(result.coords.tolist(), result.features, strict=True):
        assert_close(row, merged(torch.stack(expected[tuple(site)]), options["reduce"]))
    small = math.prod(result.shape) < 10**6
    if small and options["coords"].numel() and options["coords"].min() >= 0:
        assert result.dense().count_nonzero() == result.features.count_nonzero()
    return "compared"


def merged(rows: Tensor, reduce: str | None) -> Tensor:
    """Return the rows of one site as one."""
    functions = {"sum": rows.sum(0), "mean": rows.mean(0), "max": rows.amax(0), "min": rows.amin(0)}
    return functions.get(reduce or "", rows[-1] if reduce == "last" else rows[0])


def legal_construction(
    features: Any, coords: Any, spatial_shape: Any, batch_size: Any, reduce: Any
) -> bool:
    """Return whether DESIGN lets a SparseTensor be made of this."""
    if not isinstance(features, Tensor) or not isinstance(coords, Tensor):
        return False
    if not features.is_floating_point() or features.ndim != 2 or coords.is_floating_point():
        return False
    if coords.ndim != 2 or not 2 <= coords.shape[1] <= 5 or len(features) != len(coords):
        return False
    rows = coords.tolist()
    last = max((row[0] for row in rows), default=-1)
    unlike = len({tuple(row) for row in rows}) == len(rows)
    return (
        all(row[0] >= 0 for row in rows)
        and (batch_size is None or (is_integer(batch_size) and batch_size > last))
        and (spatial_shape is None or fits(spatial_shape, rows, coords.shape[1] - 1))
        and reduce in (None, *sc.autograd.segments.REDUCTIONS)
        and (unlike or reduce is not None)
    )


def is_integer(value: Any) -> bool:
    """Return whether this is an integer of Python's or PyTorch's, and no bool."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype == torch.int64
    return type(value) is int


def fits(spatial_shape: Any, rows: list[list[int]], axes: int) -> bool:
    """Return whether ``spatial_shape`` is one, and holds the sites."""
    if not isinstance(spatial_shape, list | tuple) or len(spatial_shape) != axes:
        return False
    if any(not is_integer(size) or size < 0 for size in spatial_shape):
        return False
    return all(
        0 <= entry < size
        for row in rows
        for entry, size in zip(row[1:], spatial_shape, strict=True)
    )


def voxelize(rng: Random) -> str:
    """Voxelize anything; the judge is a dictionary of voxels."""
    axes, count = rng.randint(1, 4), rng.randint(0, 12)
    dtype = rng.choice([torch.float64, torch.float32, torch.float16])
    options, wrong = spoiled(
        rng,
        {
            "xyz": 2 * tensor(rng, count, axes, dtype=dtype),
            "voxel_size": rng.choice([0.5, 1.0, [0.75] * axes, 100]),
            "features": rng.choice([None, tensor(rng, count, 2)]),
            "batch": rng.choice([None, torch.arange(count) % 3]),
            "bounds": rng.choice([None, ([-2.0] * axes, [2.0] * axes)]),
            "reduce": rng.choice(["mean", "sum", "max", "min", "first", "last"]),
        },
        share=3,
    )
    result = outcome(lambda: sc.voxelize(**options))
    if isinstance(result, Exception):
        if wrong:
            return "refused"
        raise WrongOutcome(f"{result!r} for {options}")
    x, to_points = result
    if wrong:
        return "taken"
    size = torch.tensor(options["voxel_size"], dtype=torch.float64)
    cells = torch.floor((options["xyz"].double() - torch.tensor(to_points.origin)) / size)
    batch = options["batch"] if options["batch"] is not None else torch.zeros(count)
    keys = torch.cat([batch[:, None], cells], dim=1).long().tolist()
    inside = torch.ones(count, dtype=torch.bool)
    if options["bounds"] is not None:
        inside = ((options["xyz"].double() >= -2) & (options["xyz"].double() < 2)).all(1)
    values = options["features"] if options["features"] is not None else torch.ones(count, 1)
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for key, value, kept in zip(keys, values, inside.tolist(), strict=True):
        if kept:
            groups.setdefault(tuple(key), []).append(value)
    assert sorted(groups) == [tuple(site) for site in x.coords.tolist()]
    for site, row in zip(x.coords.tolist(), x.features, strict=True):
        assert_close(row, merged(torch.stack(groups[tuple(site)]), options["reduce"]))
    assert torch.equal(to_points.rows >= 0, inside)
    assert to_points(x).shape == (count, x.channels)
    return "compared"


def window(rng: Random, axes: int, groups: bool = True) -> dict[str, Any]:
    """Return random options of a convolution, many of which no convolution can have."""
    options = {
        "stride": per_axis(rng, axes, rarely(rng, 1, 0), 3),
        "padding": per_axis(rng, axes, rarely(rng, 0, -1), 2),
        "dilation": per_axis(rng, axes, rarely(rng, 1, 0), 2),
    }
    if groups:
        options["groups"] = rarely(rng, 1, rng.randint(2, 3))
    return options


def parameters(
    rng: Random, axes: int, c_in: int, c_out: int, odd: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias, which may not fit."""
    kernel = tuple(rng.randint(1, 3) for _ in range(axes))
    if odd:
        kernel = rarely(rng, tuple(size + 1 - size % 2 for size in kernel), kernel)
    weight = tensor(rng, c_out, c_in, *kernel)
    bias = rarely(rng, rng.choice([None, tensor(rng, c_out)]), tensor(rng, c_out + 1))
    return weight, bias


def conv(rng: Random) -> str:
    """Run a regular convolution, through PyTorch's function or ours."""
    axes = rng.randint(1, 4)
    x = sparse_tensor(rng, axes, rarely(rng, 2, 3))
    options = window(rng, axes)
    weight, bias = parameters(rng, axes, 2 // options["groups"] or 1, 6)
    options, wrong = spoiled(rng, options)
    function = sc.functional.conv
    if not wrong and axes < 4 and rng.choice([True, False]):
        function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    return judged(
        lambda: function(x, weight, bias, **options),
        lambda: safe_conv(x.dense(), weight, bias, **options),
        lenient=wrong,
    )


def safe_conv(t: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
    """Convolve densely; four axes by the reference, whose checks are PyTorch's in three."""
    if weight.ndim == 6:
        # any three of the axes, and the one that is left
        cut = {k: v[1:] if isinstance(v, tuple) else v for k, v in options.items()}
        F.conv3d(t[:1, :, 0], weight[:, :, 0], bias, **cut)
        head = {k: v[:1] if isinstance(v, tuple) else v for k, v in options.items()}
        F.conv1d(t[:1, ..., 0, 0, 0], weight[..., 0, 0, 0], bias, **head)
    return dense_conv(t, weight, bias, **options)


def subm(rng: Random) -> str:
    """Run a submanifold convolution."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    drawn = window(rng, axes)
    weight, bias = parameters(rng, axes, 2 // drawn["groups"] or 1, 6, odd=True)
    options, wrong = spoiled(rng, {k: drawn[k] for k in ("dilation", "groups")})

    def dense() -> Tensor:
        if any(size % 2 == 0 for size in weight.shape[2:]):
            raise ValueError("even")
        return dense_conv(x.dense(), weight, bias, padding="same", **options)

    return judged(lambda: sc.functional.subm_conv(x, weight, bias, **options), dense, lenient=wrong)


def transposed(rng: Random) -> str:
    """Run a transposed convolution."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    weight, bias = parameters(rng, axes, 2, rarely(rng, 2, 3))
    options = window(rng, axes) | {"output_padding": per_axis(rng, axes, 0, 2)}
    function = CONV_TRANSPOSE[axes]
    return judged(
        lambda: function(x, weight, bias, **options),
        lambda: function(x.dense(), weight, bias, **options),
    )


def inverse(rng: Random) -> str:
    """Go down by a strided convolution and back by its inverse."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 1)
    weight, _ = parameters(rng, axes, 1, 2)
    options = window(rng, axes, groups=False)
    down = outcome(lambda: sc.functional.conv(x, weight, **options))
    if isinstance(down, Exception):
        return "refused"
    back, wrong = spoiled(rng, options)
    like = rng.choice([None, x])

    def dense() -> Tensor:
        if back != options:
            raise ValueError("another geometry")
        return dense_inverse(down.dense(), weight, None, x.spatial_shape, **back)

    return judged(
        lambda: sc.functional.inverse_conv(down, weight, **back, like=like), dense, lenient=wrong
    )


def pool(rng: Random) -> str:
    """Run a max or average pooling; an average of zeros is that of inactive sites."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    how = rng.choice(["max", "avg"])
    options = {
        "kernel_size": per_axis(rng, axes, 1, 3),
        "stride": rng.choice([None, per_axis(rng, axes, 1, 3)]),
        "padding": per_axis(rng, axes, 0, 1),
        "ceil_mode": rng.choice([True, False]),
    }
    if how == "max":
        options["dilation"] = per_axis(rng, axes, 1, 2)
    else:
        options["count_include_pad"] = True
        if axes > 1:  # torch's avg_pool1d knows none
            options["divisor_override"] = rng.choice([None, None, 1, 3, -2])
    # avg_pool is read by torch's own parser, whose errors these are
    options, wrong = spoiled(rng, options) if how == "max" else (options, False)
    function = POOL[how][axes - 1]
    fill = -math.inf if how == "max" else 0.0
    return judged(
        lambda: function(x, **options), lambda: function(x.dense(fill), **options), lenient=wrong
    )


def arithmetic(rng: Random) -> str:
    """Combine two tensors, or one with something else."""
    axes = rng.randint(1, 3)
    x = sparse_tensor(rng, axes, 2)
    same = sc.SparseTensor(x.features.flip(0), x.coords.flip(0), x.spatial_shape, x.batch_size)
    kinds = {
        "same": same,
        "fewer": sc.prune(x, torch.arange(x.num_sites) % 2 == 0),
        "grid": sparse_tensor(rng, axes, 2),
        "number": rng.choice([2, 0.5, True, -1]),
        "dense": tensor(rng, *x.shape),
        "channels": tensor(rng, 1, 2, *(1,) * axes),
        "weird": rng.choice(WEIRD),
    }
    kind = rng.choice(sorted(kinds))
    other, name = kinds[kind], rng.choice(["add", "sub", "mul"])
    function = getattr(torch, name)

    def dense() -> Tensor:
        if isinstance(other, sc.SparseTensor):
            if other.shape != x.shape:
                raise ValueError("another grid")
            return function(x.dense(), other.dense())
        if isinstance(other, Tensor) or type(other) in (int, float, bool):
            return function(x.dense(), other)
        raise TypeError("neither number nor tensor")

    operators: dict[str, Callable[[], Any]] = {
        "add": lambda: x + other, "sub": lambda: x - other, "mul": lambda: x * other,
    }  # fmt: skip
    if kind == "weird" and (isinstance(other, float) and math.isnan(other)):
        return "taken"
    return judged(operators[name], dense, lenient=kind == "weird")


def sets(rng: Random) -> str:
    """Join tensors, take parts of them."""
    axes = rng.randint(1, 4)
    x = sparse_tensor(rng, axes, 2, batch=2)
    y = rng.choice([x, sc.prune(x, torch.arange(x.num_sites) % 2 == 0),
                              sparse_tensor(rng, axes, 2), rng.choice(WEIRD)])  # fmt: skip
    legal = isinstance(y, sc.SparseTensor) and y.shape == x.shape
    name = rng.choice(["union", "intersect", "difference", "cat", "crop", "collate"])
    if name == "crop":
        return crop(rng, x)
    if name == "collate":
        result = outcome(lambda: sc.collate([x, y]))
        fits = isinstance(y, sc.SparseTensor)
    elif name == "cat":
        # what is no tensor never gets past torch's own parser
        plain = isinstance(y, sc.SparseTensor) and rng.choice([True, False])
        result = outcome(lambda: torch.cat([x, y], dim=1) if plain else sc.cat([x, y], fill=0.0))
        fits = legal
    else:
        result, fits = outcome(lambda: getattr(sc, name)(x, y)), legal
    if isinstance(result, Exception) == fits:
        raise WrongOutcome(f"{name}: {result!r} for {x} and {y!r}")
    if not fits:
        return "refused"
    if name == "cat":
        assert torch.equal(result.dense(), torch.cat([x.dense(), y.dense()], dim=1))
    elif name == "collate":
        assert result.num_sites == x.num_sites + y.num_sites
    else:
        masks = {"union": x.mask() | y.mask(), "intersect": x.mask() & y.mask(),
                 "difference": x.mask() & ~y.mask()}  # fmt: skip
        assert torch.equal(result.mask(), masks[name])
        assert torch.equal(result.dense(), x.dense() * masks[name])
    return "compared"


def crop(rng: Random, x: Any) -> str:
    """Cut a box out."""
    axes = len(x.spatial_shape)
    options, wrong = spoiled(
        rng, {"low": per_axis(rng, axes, 0, 3), "high": per_axis(rng, axes, 1, 4)}
    )
    result = outcome(lambda: sc.crop(x, **options))
    if isinstance(result, Exception):
        return "refused"
    if wrong:
        return "taken"
    lows, highs = (
        value if isinstance(value, tuple) else (value,) * axes for value in options.values()
    )
    padded = F.pad(x.dense(), (0, 5) * axes)
    box = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
    assert torch.equal(result.dense(), padded[(slice(None), slice(None), *box)])
    return "compared"


def sample(rng: Random) -> str:
    """Interpolate at points, or look coordinates up."""
    axes = rng.randint(1, 4)
    x = sparse_tensor(rng, axes, 2)
    points = torch.cat([torch.zeros(3, 1), tensor(rng, 3, axes).float()], dim=1)
    options, wrong = spoiled(
        rng,
        {"points": points, "mode": rng.choice(["linear", "nearest"]),
         "renormalise": rng.choice([True, False])},
    )  # fmt: skip
    result = outcome(lambda: sc.interpolate(x, **options))
    if isinstance(result, Exception) and not wrong:
        raise WrongOutcome(f"{result!r} for {options}")
    if isinstance(result, Tensor):
        assert result.shape == (len(options["points"]), 2)
        assert torch.isfinite(result).all()
    coords = rng.choice([x.coords, x.coords + 1, x.coords - 100, rng.choice(WEIRD)])
    found = outcome(lambda: x.at(coords))
    if not isinstance(found, Exception):
        table = {tuple(site): row for row, site in enumerate(x.coords.tolist())}
        assert found[0].tolist() == [table.get(tuple(site), -1) for site in coords.tolist()]
    return "refused" if isinstance(result, Exception) else "compared"


def at(rng: Random) -> str:
    """Take samples of a batch, and put them together again."""
    x = sparse_tensor(rng, rng.randint(1, 4), 2)
    parts = [0, -1, slice(None), slice(1, None), slice(None, None, -1), len(x), *WEIRD]
    parts += [(slice(None), slice(1, None)), (slice(1), slice(None), ...), (slice(None), 1)]
    part = rng.choice(parts)
    try:
        result = outcome(lambda: x[part])
    except IndexError:  # as a sequence's, which ends a loop over the samples
        assert isinstance(part, int)
        return "refused"
    if isinstance(result, Exception):
        return "refused"
    if isinstance(part, tuple):  # channels too
        assert_close(result.dense(), x.dense()[part])
        return "compared"
    taken = range(len(x))[part]
    assert_close(result.dense(), x.dense()[[taken] if isinstance(part, int) else list(taken)])
    return "compared"


CALLS: dict[str, Callable[[Random], str]] = {
    call.__name__: call
    for call in (
        construct, voxelize, conv, subm, transposed, inverse, pool, arithmetic, sets, sample, at,
    )
}  # fmt: skip
