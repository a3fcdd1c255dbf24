"""PyTorch's private names, checked when the package is loaded.

Other files take them from here, so that a version of PyTorch which lacks one is named in an error
and mended in one place. A test sees to it.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.utils.hooks import BackwardHook

from sparseconv.errors import SparseConvNotImplementedError, SparseConvValueError

__all__ = [
    "Arguments",
    "BackwardHook",
    "BatchNorm",
    "CheckpointFunction",
    "ConvNd",
    "DisableTorchFunctionSubclass",
    "GetAttrKey",
    "Result",
    "count_modes",
    "default_collate_fn_map",
    "derived",
    "dynamic_size",
    "followed",
    "forward_mode",
    "get_proxy_mode",
    "has_hooks",
    "is_batchedtensor",
    "not_a_view",
    "onnx_registry",
    "outside_transforms",
    "profiled",
    "refuse_jit",
    "refuse_norm_of_other_axes",
    "register_pytree_node",
    "transformed",
    "tree_leaves",
    "tree_map",
    "version",
    "viewed_anew",
    "without_modes",
]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_NORMS = {
    getattr(torch.nn, f"{lazy}{kind}Norm{axes}d"): axes
    for lazy, kind, axes in itertools.product(("", "Lazy"), ("Batch", "Instance"), (1, 2, 3))
}
_ATTRIBUTES = (
    (Tensor, "_is_view"),
    (Tensor, "_version"),
    (forward_ad, "_current_level"),
    (Function.__mro__[1], "apply"),
    (BackwardHook, "_apply_on_tensors"),
    (torch.ops.aten, "_unsafe_view"),
    *((norm, "_check_input_dim") for norm in _NORMS),
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def check(attributes: tuple[tuple[Any, str], ...] = _ATTRIBUTES) -> None:
    """Raise unless PyTorch has each of the attributes.

    Raises:
        ImportError: this version lacks one.
    """
    for holder, name in attributes:
        if not hasattr(holder, name):
            raise ImportError(f"{holder.__name__} has no {name}")


try:
    check()
    from torch._C import DisableTorchFunctionSubclass
    from torch._C import _are_functorch_transforms_active as transformed
    from torch._C import _DisableFuncTorch as _without_transforms
    from torch._C import _len_torch_dispatch_stack as count_modes
    from torch._C._autograd import _profiler_enabled as profiled
    from torch._C._functorch import is_batchedtensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode
    from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
    from torch.nn.modules.conv import _ConvNd as ConvNd
    from torch.utils._python_dispatch import _disable_current_modes as without_modes
    from torch.utils._pytree import GetAttrKey, register_pytree_node, tree_leaves, tree_map
    from torch.utils.checkpoint import CheckpointFunction
    from torch.utils.data._utils.collate import default_collate_fn_map
except ImportError as missing:
    raise ImportError(
        f"torch: version {torch.__version__} lacks what sparseconv takes from it ({missing}); use "
        f"a version that the documentation lists"
    ) from missing


def derived(*args: Any) -> bool:
    """Return whether a derivative by one of the arguments can follow, of whatever kind."""
    if forward_ad._current_level >= 0 or transformed() or count_modes():  # as followed()
        return True
    if torch.is_grad_enabled():
        for entry in args:  # a generator would take longer than all of this
            if isinstance(entry, Tensor) and entry.requires_grad:
                return True
    return False


def followed() -> bool:
    """Return whether somebody follows what is computed: a transform, a tracer, a counter.

    All of these see PyTorch's own operators, and no memory that an engine writes to.
    """
    return forward_ad._current_level >= 0 or transformed() or count_modes() > 0


def forward_mode() -> bool:
    """Return whether derivatives are taken forwards, in whatever function."""
    return forward_ad._current_level >= 0


def not_a_view(result: Tensor) -> Tensor:
    """Return the result in its own memory: autograd lets no view of a rule be changed in place."""
    return result.clone() if result._is_view() else result


def viewed_anew(result: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a contiguous result of which nobody else knows, in another shape, as no view of it."""
    return torch.ops.aten._unsafe_view(result, shape)  # type: ignore[no-any-return]


def version(t: Tensor) -> int:
    """Return how often a tensor has been written to; 0 for one of inference mode."""
    return 0 if t.is_inference() else t._version


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether somebody watches the calls of a module."""
    return any(getattr(module, kind) for kind in _HOOKS)


def outside_transforms(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the decorated function run as if no transform were at work; its tensors are plain.

    Under a transform every new tensor is wrapped and has no memory of its own.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not transformed():
            return function(*args, **kwargs)
        with _without_transforms():
            return function(*args, **kwargs)

    return wrapper


def refuse_jit() -> None:
    """Raise while ``torch.jit.trace`` runs, which keeps what it cannot see as a constant.

    Raises:
        SparseConvNotImplementedError: it would keep the sites of its one example.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise SparseConvNotImplementedError(
            "torch.jit.trace: would keep the sites of its one example for ever; use "
            "torch.export.export or torch.onnx.export(dynamo=True) on a forward that takes "
            "(features, coords)"
        )


_NORM_CHECKS = {id(norm._check_input_dim.__code__): norm for norm in _NORMS}


def refuse_norm_of_other_axes(axes: int) -> None:
    """Raise where a normalisation for other axes asks for their number.

    PyTorch's modules do so before they call a function that a sparse tensor could answer.

    Raises:
        SparseConvValueError: ``BatchNorm1d`` on three axes and the like.
    """
    norm = _NORM_CHECKS.get(id(sys._getframe(2).f_code))  # who called the method that called this
    if norm is not None and _NORMS[norm] != axes:
        name = norm.__name__.removeprefix("Lazy")
        other = "sparseconv.nn.BatchNorm4d" if axes == 4 else f"torch.nn.{name[:-2]}{axes}d"
        raise SparseConvValueError(
            f"input: has {axes} spatial axes and the layer is {name}; use {other}, which takes the "
            "same weights, or give it the rows: x.replace(norm(x.features))"
        )


def dynamic_size() -> Any:
    """Return a size that a graph learns when it runs; called by a fake kernel.

    ``new_dynamic_size`` refuses where ``torch.compile`` was not asked for one graph, though a size
    of that kind is no obstacle; PyTorch's own operators of device meshes go the same way. Where the
    names are missing, plain ``torch.compile`` makes several graphs and all else is the same.
    """
    context = torch.library.get_ctx()
    shapes = getattr(context, "_shape_env", None)
    allocate = getattr(torch._library.fake_impl, "allocate_size", None)
    if shapes is None or allocate is None:
        return context.new_dynamic_size()
    return allocate(shapes)


def onnx_registry() -> Any:
    """Return the table of translations of the export to ONNX that runs, None where none does.

    PyTorch fills the table before it looks at the model, and asks nobody; the calls hold it.
    """
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    frame = None if module is None else sys._getframe()
    while frame is not None:
        registry = frame.f_locals.get("registry")
        if isinstance(registry, getattr(module, "ONNXRegistry", ())):
            return registry
        frame = frame.f_back
    return None
