"""Write an engine of your own: one function anew, all others taken from the plain engine.

    python examples/new_engine.py

This file is the engine: a module with the functions of ``sparseconv.engines.protocol``. Its product
joins all kernel cells of a site into one row, with zeros where no neighbour is, so that the whole
convolution is one matrix product. One line adds it to the table; a network then runs on it, forward
and backward, and gives the numbers of the others. Takes some seconds.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

import sparseconv as sc
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines import ENGINES
from sparseconv.engines.torch import engine as plain


def gather_gemm_scatter(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Return the convolution as one product.

    Args:
        features: ``[n_in, G * c_in]``.
        weight: ``[K, G, c_in, c_out]``.
        rulebook: which input row meets which output row, for each kernel cell.
    """
    cells, groups, c_in, c_out = weight.shape
    joined = features.new_zeros(rulebook.n_out, groups, cells, c_in)
    for cell in range(cells):
        pairs = slice(*rulebook.splits[cell : cell + 2])
        rows = features[rulebook.in_rows[pairs].long()].reshape(-1, groups, c_in)
        joined[rulebook.out_rows[pairs].long(), :, cell] = rows
    out = torch.einsum("ngkc,kgcd->ngd", joined, weight)
    return out.reshape(rulebook.n_out, groups * c_out)


def gather_gemm_epilogue(
    features: Tensor, packed: Tensor, rulebook: Rulebook, epilogue: Any
) -> Tensor:
    """Return the convolution with its bias, sum and ReLU."""
    return epilogue.apply(gather_gemm_scatter(features, packed, rulebook))


# everything else is the plain engine's
affine_rows = plain.affine_rows
ascends = plain.ascends
bounds = plain.bounds
build_index = plain.build_index
build_rulebook = plain.build_rulebook
column_sum = plain.column_sum
gather_gemm_reduce = plain.gather_gemm_reduce
lookup = plain.lookup
merge_statistics = plain.merge_statistics
normalised_rows = plain.normalised_rows
pack_weight = plain.pack_weight
reached_keys = plain.reached_keys
sample_gemm = plain.sample_gemm
sample_gemm_grads = plain.sample_gemm_grads
scaled_rows = plain.scaled_rows
segment_argmax = plain.segment_argmax
segment_moment = plain.segment_moment
segment_statistics = plain.segment_statistics
segment_sum = plain.segment_sum
why_not = plain.why_not
window_argmax = plain.window_argmax
window_max = plain.window_max
window_pick = plain.window_pick
window_scatter = plain.window_scatter
window_sum = plain.window_sum


def run(engine: str, network: nn.Module, points: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return scores, gradient of the first weight and seconds of a run on the named engine."""
    with sc.engine(engine):
        x, _ = sc.voxelize(points, 0.05, features=torch.ones(len(points), 1))
        for _ in range(2):  # the first time compiles, and builds rulebooks
            start = time.perf_counter()
            y = network(x)
            (grad,) = torch.autograd.grad(y.features.square().mean(), [network[0].weight])
            seconds = time.perf_counter() - start
    return y.features.detach(), grad, seconds


def main() -> None:
    """Add the engine, run a network on each engine, print how far the results are apart."""
    ENGINES["joined"] = "new_engine"
    torch.manual_seed(0)
    points = torch.rand(20_000, 3)
    network = nn.Sequential(
        sc.nn.SubmConv3d(1, 16, 3),
        nn.ReLU(),
        nn.Conv3d(16, 32, 2, stride=2, groups=4),
        sc.nn.InverseConv3d(32, 8, 2, stride=2),
    )
    known, by_weight, _ = run("torch", network, points)
    able = [name for name, word in sc.engines.explain(points).items() if word == "can run"]
    for name in able:
        scores, grad, seconds = run(name, network, points)
        gaps = [(scores - known).abs().max() / known.abs().max()]
        gaps.append((grad - by_weight).abs().max() / by_weight.abs().max())
        scores_gap, grad_gap = (f"{gap:.0e}" if gap else "0" for gap in gaps)
        print(f"{name:<8}{1e3 * seconds:>8.1f} ms, differs from the plain engine by {scores_gap}, "
              f"its gradient by {grad_gap}")  # fmt: skip


if __name__ == "__main__":
    main()
