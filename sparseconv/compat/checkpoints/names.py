"""Which tensor of a checkpoint belongs to which of a model: by name, else by order and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.checkpoints.layers import Layer, layer_of
from sparseconv.compat.checkpoints.layouts import LAYOUTS, Layout
from sparseconv.core.arguments import Ints

WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before


@dataclass(frozen=True)
class Target:
    """A tensor of a model.

    Attributes:
        key: of the model's state dict.
        tensor: the tensor.
        layer: what a kernel's layout depends on; None for all else.
        layout: of the layer's own kernel, also where the tensor is its bias; None for all else.
    """

    key: str
    tensor: Tensor
    layer: Layer | None = None
    layout: Layout | None = None

    def read(self, value: Tensor, layout: Layout, leaf: str) -> Tensor:
        """Return a checkpoint's tensor in the model's layout.

        Raises:
            ValueError, RuntimeError: a shape that no such layer has.
        """
        own = self.layout or LAYOUTS["torch"]
        if self.layer is None:
            shape: Ints = tuple(self.tensor.shape)
            shapes = [shape] if self.layout is None else []  # of a norm or a linear layer
            if layout.bias_row or self.layout is not None:
                row = self.tensor.numel()
                shapes.append((1, row) if layout.bias_row else (row,))
            if tuple(value.shape) not in shapes:
                raise ValueError(f"shape {tuple(value.shape)}")
            return value.reshape(shape)
        if not self.layer.kernel and leaf == "weight":
            layout = LAYOUTS["torch"]  # every library's linear layers are torch's
        return own.write(layout.read(value, self.layer), self.layer)

    def names(self, layout: Layout) -> Iterator[str]:
        """Yield what the tensor may be called in a checkpoint."""
        prefix, dot, leaf = self.key.rpartition(".")
        kernel = self.layer is not None
        if kernel:
            yield prefix + dot + layout.leaf
        if not kernel or not self._has_axes:
            yield self.key
            if layout.norm:
                yield f"{prefix}{dot}{layout.norm}.{leaf}"
                yield f"{prefix}{dot}linear.{leaf}"

    @property
    def _has_axes(self) -> bool:
        return self.layer is not None and len(self.layer.kernel) > 0


def targets(model: torch.nn.Module) -> list[Target]:
    """Return what a model's state dict holds, in its order."""
    state = model.state_dict(keep_vars=True)
    kernels: dict[str, tuple[Layer | None, Layout]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        layer = layer_of(module)
        if layer is not None:
            layout = LAYOUTS[getattr(module, "checkpoint_layout", "torch")]
            kernels[f"{name}.{layout.leaf}".lstrip(".")] = layer, layout
            if layer.kernel:
                kernels[f"{name}.bias".lstrip(".")] = None, layout
    return [
        Target(key, value.detach(), *kernels.get(key, ()))
        for key, value in state.items()
        if isinstance(value, Tensor)
    ]


def unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what trainers put around them."""
    for key in ("state_dict", "model_state_dict", "model_state", "model", "net", "network"):
        if isinstance(state.get(key), Mapping):
            return unwrapped(state[key])
    found = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    for wrapper in WRAPPERS:
        if found and all(key.startswith(wrapper) for key in found):
            found = {key.removeprefix(wrapper): value for key, value in found.items()}
    return found


def matched(
    wanted: list[Target], state: Mapping[str, Tensor], layout: Layout
) -> dict[str, tuple[str, bool]]:
    """Return, by the model's key, the checkpoint's, and whether order told it."""
    found: dict[str, tuple[str, bool]] = {}
    used: set[str] = set()
    for target in wanted:
        for name in target.names(layout):
            if name in state and name not in used:
                found[target.key] = name, False
                used.add(name)
                break
    kept = [target for target in wanted if target.key not in found]
    spare = [key for key in state if key not in used]
    for target, key in _by_order(kept, spare, state, layout):
        found[target.key] = key, True
    return found


def _by_order(
    wanted: list[Target], spare: list[str], state: Mapping[str, Tensor], layout: Layout
) -> Iterator[tuple[Target, str]]:
    """Yield pairs where as many modules of one kind are left on both sides.

    A kind is the set of a module's tensors and their numbers of entries, whatever their layout.
    """
    keys = {target.key: target for target in wanted}
    left = _modules({target.key: target.tensor for target in wanted}, {"weight", "kernel"})
    right = _modules({key: state[key] for key in spare}, {layout.leaf})
    if [kind for kind, _ in left] != [kind for kind, _ in right]:
        return
    for (_, ours), (_, theirs) in zip(left, right, strict=True):
        for leaf in ours.keys() & theirs.keys():
            yield keys[ours[leaf]], theirs[leaf]


Kind = frozenset[tuple[str, int]]


def _modules(tensors: Mapping[str, Tensor], kernels: set[str]) -> list[tuple[Kind, dict[str, str]]]:
    """Return for each module, in order, its kind and the keys of its tensors by what they are.

    A kernel is what is called as one of ``kernels``, or a matrix.
    """
    modules: dict[str, dict[str, str]] = {}
    for key, tensor in tensors.items():
        prefix, _, leaf = key.rpartition(".")
        axes = tensor.ndim
        is_kernel = (leaf in kernels and axes > 1) or (leaf == "weight" and axes == 2)
        modules.setdefault(prefix, {})["(kernel)" if is_kernel else leaf] = key
    return [
        (
            frozenset(
                (leaf, tensors[key].numel())
                for leaf, key in leaves.items()
                if leaf != "num_batches_tracked"
            ),
            leaves,
        )
        for leaves in modules.values()
    ]
