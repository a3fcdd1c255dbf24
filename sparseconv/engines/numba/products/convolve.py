"""The products of the Numba engine: convolution and weight gradient, by tiles of output rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseconv.core.dtypes import Array, summable, wider
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.memory import empty
from sparseconv.engines.numba.machine.arrays import (
    LEAST,
    SHARES,
    array,
    by_shares,
    columns_of,
    computed_in,
    contiguous,
    converted,
    copy,
    padded,
    without_padding,
)
from sparseconv.engines.numba.machine.vectors import BFLOAT_DOTS, VECTOR_BYTES
from sparseconv.engines.numba.products import bfloat, narrow, outer
from sparseconv.engines.numba.products import tiles as products
from sparseconv.engines.numba.products.groups import Lanes, product_by_lanes, reduce_by_lanes
from sparseconv.engines.numba.products.pack import laid_back, laid_out
from sparseconv.engines.numba.products.reduce import reduced
from sparseconv.engines.numba.rulebooks.build import SPAN, TILE_ROWS, tiled_pairs, window_rows
from sparseconv.engines.protocol import Epilogue

# of the channels of a group, or of joined ones, on both sides, in a weight gradient in bfloat16
FEW_PRODUCTS = 512
LARGE_WEIGHT = 2**19  # bytes that stay in the second-level cache no longer


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight in the layout of the kernel that multiplies by it.

    Attributes:
        weight: ``[K, G, c_in, c_out]``.
        blocks: the columns of a block in one run of memory: ``[K, G, blocks, c_in, block]``, or for
            bfloat16 dot products ``[K, G, blocks, c_in / 2, block, 2]``.
        narrow: whether ``blocks`` is instead that of few columns, ``[K, vectors, columns, lanes]``.
        lanes: how groups of few channels lie in vectors, and ``blocks`` too; None for others.
    """

    weight: Tensor
    blocks: Array
    narrow: bool = False
    lanes: Lanes | None = None


def pack_weight(weight: Tensor) -> PackedWeight:
    """Return the weight, laid out for its kernel."""
    weight = weight.detach()
    cells, groups, c_in, c_out = weight.shape
    lanes = Lanes.of(groups, c_in, c_out, weight.dtype)
    if lanes is not None:
        return PackedWeight(weight, lanes.weight(weight), lanes=lanes)
    if not _dots(weight.dtype):
        dtype = computed_in(weight.dtype)
        few = narrow.columns_for(c_in, c_out, dtype) if groups == 1 else 0
        if few:
            channels, each = columns_of(c_in, dtype)[0], VECTOR_BYTES // dtype.itemsize
            source = _wide(summable(weight), channels, few).reshape(cells, -1, each, few)
            return PackedWeight(weight, contiguous(source.transpose(0, 1, 3, 2)), narrow=True)
        columns, block = columns_of(c_out, dtype)
        return PackedWeight(weight, _blocks(summable(weight), columns, block))
    columns, block = columns_of(c_out, np.dtype(np.float32))
    pairs = _blocks(weight.view(torch.uint16), columns, block, 2)
    return PackedWeight(weight, pairs.reshape(*pairs.shape[:4], block, 2))


