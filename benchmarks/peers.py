"""The peers, doing the same work on the same weights; those that are not installed are left out.

A peer gives sites to raw coordinates (:meth:`Peer.input`) and a layer to one of ours
(:meth:`Peer.layer`); :func:`converted` makes a whole network of them.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import sparseconv as sc
from benchmarks.works import CONVOLUTIONS

PEERS = {
    "plain torch": "benchmarks.peer_torch",
    "spconv": "benchmarks.peer_spconv",
    "SparseConvNet": "benchmarks.peer_scn",
}


@dataclass(frozen=True)
class Rows:
    """What flows through a peer's network: features ``[N, C]`` and the peer's own sites."""

    features: Tensor
    place: Any

    def __add__(self, other: Rows) -> Rows:
        """Return the sum of features on the same sites."""
        return Rows(self.features + other.features, self.place)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Rows:
        """Join channels: what ``torch.cat`` means here."""
        if func is not torch.cat:
            raise NotImplementedError(func.__name__)
        return Rows(torch.cat([rows.features for rows in args[0]], dim=1), args[0][0].place)


class Peer(Protocol):
    """A module of another library's forms."""

    def input(self, features: Tensor, coords: Tensor, x: sc.SparseTensor, net: nn.Module) -> Rows:
        """Return features on raw coordinates ``[N, 4]``, in the grid of ``x``, for ``net``."""
        ...

    def layer(self, module: nn.Module) -> nn.Module:
        """Return the peer's form of one of our convolutions, with the same weights."""
        ...


class OnFeatures(nn.Module):
    """A layer that acts on each row alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Rows) -> Rows:
        """Return the same sites."""
        return Rows(self.module(x.features), x.place)


def available() -> dict[str, Peer]:
    """Return the peers that can be imported, by name; what they warn of is their own affair."""
    found: dict[str, Peer] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in PEERS.items():
            with contextlib.suppress(ImportError):
                found[name] = importlib.import_module(module)  # type: ignore[assignment]
    return found


def converted(net: nn.Module, peer: Peer) -> nn.Module:
    """Return a copy of a network of ours, or one layer, made of a peer's layers."""
    if isinstance(net, CONVOLUTIONS):
        return peer.layer(net)
    if isinstance(net, nn.BatchNorm3d):
        norm = nn.BatchNorm1d(net.num_features)
        norm.load_state_dict(net.state_dict())
        return OnFeatures(norm)
    if isinstance(net, nn.ReLU):
        return OnFeatures(nn.ReLU())
    made = copy.deepcopy(net)
    for name, child in net.named_children():
        setattr(made, name, converted(child, peer))
    return made


def builders(layer: nn.Module, coords: Tensor, x: sc.SparseTensor) -> dict[str, Callable[[], Any]]:
    """Return each peer's making of sites and rulebook, from coordinates, by its name.

    None has a call for it alone: a convolution of one channel is what shows it best.
    """
    features = torch.ones(coords.shape[0], 1)
    calls = {}
    for name, peer in available().items():
        calls[name] = partial(_run, converted(layer, peer), peer.input, features, coords, x, layer)
    return calls


def layers(layer: nn.Module, x: sc.SparseTensor) -> dict[str, Callable[[], Any]]:
    """Return each peer's submanifold layer with its rulebook in the cache, by its name."""
    calls = {}
    for name, peer in available().items():
        theirs = converted(layer, peer)
        with torch.no_grad():
            rows = peer.input(x.features, x.coords, x, layer)
            rows = Rows(rows.features, theirs(rows).place)
        calls[name] = partial(_run, theirs, lambda rows=rows: rows)
    return calls


def _run(theirs: nn.Module, make: Callable[..., Rows], *given: Any) -> Rows:
    with torch.no_grad():
        out: Rows = theirs(make(*given))
        return out
