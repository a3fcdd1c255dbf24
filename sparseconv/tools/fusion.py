"""From a trained network to one for inference: normalisations folded, sums and ReLUs joined."""

from __future__ import annotations

import copy
import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sparseconv.core.arguments import check_kind
from sparseconv.core.private_torch import has_hooks
from sparseconv.nn.fused import FusedConvolution, can_fuse
from sparseconv.nn.norm import BatchNorm4d

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm4d)
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_IN_PLACE_SUMS: tuple[Any, ...] = (operator.iadd, "add_")
_RELUS: tuple[Any, ...] = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_CHANGING: tuple[Any, ...] = (
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ipow,
    operator.setitem,
)
# A forward that calls these depends on its arguments, which a trace does not have.
_QUESTIONS = frozenset({"isinstance", "issubclass", "type", "hasattr", "callable", "is_tensor"})


def optimize(model: nn.Module) -> nn.Module:
    """Return an equivalent of ``model`` for inference, faster on sparse tensors.

    Batch normalisations that follow a convolution are folded into it; a sum and a ReLU behind it
    are done while its output's rows are in the cache; weights are packed once. ``torch.fx`` traces
    the model to find what follows a convolution; where a forward decides by its data, or takes
    optional arguments, its modules are optimized one by one instead. Modules with hooks,
    parametrizations, and subclasses of convolutions stay as they are.

    Args:
        model: any module. It stays as it is, and shares nothing with the result.

    Returns:
        A module in evaluation mode with the forward of ``model``. Its parameters are frozen;
        gradients with respect to the input still pass.

    Raises:
        SparseConvTypeError: ``model`` is no module.

    Example:
        >>> import torch, sparseconv as sc
        >>> net = torch.nn.Sequential(
        ...     sc.nn.SubmConv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
        ... ).eval()
        >>> fast = sc.optimize(net)
        >>> x = sc.SparseTensor(torch.rand(3, 1), torch.tensor([[0, 1, 1], [0, 1, 2], [0, 4, 4]]))
        >>> torch.allclose(fast(x).features, net(x).features, atol=1e-6)
        True
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    return _optimized(copy.deepcopy(model).eval().requires_grad_(False)).eval()


def _optimized(module: nn.Module) -> nn.Module:
    """Return the module, or what stands in for it; changes the module's own children."""
    if has_hooks(module) or _is_leaf(module):
        return FusedConvolution(module) if _is_convolution(module) else _by_children(module)
    graph = _trace(module)
    return _by_children(module) if graph is None else _joined(fx.GraphModule(module, graph))


def _by_children(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _optimized(child))
    return module


def _is_leaf(module: nn.Module) -> bool:
    """Return whether the module is a layer, not a container of layers."""
    from_library = module.__module__.startswith(("torch.nn", "torch.ao.nn", "sparseconv.nn"))
    return from_library and not isinstance(module, nn.Sequential)


def _is_convolution(module: nn.Module) -> bool:
    return can_fuse(module) and not has_hooks(module)


class _Tracer(fx.Tracer):
    """Follows the model down to its layers, and stops at modules that have hooks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether ``m`` is called as a whole."""
        return _is_leaf(m) or has_hooks(m) or not _is_plain(m)


def _is_plain(module: nn.Module) -> bool:
    """Return whether the module's forward takes required arguments and asks no questions."""
    forward = inspect.unwrap(type(module).forward)
    fixed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(forward).parameters.values()
    code = getattr(forward, "__code__", None)
    return all(p.kind in fixed and p.default is p.empty for p in parameters) and not (
        code is None or _QUESTIONS.intersection(code.co_names)
    )


def _trace(module: nn.Module) -> fx.Graph | None:
    """Return the graph of the module, or None where its forward cannot be traced."""
    if not _is_plain(module):
        return None
    try:
        graph = _Tracer().trace(module)
    except Exception:
        # a forward may raise anything when it needs data and gets a stand-in
        return None
    for node in graph.nodes:
        node.type = None  # an annotation that is a string cannot be pickled
    return graph


def _joined(traced: fx.GraphModule) -> fx.GraphModule:
    """Join each convolution of the graph with what follows it; optimize the other modules."""
    order = {node: number for number, node in enumerate(traced.graph.nodes)}
    for node in list(order):
        if node.op != "call_module":
            continue
        module = traced.get_submodule(node.target)
        if _is_convolution(module) and len(node.args) >= 1:
            _join(traced, node, order)
        elif not _is_leaf(module):
            _replace(traced, str(node.target), _optimized(module))
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


def _replace(traced: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(traced.get_submodule(parent), last, module)


def _join(traced: fx.GraphModule, node: fx.Node, order: dict[fx.Node, int]) -> None:
    """Replace a convolution, and the norm, the sum and the ReLU behind it, by one module."""
    options = _options(node)
    if options is None:
        return
    chain, norm, other = [node], None, None
    follower = _only_user(chain[-1])
    if follower is not None and _is_norm(traced, follower):
        norm = traced.get_submodule(str(follower.target))
        chain.append(follower)
        follower = _only_user(follower)
    if follower is not None and _is_sum(follower, chain[-1]):
        between = [n for n in order if order[node] < order[n] < order[follower]]
        if not any(_changes_in_place(traced, n) for n in between if n not in chain):
            other = next(entry for entry in follower.args if entry is not chain[-1])
            chain.append(follower)
            follower = _only_user(follower)
    relu = follower is not None and _is_relu(traced, follower)
    if follower is not None and relu:
        chain.append(follower)
    name = f"{str(node.target).replace('.', '_')}_fused"
    name = name if not hasattr(traced, name) else f"{name}_{order[node]}"
    fused = FusedConvolution(traced.get_submodule(str(node.target)), norm, relu)
    traced.add_submodule(name, fused)
    with traced.graph.inserting_before(chain[-1]):
        arguments = (node.args[0],) if other is None else (node.args[0], other)
        new = traced.graph.call_module(name, arguments, options)
    order[new] = order[chain[-1]]
    chain[-1].replace_all_uses_with(new)
    for old in reversed(chain):
        traced.graph.erase_node(old)
        del order[old]


def _options(node: fx.Node) -> dict[str, Any] | None:
    """Return the call's ``like=``, None where a call has something else beside its input."""
    if len(node.args) == 1 and set(node.kwargs) <= {"like"}:
        return dict(node.kwargs)
    return None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_norm(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = traced.get_submodule(str(node.target))
    return type(module) in _NORMS and not has_hooks(module) and module.running_mean is not None


def _is_sum(node: fx.Node, operand: fx.Node) -> bool:
    """Return whether the node adds another result to that of ``operand``, and nothing else."""
    if node.op not in ("call_function", "call_method") or node.target not in _SUMS:
        return False
    if len(node.args) != 2 or node.kwargs or not all(isinstance(a, fx.Node) for a in node.args):
        return False
    if node.target in _IN_PLACE_SUMS and node.args[0] is not operand:
        return False
    return node.args[0] is not node.args[1]


def _is_relu(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return type(module) is nn.ReLU and not has_hooks(module)
    return node.op in ("call_function", "call_method") and node.target in _RELUS


def _changes_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether the node may change a tensor that a convolution, moved behind it, reads."""
    if node.op == "call_module":
        modules = traced.get_submodule(str(node.target)).modules()
        return any(getattr(module, "inplace", False) for module in modules)
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else node.target.__name__
    written = name.endswith("_") or node.target in _CHANGING
    return written or bool(node.kwargs.get("inplace", False))
