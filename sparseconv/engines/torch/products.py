"""The products of the plain engine: matrix products of blocks of rows.

A matrix product's bits depend on how many rows it has and, at odd sizes, on the number of threads,
because BLAS chooses its kernels by size. So products run on blocks of one fixed number of rows,
with the columns padded to a multiple of ``COLUMN_STEP``: then a row's result depends on that row
alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from sparseconv.core.dtypes import summable, tree_sum
from sparseconv.core.private_torch import Arguments, Result
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.protocol import Epilogue
from sparseconv.engines.torch import block_products

BLOCK_ROWS = 64
COLUMN_STEP = 16  # columns
REDUCE_BLOCK_ROWS = 1024


def exact(product: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a product run in the dtypes that it chose, whatever autocast is on around it."""

    @functools.wraps(product)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        features = args[0]
        assert isinstance(features, Tensor)
        with torch.autocast(features.device.type, enabled=False):
            return product(*args, **kwargs)

    return run


@exact
def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution: gather rows, multiply in blocks, add to the output rows."""
    if features.device.type != "cpu":
        return block_products.gather_gemm_scatter(features, weight, rulebook)
    _, groups, c_in, c_out = weight.shape
    x, w = summable(features), summable(weight)
    w = padded(w)
    columns = w.shape[-1]
    out = x.new_zeros(rulebook.n_out, groups, c_out)
    for cell, (start, end) in enumerate(zip(rulebook.splits, rulebook.splits[1:], strict=False)):
        if start == end or c_in == 0:
            continue
        rows = _in_blocks(x, rulebook.in_rows[start:end], BLOCK_ROWS)
        blocks = rows.reshape(-1, BLOCK_ROWS, groups, c_in).transpose(1, 2)
        product = products(blocks, w[cell].expand(blocks.shape[0], groups, c_in, columns))
        product = product.transpose(1, 2)
        product = product.reshape(-1, groups, columns)[: end - start, :, :c_out]
        out.index_add_(0, rulebook.out_rows[start:end], product)
    return out.reshape(rulebook.n_out, groups * c_out).to(features.dtype)


def pack_weight(weight: Tensor) -> Tensor:
    """Return the weight as it is."""
    return weight


def gather_gemm_epilogue(
    features: Tensor, packed: Tensor, rulebook: Rulebook, epilogue: Epilogue
) -> Tensor:
    """Return the convolution and its epilogue, step by step."""
    return epilogue.apply(gather_gemm_scatter(features, packed, rulebook))


@exact
def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: products of blocks of pairs, added in a tree of fixed shape."""
    if features.device.type != "cpu":
        return block_products.gather_gemm_reduce(features, grad, rulebook, groups)
    x, g = summable(features), summable(grad)
    c_in, c_out = x.shape[1] // groups, g.shape[1] // groups
    weight = x.new_zeros(rulebook.num_cells, groups, c_in, c_out)
    for cell, (start, end) in enumerate(zip(rulebook.splits, rulebook.splits[1:], strict=False)):
        if start == end:
            continue
        left = _in_blocks(x, rulebook.in_rows[start:end], REDUCE_BLOCK_ROWS)
        right = _in_blocks(g, rulebook.out_rows[start:end], REDUCE_BLOCK_ROWS)
        left = padded(left.reshape(-1, REDUCE_BLOCK_ROWS, groups, c_in)).permute(0, 2, 3, 1)
        right = padded(right.reshape(-1, REDUCE_BLOCK_ROWS, groups, c_out)).transpose(1, 2)
        weight[cell] = tree_sum(products(left, right))[:, :c_in, :c_out]
    return weight.to(features.dtype)


def _in_blocks(x: Tensor, rows: Tensor, block: int) -> Tensor:
    """Return ``x[rows]`` with zero rows behind it, up to a multiple of ``block``."""
    padded = x.new_zeros(-(-rows.numel() // block) * block, x.shape[1])
    torch.index_select(x, 0, rows, out=padded[: rows.numel()])
    return padded


def padded(x: Tensor) -> Tensor:
    """Return ``x`` with zeros behind its last axis, up to a multiple of ``COLUMN_STEP``."""
    missing = -x.shape[-1] % COLUMN_STEP
    return torch.nn.functional.pad(x, (0, missing)) if missing else x


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return the matrix products of ``[B, G, M, K]`` and ``[B, G, K, N]``.

    Where there are fewer matrices than threads BLAS cuts the matrices up, and rounds in another
    way. So there are never fewer: the rest are zeros.
    """
    given, threads = left.shape[0] * left.shape[1], torch.get_num_threads()
    missing = threads - given if left.device.type == "cpu" else 0
    matrices = [x.reshape(given, *x.shape[2:]) for x in (left, right)]
    if missing > 0:
        matrices = [torch.nn.functional.pad(x, (0, 0, 0, 0, 0, missing)) for x in matrices]
    product = torch.bmm(*matrices)[:given]
    return product.reshape(*left.shape[:2], *product.shape[1:])