def _blocks(weight: Tensor, columns: int, block: int, pairs: int = 1) -> Array:
    """Return the columns of a block in one run; arguments as of :func:`laid_out`."""
    found = laid_out(weight, columns, block, pairs)
    if found is not None:
        return found
    cells, groups, c_in, _ = weight.shape
    steps = -(-c_in // pairs)
    source = _wide(weight, steps * pairs, columns)
    source = source.reshape(cells, groups, steps, pairs, -1, block).transpose(0, 1, 4, 2, 5, 3)
    return contiguous(source).reshape(cells, groups, -1, steps, block * pairs)


def _wide(weight: Tensor, rows: int, columns: int) -> Array:
    """Return the weight with zeros behind its last two axes."""
    source: Array = weight.numpy()
    if source.shape[2:] == (rows, columns):
        return source
    out = np.zeros((*source.shape[:2], rows, columns), source.dtype)
    out[:, :, : source.shape[2], : source.shape[3]] = source
    return out


def _dots(dtype: torch.dtype) -> bool:
    """Return whether products in ``dtype`` are made of bfloat16 dot products."""
    return dtype == torch.bfloat16 and BFLOAT_DOTS


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution, tile by tile of output rows."""
    return gather_gemm_epilogue(features, pack_weight(weight), rulebook, Epilogue())


def gather_gemm_epilogue(
    features: Tensor, packed: PackedWeight, rulebook: Rulebook, epilogue: Epilogue
) -> Tensor:
    """Return the convolution; a tile gets its epilogue while it is in the cache."""
    if packed.lanes is not None:
        return product_by_lanes(features, packed.lanes, packed.blocks, rulebook, epilogue)
    if packed.narrow:
        return _narrow_product(features, packed, rulebook, epilogue)
    _, groups, c_in, c_out = packed.weight.shape
    dots = _dots(features.dtype)
    x = features.detach().reshape(rulebook.n_in, groups, c_in)
    x = padded(x, c_in + c_in % 2) if dots else x
    columns = packed.blocks.shape[2] * packed.blocks.shape[4]
    dtype = features.dtype if dots else wider(features.dtype)
    rows = empty((rulebook.n_out, groups * columns), dtype)
    out = rows.view(rulebook.n_out, groups, columns)
    tiled = tiled_pairs(rulebook)
    own = _own(features.dtype)(x)
    extras = _extras(epilogue, (groups, c_out), columns, out.dtype)
    target = rows.view(torch.uint16).numpy() if dots else rows.numpy()
    blocks = groups * packed.blocks.shape[2]
    span, parts = _cut(tiled.starts.shape[1] - 1, blocks, packed.blocks.nbytes)
    tasks = -(-(tiled.starts.shape[1] - 1) // span) * parts
    single = tiled.unreached is not None and epilogue.factor is None and epilogue.other is None
    if single and not dots:
        pairs = tiled.in_rows, tiled.out_rows, tiled.starts, tiled.unreached
        _, bias, _, relu = extras
        cut = TILE_ROWS, span, parts
        by_shares(
            products.single_tiles, tasks, 1, own, packed.blocks, *pairs, *cut, bias, relu, target
        )
    else:
        arrays = own, packed.blocks, tiled.in_rows, tiled.out_places, tiled.starts, tiled.order
        loop = bfloat.bfloat_tiles if dots else products.scatter_tiles
        by_shares(loop, tasks, 1, *arrays, TILE_ROWS, span, parts, *extras, target)
    if columns > c_out:
        rows = empty((rulebook.n_out, groups * c_out), dtype)
        copy(out[:, :, :c_out], rows.view(-1, groups, c_out))
    return converted(rows, features.dtype)


def _cut(tiles: int, blocks: int, weight_bytes: int) -> tuple[int, int]:
    """Return how many tiles a task takes, and into how many parts the columns are cut.

    A task with more rows reads each weight less often, so a few columns of many rows are better
    than all columns of a few where the weight is large; a small one stays in the cache anyway.
    """
    threads = torch.get_num_threads()
    tasks = SHARES * threads if threads > 1 else 1
    ways = [(span, parts) for parts in (1, blocks) for span in (SPAN, SPAN // 2, 1)]
    if weight_bytes > LARGE_WEIGHT:
        ways = [(SPAN, 1), *ways[3:]]
    enough = (way for way in ways if -(-tiles // way[0]) * way[1] >= tasks)
    return next(enough, (1, blocks))


def _narrow_product(
    features: Tensor, packed: PackedWeight, rulebook: Rulebook, epilogue: Epilogue
) -> Tensor:
    """Return the product with few output columns, row by row."""
    blocks, c_out = packed.blocks, packed.weight.shape[3]
    _, vectors, columns, lanes = blocks.shape
    x = array(padded(features, vectors * lanes))
    out = empty((rulebook.n_out, columns), wider(features.dtype))
    own, target = window_rows(rulebook), out.numpy()
    pairs = own.rows, own.cells, own.starts, own.order
    extras = _extras(epilogue, (1, c_out), columns, out.dtype)
    by_shares(narrow.narrow_rows, rulebook.n_out, LEAST, x, blocks, *pairs, *extras, target)
    return converted(without_padding(out, c_out), features.dtype)


def _bits(x: Tensor) -> Array:
    """Return the bits of bfloat16 numbers."""
    return contiguous(x.detach().view(torch.uint16).numpy())


def _extras(
    epilogue: Epilogue, shape: tuple[int, int], columns: int, dtype: torch.dtype
) -> tuple[Array, Array, Array, bool]:
    """Return a kernel's epilogue; the first and the third without rows for nothing.

    The factor of each row, what is added to the sums of each output column ``[G, columns]``, what
    is added at the end ``[n_out, G, c_out]``, and whether negative results become 0.
    """
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    no_factor, no_bias, no_other = _nothing(shape, columns, dtype)
    factor, bias, other = epilogue.factor, epilogue.bias, epilogue.other
    return (
        no_factor if factor is None else array(factor[:, 0].to(wide)),
        no_bias if bias is None else array(padded(bias.detach().to(wide).reshape(shape), columns)),
        no_other if other is None else _own(dtype)(other).reshape(-1, *shape),
        epilogue.relu,
    )


@functools.lru_cache(maxsize=64)
def _nothing(
    shape: tuple[int, int], columns: int, dtype: torch.dtype
) -> tuple[Array, Array, Array]:
    """Return what stands for no factor, no bias and nothing added; nobody writes to it."""
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    own = _own(dtype)
    return (
        array(torch.empty(0, dtype=wide)),
        array(torch.zeros(shape[0], columns, dtype=wide)),
        own(torch.empty(0, *shape, dtype=dtype)),
    )


def _own(dtype: torch.dtype) -> Callable[[Tensor], Array]:
    """Return what makes an array of rows in ``dtype`` for a product."""
    return _bits if _dots(dtype) else array


def _joinable(groups: int, c_out: int) -> int:
    """Return how many groups side by side are taken for one in the weight gradient.

    A narrow group would fill its vector with zeros; so its neighbours' channels fill it instead.
    What one group's rows and another's gradients make is dropped. (A product may not do so: in it
    a zero of the weight would meet the other group's values, which need not be finite.)
    """
    fitting = [
        n for n in range(1, groups + 1) if groups % n == 0 and n * c_out <= VECTOR_BYTES // 4
    ]
    return max(fitting, default=1)


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: partial sums over groups of tiles, added in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    lanes = Lanes.of(groups, c_in, c_out, features.dtype)
    if lanes is not None:
        return reduce_by_lanes(features, grad, rulebook, lanes)
    count = _joinable(groups, c_out)
    if count > 1:  # on the diagonal of what the joined groups have
        joined = gather_gemm_reduce(features, grad, rulebook, groups // count)
        blocks = joined.reshape(-1, groups // count, count, c_in, count, c_out)
        return blocks.diagonal(dim1=2, dim2=4).movedim(-1, 2).flatten(1, 2).contiguous()
    # of few products the rows take longer to lay out for dot products than to convert
    dots = _dots(features.dtype) and c_in * c_out > FEW_PRODUCTS
    own = _bits if dots else array
    loop = bfloat.bfloat_reduce if dots else outer.reduce_tiles
    x = own(features).reshape(rulebook.n_in, groups, c_in)
    dtype = np.dtype(np.float32) if dots else x.dtype
    columns, block = columns_of(c_out, dtype)
    g = own(padded(grad.detach().reshape(rulebook.n_out, groups, c_out), columns))
    shape = (groups, columns // block, c_in, block)
    sums = reduced(loop, x, g, rulebook, shape, dtype)
    weight = laid_back(sums, c_out)
    if weight is None:
        apart = contiguous(sums.transpose(0, 1, 3, 2, 4)).reshape(-1, groups, c_in, columns)
        weight = torch.from_numpy(apart[..., :c_out])
        return weight.to(features.dtype).contiguous()
    return weight.to(features.dtype)
