"""The products of the plain engine on devices: one batched matrix product for all kernel cells.

Rows are gathered, multiplied block by block in their own dtype (so that half precisions reach the
matrix units, which accumulate in float32), and the products of each output row are added in the
order of their kernel cells: three operators, without atomics.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from sparseconv.core.dtypes import summable
from sparseconv.core.index import MAX_COPY, to_device
from sparseconv.core.private_torch import viewed_anew
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch.blocks import (
    REDUCE_PAIRS,
    SCATTER_PAIRS,
    Outer,
    Part,
    outer_blocks,
    scatter_parts,
)

GROUPED_CAPABILITY = (9, 0)  # from here on PyTorch has a kernel for grouped products in bfloat16
# at other widths BLAS multiplies the last columns of some rows of a block by another kernel
COLUMN_STEP = 16  # columns
GROUPED_STEP = 8  # channels: its rows begin on multiples of 16 bytes


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution, for ranges of output rows whose products fit ``MAX_COPY``."""
    cells, groups, c_in, c_out = weight.shape
    if 0 in (rulebook.num_pairs, c_in, groups * c_out):
        return features.new_zeros(rulebook.n_out, groups * c_out)
    columns = -(-c_out // COLUMN_STEP) * COLUMN_STEP if c_in > 1 else c_out
    weight = weight.to(features.dtype)
    if columns > c_out:
        weight = torch.nn.functional.pad(weight, (0, columns - c_out))
    copied = max(c_in, columns, c_in * columns // SCATTER_PAIRS)  # a weight for each block
    row_bytes = cells * groups * copied * features.element_size()
    rows = _floor_power(MAX_COPY // row_bytes)
    rows = min(rows, _floor_power(2 * rulebook.n_out))  # one part: one layout for all widths
    _, parts = rulebook.derived(
        f"torch: parts of {rows}", lambda rulebook: scatter_parts(rulebook, rows)
    )
    sums = [_sums(_products(features, weight, part), part) for part in parts]
    out = sums[0] if len(sums) == 1 else torch.cat(sums)
    if columns > c_out:
        out = out.view(-1, groups, columns)[:, :, :c_out].reshape(-1, groups * c_out)
    return out


def _floor_power(number: int) -> int:
    """Return the largest power of two up to ``number``, at least 1."""
    return 1 << max(number.bit_length() - 1, 0)


def _products(features: Tensor, weight: Tensor, part: Part) -> Tensor:
    """Return the product of each row of the blocks, ``[B * SCATTER_PAIRS, G * c_out]``."""
    _, groups, c_in, c_out = weight.shape
    rows = features.index_select(0, part.rows)
    if groups == 1 and grouped(features, c_in, c_out):
        return torch.nn.functional.grouped_mm(rows, weight[:, 0].contiguous(), offs=part.ends)
    of_blocks = weight.index_select(0, part.cells)  # [B, G, c_in, c_out]
    if c_in == 1:
        product = rows.view(-1, SCATTER_PAIRS, groups, 1) * of_blocks.transpose(1, 2)
        return product.view(rows.shape[0], groups * c_out)
    by_group = rows.view(-1, SCATTER_PAIRS, groups, c_in).transpose(1, 2).flatten(0, 1)
    product = torch.bmm(by_group, of_blocks.flatten(0, 1))
    if groups == 1:
        return product.flatten(0, 1)
    product = product.view(-1, groups, SCATTER_PAIRS, c_out).transpose(1, 2)
    return product.reshape(rows.shape[0], groups * c_out)


def _sums(products: Tensor, part: Part) -> Tensor:
    """Return the sum of each output row's products; float32 inside for half precisions."""
    if part.order.numel() == 0:
        return products.new_zeros(part.starts.numel() - 1, products.shape[1])
    return embedding_bag(part.order, products, part.starts, mode="sum", include_last_offset=True)


def grouped(features: Tensor, c_in: int, c_out: int) -> bool:
    """Return whether grouped products are fast for such rows: elsewhere PyTorch loops on the host.

    They save the copies of the weight, one a block, that a batched product needs.
    """
    fits = features.dtype == torch.bfloat16 and c_in % GROUPED_STEP == c_out % GROUPED_STEP == 0
    return fits and _has_grouped(features.device)


@functools.cache
def _has_grouped(device: torch.device) -> bool:
    """Return whether a device multiplies groups of rows in bfloat16 by one kernel."""
    if device.type == "cuda":
        known = torch.version.hip is None and hasattr(torch.nn.functional, "grouped_mm")
        return known and torch.cuda.get_device_capability(device) >= GROUPED_CAPABILITY
    rows = torch.zeros(GROUPED_STEP, GROUPED_STEP, dtype=torch.bfloat16, device=device)
    try:
        torch.nn.functional.grouped_mm(rows, rows[None], offs=to_device([len(rows)], device).int())
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def gather_gemm_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook, groups: int) -> Tensor:
    """Return the weight gradient: outer products of blocks, added in their order."""
    c_in, c_out = features.shape[1] // groups, grad.shape[1] // groups
    shape = (rulebook.num_cells, groups, c_in, c_out)
    if 0 in (rulebook.num_pairs, *shape):
        return features.new_zeros(shape)
    grad = grad.to(features.dtype)
    most = rulebook.num_pairs * max(c_in, c_out) * features.element_size()
    if groups == 1 and grouped(features, c_in, c_out) and most <= MAX_COPY:
        return _grouped_reduce(features, grad, rulebook)
    outer = rulebook.derived("torch: outer", outer_blocks)
    matrix_bytes = max(REDUCE_PAIRS * max(c_in, c_out), c_in * c_out) * groups
    most = max(MAX_COPY // (matrix_bytes * features.element_size()), 1)
    ranges = range(0, outer.firsts[-1], most)
    sums = [_outer_sums(features, grad, outer, (first, first + most), groups) for first in ranges]
    total = sums[0] if len(sums) == 1 else sum(map(summable, sums[1:]), summable(sums[0]))
    return viewed_anew(total.to(features.dtype), shape)


def _grouped_reduce(features: Tensor, grad: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the weight gradient by one product in groups of pairs."""
    ends = rulebook.derived(
        "torch: ends", lambda rulebook: to_device(rulebook.splits[1:], features.device).int()
    )
    left = features.index_select(0, rulebook.in_rows)
    right = grad.index_select(0, rulebook.out_rows)
    weight = torch.nn.functional.grouped_mm(left.t(), right, offs=ends)
    return viewed_anew(weight, (rulebook.num_cells, 1, *weight.shape[1:]))


def _outer_sums(
    features: Tensor, grad: Tensor, outer: Outer, blocks: tuple[int, int], groups: int
) -> Tensor:
    """Return the sums of the outer products of a range of blocks, ``[K, G * c_in * c_out]``."""
    first, last = blocks[0] * REDUCE_PAIRS, blocks[1] * REDUCE_PAIRS
    empty = outer.empty_between(first, last)
    sides = []
    for values, rows in ((features, outer.in_rows), (grad, outer.out_rows)):
        side = values.index_select(0, rows[first:last])
        if values is grad:
            side.index_fill_(0, empty, 0)
        side = side.view(-1, REDUCE_PAIRS, groups, values.shape[1] // groups)
        sides.append(side.transpose(1, 2).flatten(0, 1))  # [B * G, REDUCE_PAIRS, C]
    left, right = sides
    product = torch.bmm(left.transpose(1, 2), right)
    numbers = outer.numbers[: product.shape[0] // groups]
    starts = (
        outer.starts
        if blocks[0] == 0 and len(numbers) == len(outer.numbers)
        else ((outer.starts - blocks[0]).clamp_(0, len(numbers)))
    )
    rows = product.view(len(numbers), -1)
    return embedding_bag(numbers, rows, starts, mode="sum", include_last_offset=True)
