"""Load everyone's checkpoints into a model, and write a model's weights for others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseconv.compat.checkpoints.layouts import LAYOUTS, Layout
from sparseconv.compat.checkpoints.names import Target, matched, targets, unwrapped
from sparseconv.compat.checkpoints.report import CheckpointReport, Entry, shape_of
from sparseconv.core.arguments import check_kind
from sparseconv.errors import SparseConvValueError

Weights = dict[str, Tensor]
Checkpoint = str | os.PathLike[str] | Mapping[str, Any]
_OWN = "model"


def load_checkpoint(
    model: torch.nn.Module, checkpoint: Checkpoint, source: str = "auto", strict: bool = True
) -> CheckpointReport:
    """Load weights that another library wrote into a model, and say what became of each tensor.

    Kernels are brought into the layout of the model's own layers: PyTorch's, or that of a namespace
    of :mod:`sparseconv.compat`. Tensors are found by their names, and by order and shape where the
    modules of both sides come in the same order under other names. Nothing is loaded before
    everything fits.

    Args:
        model: of PyTorch's layers, this library's, or those of :mod:`sparseconv.compat`.
        checkpoint: a file of ``torch.save`` or of safetensors, or a state dict. Only tensors are
            read: a file cannot run code. What trainers put around a state dict is taken off.
        source: whose layout it has: ``"torch"``, ``"spconv"`` (2.2 and later), ``"spconv-2.0"``
            (2.0 and 2.1), ``"spconv-1"``, ``"mmcv"``, ``"minkowski"``, ``"torchsparse"``,
            ``"sparseconvnet"``, ``"warpconvnet"``, ``"fvdb"``, ``"open3d"``; ``"model"``, the
            model's own; ``"auto"``: what the shapes of all its layers agree with.
        strict: whether a missing or unexpected tensor is an error.

    Returns:
        What became of each tensor; ``print`` shows it.

    Raises:
        SparseConvValueError: shapes that do not fit; several libraries whose layouts fit and
            differ; with ``strict`` tensors that are missing or unexpected.

    Example:
        >>> import torch, sparseconv as sc
        >>> model = torch.nn.Sequential(sc.nn.SubmConv3d(4, 8, 3, bias=False))
        >>> report = sc.load_checkpoint(model, {"0.kernel": torch.randn(27, 4, 8)}, "minkowski")
        >>> print(report)
        weights of minkowski: 1 converted
        0.weight: converted, from 0.kernel, (27, 4, 8) to (8, 4, 3, 3, 3)
    """
    check_kind("model", model, torch.nn.Module, "a torch.nn.Module")
    weights, report = _converted(_read(checkpoint), model, source)
    _check(report, strict)
    model.load_state_dict(weights, strict=False)
    return report


def convert_weights(
    state_dict: Mapping[str, Any],
    model: torch.nn.Module,
    source: str = "auto",
    target: str = _OWN,
) -> Weights:
    """Return a state dict in another layout: for ``model``, or to be loaded by another library.

    Args:
        state_dict: what ``source`` wrote, by the names of ``model`` or in its order.
        model: whose layers tell the sizes of kernels, groups, strides and directions.
        source: as of :func:`load_checkpoint`.
        target: ``"model"``, or the name of a library as ``source`` takes it: kernels, biases and
            norms then have its names and shapes, and the paths of modules stay.

    Returns:
        Tensors by name.

    Raises:
        SparseConvValueError: as of :func:`load_checkpoint`; layers that ``target`` does not have.

    Example:
        >>> import torch, sparseconv as sc
        >>> model = torch.nn.Sequential(sc.nn.SubmConv3d(4, 8, 3, bias=False))
        >>> weights = sc.convert_weights(model.state_dict(), model, "model", "spconv-1")
        >>> {name: tuple(weight.shape) for name, weight in weights.items()}
        {'0.weight': (3, 3, 3, 4, 8)}
    """
    check_kind("model", model, torch.nn.Module, "a torch.nn.Module")
    weights, report = _converted(_read(state_dict), model, source)
    _check(report, strict=True)
    if target == _OWN:
        return weights
    return _exported(weights, targets(model), _layout("target", target))


def _read(checkpoint: Any) -> Weights:
    """Return the tensors of a file or a state dict."""
    if not isinstance(checkpoint, Mapping):
        check_kind("checkpoint", checkpoint, (str, os.PathLike), "a file or a state dict")
        checkpoint = _opened(Path(checkpoint))
        check_kind("checkpoint", checkpoint, Mapping, "a file of a state dict")
    found = unwrapped(checkpoint)
    if not found:
        raise SparseConvValueError(
            f"checkpoint: no tensors in it, its keys are {list(checkpoint)[:5]}"
        )
    return found


def _opened(path: Path) -> Any:
    """Return what a file holds, on the CPU; no code in it runs."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415  # who has such files has it

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _layout(name: str, source: str) -> Layout:
    if source not in LAYOUTS:
        options = ", ".join(f'"{option}"' for option in LAYOUTS)
        raise SparseConvValueError(f'{name}: must be "auto", "model", {options}, got {source!r}')
    return LAYOUTS[source]


