"""The deformable product of the plain engine: kernel cell by kernel cell."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseconv.core.dtypes import summable
from sparseconv.core.index import starts_of
from sparseconv.core.rulebook import Rulebook, Taps
from sparseconv.engines.torch.products import gather_gemm_reduce, gather_gemm_scatter
from sparseconv.engines.torch.rows import segment_sum


def sample_gemm(features: Tensor, shares: Tensor, weight: Tensor, taps: Taps) -> Tensor:
    """Return the deformable product: interpolate the rows of a cell, multiply, add up."""
    x, shares, w = _with_absent(features), summable(shares), summable(weight)
    groups, c_out = weight.shape[1], weight.shape[3]
    out = x.new_zeros(shares.shape[3], groups * c_out)
    rows = _rows_of_taps(taps)
    for cell in range(weight.shape[0]):
        column = _interpolated(x, shares[:, cell], rows[:, cell])
        out += gather_gemm_scatter(column, w[cell : cell + 1], _row_by_row(column))
    return out.to(features.dtype)


def sample_gemm_grads(
    features: Tensor, shares: Tensor, weight: Tensor, grad: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the deformable product, cell by cell."""
    x, s, w = _with_absent(features), summable(shares), summable(weight)
    g, rows = summable(grad), _rows_of_taps(taps)
    d_x, d_shares, d_weight = torch.zeros_like(x), torch.zeros_like(s), torch.zeros_like(w)
    for cell in range(weight.shape[0]):
        column = _interpolated(x, s[:, cell], rows[:, cell])
        pairs = _row_by_row(column)
        d_weight[cell] = gather_gemm_reduce(column, g, pairs, weight.shape[1])[0]
        back = gather_gemm_scatter(g, w[cell : cell + 1].transpose(2, 3), pairs)
        for group, part in enumerate(back.chunk(len(s), dim=1)):
            channels = slice(group * part.shape[1], (group + 1) * part.shape[1])
            near = rows[group, cell]  # [Q, n_out]
            d_shares[group, cell] = (x[near, channels] * part).sum(dim=2)
            spread = (s[group, cell][:, :, None] * part).flatten(0, 1)
            order = torch.argsort(near.flatten(), stable=True)
            counts = torch.bincount(near.flatten(), minlength=len(x))
            starts = starts_of(counts)
            d_x[:, channels] += segment_sum(spread, order, starts)
    d_shares = d_shares.masked_fill(taps.rows < 0, 0)
    return d_x[:-1].to(features.dtype), d_shares.to(shares.dtype), d_weight.to(weight.dtype)


def _with_absent(features: Tensor) -> Tensor:
    """Return the features with a row of zeros behind them, which absent taps read."""
    return torch.nn.functional.pad(summable(features), (0, 0, 0, 1))


def _rows_of_taps(taps: Taps) -> Tensor:
    """Return the rows that taps read, int64 ``[H, K, Q, n_out]``; absent ones the last of all."""
    return torch.where(taps.rows < 0, taps.n_in, taps.rows).long()


def _interpolated(x: Tensor, shares: Tensor, rows: Tensor) -> Tensor:
    """Return what a kernel cell reads, ``[n_out, C]``, from ``shares`` ``[H, Q, n_out]``.

    A share may be infinite or NaN where nothing is read: there it counts 0.
    """
    shares = torch.where(rows == x.shape[0] - 1, 0, shares)
    parts = []
    for group, part in enumerate(x.chunk(len(shares), dim=1)):
        taps = zip(shares[group], rows[group], strict=True)
        parts.append(sum(share[:, None] * part[row] for share, row in taps))
    return torch.cat(parts, dim=1)


def _row_by_row(x: Tensor) -> Rulebook:
    """Return the rulebook of one cell that joins each row of ``x`` with itself."""
    rows = torch.arange(x.shape[0], dtype=torch.int32, device=x.device)
    return Rulebook(rows, rows, (0, x.shape[0]), x.shape[0], x.shape[0])
