"""Which rulebooks a network needs, so that others can build them ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sparseconv.core.arguments import check_kind
from sparseconv.sites.plan import Plan
from sparseconv.tensor import SparseTensor


def plan(model: Callable[[SparseTensor], Any], x: SparseTensor) -> Plan:
    """Return which rulebooks a model builds, for :meth:`Sites.prepare` on other sites.

    The model runs once, in evaluation and without gradients. The plan holds the windows of its
    layers level by level, numbers alone, so it is small and pickles: give it to the workers of a
    ``DataLoader``, and the process that runs the network builds no rulebook. Layers whose sites
    depend on features (pruning, deformable kernels), and those on unions or ``like=``, build
    theirs where they run.

    Args:
        model: that takes a SparseTensor.
        x: any input of the model.

    Raises:
        SparseConvTypeError: no model, no SparseTensor.

    Example:
        >>> import torch, sparseconv as sc
        >>> x = sc.SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 1], [0, 5, 2]]))
        >>> net = torch.nn.Sequential(sc.nn.SubmConv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 2, 2))
        >>> print(sc.plan(net, x))
        Plan of 2 rulebooks
        >>> x.sites.prepare(sc.plan(net, x)) is x.sites
        True
    """
    check_kind("x", x, SparseTensor, "a SparseTensor that the model takes")
    check_kind("model", model, Callable, "a module")
    sites = x.sites.on_grid(x.grid)  # the same, without what others have built on them
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad():
            model(SparseTensor.on_sites(x.features, sites))
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
    return sites.plan
