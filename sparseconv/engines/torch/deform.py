"""The deformable product of the plain engine: all kernel cells of a range of rows at once.

What a kernel cell reads is a bag of ``Q`` weighted rows, so that one operator makes the columns of
a range of rows; a matrix product in blocks of rows does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from sparseconv.core.dtypes import summable, tree_sum
from sparseconv.core.index import MAX_COPY
from sparseconv.core.rulebook import Taps
from sparseconv.engines.torch.products import BLOCK_ROWS, REDUCE_BLOCK_ROWS, exact, padded, products

CHANNEL_STEP = 16  # channels whose gradient is worked out at once, or a multiple


@exact
def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product: interpolate what the cells read, multiply."""
    _, groups, _, c_out = weight.shape
    if 0 in (*shares.shape, *weight.shape):
        return features.new_zeros(shares.shape[3], groups * c_out)
    x, matrix = _with_absent(features), _as_matrix(weight)
    parts = []
    for rows, part in _parts(taps.rows, summable(shares), features.shape[1]):
        columns = _by_group(_columns(x, part, rows), groups).to(features.dtype)
        product = _in_blocks(columns, matrix.to(columns.dtype), BLOCK_ROWS)
        parts.append(product[:, :, :c_out].flatten(1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@exact
def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the deformable product."""
    if 0 in (*shares.shape, *weight.shape):
        return torch.zeros_like(features), torch.zeros_like(shares), torch.zeros_like(weight)
    x, s, g = _with_absent(features), summable(shares), summable(grad)
    d_weight = torch.zeros_like(_as_matrix(weight))
    d_shares = [s[..., :0]]
    corners = taps.rows.shape[2]
    begin = 0
    for rows, part in _parts(taps.rows, s, corners * features.shape[1]):
        g_part = g[begin : begin + rows.shape[3]]
        begin += rows.shape[3]
        d_weight += _outer(_columns(x, part, rows), g_part, weight)
        d_shares.append(_grad_of_shares(x, g_part, weight, rows))
    d_x = _grad_of_features(g, s, weight, taps)
    cells, groups, c_in, c_out = weight.shape
    d_weight = d_weight.view(groups, cells, c_in, -1)[..., :c_out].transpose(0, 1)
    return d_x.to(features.dtype), torch.cat(d_shares, 3).to(shares.dtype), d_weight.to(weight)


def _with_absent(features: Tensor) -> Tensor:
    """Return the features behind a row of zeros, which stands for absent taps."""
    return pad(summable(features), (0, 0, 1, 0))


def _rows_behind_absent(rows: Tensor) -> Tensor:
    """Return rows ``[H, K, Q, n]`` of taps as those of :func:`_with_absent`, ``[H, n, K, Q]``."""
    moved = rows.movedim(3, 1)
    found = torch.empty(moved.shape, dtype=rows.dtype, device=rows.device)
    return torch.clamp(moved, min=-1, out=found).add_(1)


def _parts(rows: Tensor, shares: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ranges of outputs whose columns, of so many numbers a cell, fit ``MAX_COPY``."""
    cells, count = rows.shape[1], rows.shape[3]
    step = max(MAX_COPY // (cells * max(width, 1) * shares.element_size()), 1)
    for first in range(0, count, step):
        yield rows[..., first : first + step], shares[..., first : first + step]


def _columns(x: Tensor, shares: Tensor, rows: Tensor) -> Tensor:
    """Return what the cells of a range of outputs read, ``[n, K, C]``.

    A share may be infinite or NaN where nothing is read: there it counts 0.
    """
    offset_groups, cells, corners, count = rows.shape
    bags, factors = _rows_behind_absent(rows), shares.movedim(3, 1).contiguous()
    parts = [
        embedding_bag(
            bag.view(-1, corners),
            part.contiguous(),
            per_sample_weights=factor.view(-1, corners),
            mode="sum",
            padding_idx=0,
        )
        for bag, part, factor in zip(bags, x.chunk(offset_groups, dim=1), factors, strict=True)
    ]
    columns = parts[0] if offset_groups == 1 else torch.cat(parts, dim=1)
    return columns.view(count, cells, x.shape[1])


def _by_group(columns: Tensor, groups: int) -> Tensor:
    """Return columns ``[n, K, G * c_in]`` as ``[n, G, K * c_in]``."""
    by_group: Tensor = columns.unflatten(2, (groups, -1)).transpose(1, 2).flatten(2)
    return by_group


def _as_matrix(weight: Tensor) -> Tensor:
    """Return the weight ``[K, G, c_in, c_out]`` as ``[G, K * c_in, c_out]``, padded."""
    return padded(summable(weight).transpose(0, 1).flatten(1, 2))


def _in_blocks(rows: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Return ``[n, G, K]`` times ``[G, K, N]`` in blocks of so many rows, ``[n, G, N]``."""
    count = rows.shape[0]
    if count % size:
        rows = pad(rows, (0, 0, 0, 0, 0, -count % size))
    blocks = rows.view(-1, size, *rows.shape[1:]).transpose(1, 2)
    product = products(blocks, matrix.expand(blocks.shape[0], *matrix.shape))
    return product.transpose(1, 2).flatten(0, 1)[:count]


def _outer(columns: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the weight as a matrix, from a range of outputs."""
    groups = weight.shape[1]
    size = REDUCE_BLOCK_ROWS
    sides = []
    for rows in (_by_group(columns, groups), grad.unflatten(1, (groups, -1))):
        side = pad(padded(rows), (0, 0, 0, 0, 0, -rows.shape[0] % size))
        sides.append(side.view(-1, size, *side.shape[1:]).transpose(1, 2))
    matrix = tree_sum(products(sides[0].transpose(2, 3), sides[1]))
    return matrix[:, : weight.shape[0] * weight.shape[2]]


def _grad_of_columns(grad: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient ``[n, K, G * c_in]`` of the columns; ``weight`` may be part of it."""
    cells, groups, c_in, _ = weight.shape
    matrix = padded(summable(weight).permute(1, 3, 0, 2).flatten(2))
    product = _in_blocks(grad.unflatten(1, (groups, -1)), matrix, BLOCK_ROWS)
    back: Tensor = product[:, :, : cells * c_in].unflatten(2, (cells, c_in))
    return back.transpose(1, 2).flatten(2)


def _grad_of_shares(x: Tensor, grad: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """Return the gradient ``[H, K, Q, n]`` of the shares of a range of outputs."""
    offset_groups = rows.shape[0]
    back = _grad_of_columns(grad, weight).chunk(offset_groups, dim=2)
    parts = x.chunk(offset_groups, dim=1)
    near = _rows_behind_absent(rows)
    found = [
        (part.index_select(0, row.flatten()).view(*row.shape, -1) * b[:, :, None]).sum(3)
        for part, row, b in zip(parts, near, back, strict=True)
    ]
    return torch.stack(found).movedim(1, 3).masked_fill(rows < 0, 0)


def _grad_of_features(grad: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the gradient of the features: each row adds what it was read for, in one order.

    It works on some channels of all outputs at once: a row's sum may not depend on ranges.
    """
    offset_groups, cells, corners, count = taps.rows.shape
    _, groups, c_in, _ = weight.shape
    near = taps.rows.movedim(3, 1).flatten(1)  # [H, n * K * Q]
    ascending, order = torch.sort(near, dim=1, stable=True)
    numbers = torch.arange(taps.n_in + 1, dtype=near.dtype, device=near.device)
    # absent taps come first, and add up in a bag of their own
    starts = pad(
        torch.searchsorted(ascending, numbers.expand(offset_groups, -1).contiguous()), (1, 0)
    )
    factors = shares.movedim(3, 1).flatten(1).gather(1, order)
    d_x = grad.new_zeros(taps.n_in, groups * c_in)
    if order.shape[1] == 0:
        return d_x
    of_column = torch.div(order, corners, rounding_mode="floor")
    width = groups * c_in // offset_groups
    step = MAX_COPY // (cells * count * grad.element_size()) // CHANNEL_STEP * CHANNEL_STEP
    for first, last, back in _slices_of_columns(grad, weight, max(step, CHANNEL_STEP)):
        for group in range(first // width, -(-last // width)):
            low, high = max(first, group * width), min(last, (group + 1) * width)
            sums = embedding_bag(
                of_column[group],
                back[:, low - first : high - first].contiguous(),
                starts[group],
                mode="sum",
                per_sample_weights=factors[group],
                include_last_offset=True,
            )
            d_x[:, low:high] = sums[1:]
    return d_x


def _slices_of_columns(
    grad: Tensor, weight: Tensor, step: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield about ``step`` channels, first and last, and their columns' gradient ``[n * K, C]``."""
    _, groups, c_in, c_out = weight.shape
    if groups == 1:
        for first in range(0, c_in, step):
            part = weight[:, :, first : first + step]
            back = _grad_of_columns(grad, part).flatten(0, 1)
            yield first, first + back.shape[1], back
        return
    taken = max(step // c_in, 1)
    for group in range(0, groups, taken):
        some = slice(group * c_out, (group + taken) * c_out)
        back = _grad_of_columns(grad[:, some], weight[:, group : group + taken]).flatten(0, 1)
        yield group * c_in, group * c_in + back.shape[1], back