def _converted(
    state: Weights, model: torch.nn.Module, source: str
) -> tuple[Weights, CheckpointReport]:
    """Return the weights that a model loads, and the report."""
    wanted = targets(model)
    if source not in ("auto", _OWN):
        return _taken(state, wanted, _layout("source", source))
    own = _taken(state, wanted, None)
    return own if source == _OWN else _guessed(state, wanted, own)


def _guessed(
    state: Weights, wanted: list[Target], own: tuple[Weights, CheckpointReport]
) -> tuple[Weights, CheckpointReport]:
    """Return what the layout gives whose shapes fit all layers, the model's own first.

    fVDB's differs from PyTorch's in transposed layers alone, whose shapes may not tell.
    """
    tried = {_OWN: own} | {name: _taken(state, wanted, LAYOUTS[name]) for name in LAYOUTS}
    fewest = min(len(report.problems) for _, report in tried.values())
    fitting = {name: found for name, found in tried.items() if len(found[1].problems) == fewest}
    if _OWN in fitting:
        fitting.pop("fvdb", None)
    first = next(iter(fitting.values()))
    if not all(_same(weights, first[0]) for weights, _ in fitting.values()):
        names = ", ".join(f'"{name}"' for name in fitting)
        raise SparseConvValueError(
            f"source: must be named, since the shapes fit {names}, which give different weights"
        )
    return first


def _same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) for name, value in left.items()
    )


def _taken(
    state: Weights, wanted: list[Target], layout: Layout | None
) -> tuple[Weights, CheckpointReport]:
    """Return the weights and the report where the checkpoint has one layout, None: the model's."""
    names = matched(wanted, state, layout or LAYOUTS["torch"])
    weights, entries = {}, []
    for target in wanted:
        key, by_order = names.get(target.key, (None, False))
        shape = shape_of(target.tensor)
        if key is None:
            entries.append(Entry(target.key, "missing", shape=shape))
            continue
        value, action = state[key], "taken"
        try:
            written = layout or target.layout or LAYOUTS["torch"]
            new = target.read(value, written, key.rpartition(".")[2])
        except (ValueError, RuntimeError):
            new, action = value, "unfit"
        else:
            weights[target.key] = new
            if new.shape != value.shape or not torch.equal(new, value):
                action = "converted"
        entries.append(Entry(target.key, action, key, shape_of(value), shape, by_order))
    used = {key for key, _ in names.values()}
    entries += [
        Entry(key, "unexpected", key, shape_of(value))
        for key, value in state.items()
        if key not in used
    ]
    return weights, CheckpointReport(layout.name if layout else _OWN, tuple(entries))


def _check(report: CheckpointReport, strict: bool) -> None:
    """Raise for what does not fit, and where ``strict`` for what is missing or left over."""
    wrong = report.problems if strict else report.of("unfit")
    if wrong:
        lines = "; ".join(map(str, wrong[:8])) + (f"; {len(wrong) - 8} more" * (len(wrong) > 8))
        raise SparseConvValueError(
            f"checkpoint: does not fit as weights of {report.source}: {lines}; nothing was loaded"
        )


def _exported(weights: Weights, wanted: list[Target], layout: Layout) -> Weights:
    """Return a model's weights by the names and in the shapes of a library."""
    found: Weights = {}
    norms = {target.key.rpartition(".")[0] for target in wanted if "running_mean" in target.key}
    torch_layout = LAYOUTS["torch"]
    for target in wanted:
        prefix, dot, leaf = target.key.rpartition(".")
        value = weights.get(target.key)
        if value is None:
            continue
        if target.layer is not None and target.layer.kernel:
            try:
                between = (target.layout or torch_layout).read(value, target.layer)
                value = layout.write(between, target.layer)
            except ValueError as error:
                raise SparseConvValueError(
                    f"target: {layout.name}: {target.key}: {error}"
                ) from None
            leaf = layout.leaf
        elif leaf == "bias" and target.layout is not None:
            value = value.reshape((1, -1) if layout.bias_row else -1)
        elif layout.norm and prefix in norms:
            leaf = f"{layout.norm}.{leaf}"
        found[prefix + dot + leaf] = value.contiguous()
    return found
