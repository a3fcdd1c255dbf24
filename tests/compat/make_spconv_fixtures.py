"""Write down what spconv's own CPU wheel computes, and the names that it has.

Run ``OMP_NUM_THREADS=1 python tests/compat/make_spconv_fixtures.py`` from the repository's root,
where spconv 2.3.8 is installed (``pip install spconv``); on several threads its numbers are wrong.
It writes ``fixtures/spconv.npz`` and ``fixtures/spconv_names.json``.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.compat import wheel

FIXTURES = Path(__file__).parent / "fixtures"

# Layers in sequence, by class, arguments and keyword arguments, and the extent that they read.
CASES: dict[str, tuple[list[tuple[str, list[Any], dict[str, Any]]], list[int]]] = {
    "submanifold": (
        [
            ("SubMConv3d", [3, 4, 3], {"indice_key": "a"}),
            ("SubMConv3d", [4, 2, 3], {"indice_key": "a", "stride": 2, "padding": 2}),
            ("SubMConv3d", [2, 2, 3], {"dilation": 2, "bias": False}),
        ],
        [5, 6, 4],
    ),
    "one cell": ([("SubMConv2d", [3, 5, 1], {}), ("SparseConv2d", [5, 2, 1], {})], [7, 8]),
    "strided and back": (
        [
            ("SparseConv2d", [3, 4, [3, 2], [2, 1], [1, 0]], {"indice_key": "a"}),
            ("SubMConv2d", [4, 4, 3], {"indice_key": "b"}),
            ("SparseInverseConv2d", [4, 2, [3, 2], "a"], {}),
        ],
        [9, 8],
    ),
    "dilated": ([("SparseConv2d", [3, 4, 3, 2, 2, 2], {})], [9, 9]),
    "one axis": ([("SparseConv1d", [3, 4, 4, 3, 1], {})], [30]),
    "four axes": ([("SparseConv4d", [2, 2, 2, 2, 0], {"bias": False})], [4, 4, 4, 4]),
    "transposed": ([("SparseConvTranspose2d", [3, 2, 3, 2, 1], {})], [6, 5]),
    "max pooling": ([("SparseMaxPool2d", [2, 2], {"indice_key": "a"}),
                     ("SparseInverseConv2d", [3, 2, 2, "a"], {})], [8, 7]),
}  # fmt: skip


def computed(spconv: Any) -> dict[str, np.ndarray]:
    """Return inputs, initial weights, outputs and gradients of all cases."""
    found = {}
    for number, (name, (layers, size)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        net = spconv.SparseSequential(
            *(getattr(spconv, kind)(*args, **options) for kind, args, options in layers)
        )
        for key, value in net.state_dict().items():
            found[f"{name}/initial/{key}"] = value.numpy()
        features, indices = inputs(number, net, size)
        net = net.double()
        leaf = features.requires_grad_()
        x = net(spconv.SparseConvTensor(leaf, indices, size, 2))
        order = np.lexsort(x.indices.numpy().T[::-1])
        share = torch.linspace(-1, 1, x.features.numel(), dtype=torch.float64)
        total = (x.features[order] * share.view_as(x.features)).sum()
        grads = torch.autograd.grad(total, [leaf, *net.parameters()])
        found[f"{name}/features"] = x.features.detach()[order].numpy()
        found[f"{name}/indices"] = x.indices[order].numpy()
        for place, grad in enumerate(grads):
            found[f"{name}/grad/{place}"] = grad.numpy()
    return found


def inputs(number: int, net: Any, size: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positive features, so that 0 is never the largest, and shuffled indices."""
    source = torch.Generator().manual_seed(number)
    mask = torch.rand(2, *size, generator=source) < 0.3
    indices = mask.nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=source)]
    channels = getattr(net[0], "in_channels", 3)
    features = torch.rand(len(indices), channels, generator=source, dtype=torch.float64)
    return features + 0.1, indices


MODULES = [
    *("pytorch", "pytorch.conv", "pytorch.core", "pytorch.modules", "pytorch.pool"),
    *("pytorch.tables", "pytorch.functional", "pytorch.utils", "utils", "core", "constants"),
]


def parameters_of(value: Any) -> list[str]:
    """Return the names of a callable's parameters, none of an enumeration's."""
    if not callable(value) or hasattr(value, "__members__"):
        return []
    try:
        signature = inspect.signature(value.__init__ if inspect.isclass(value) else value)
    except (TypeError, ValueError):
        return []
    return [name for name in signature.parameters if name not in ("self", "args", "kwargs")]


def names() -> dict[str, dict[str, list[str]]]:
    """Return the public names of spconv's modules, and the parameters of each."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in MODULES:
        module = importlib.import_module(f"spconv.{path}")
        own = {}
        for name, value in vars(module).items():
            origin = getattr(value, "__module__", None) or ""
            if name.startswith("_") or inspect.ismodule(value) or "spconv" not in str(origin):
                continue
            own[name] = parameters_of(value)
        found[path] = dict(sorted(own.items()))
    return found


def main() -> None:
    """Write both files."""
    torch.set_num_threads(1)
    spconv = wheel()
    if spconv is None:
        raise SystemExit("spconv is not installed: pip install spconv")
    np.savez_compressed(FIXTURES / "spconv.npz", **computed(spconv))
    text = json.dumps(names(), indent=1)
    (FIXTURES / "spconv_names.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
