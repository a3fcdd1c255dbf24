"""From a model written for spconv to one of torch's and our modules."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from sparseconv import nn as ours
from sparseconv.compat.checkpoints.layers import layer_of
from sparseconv.compat.checkpoints.layouts import LAYOUTS
from sparseconv.compat.spconv.layers import containers, convolution, pairs, pooling
from sparseconv.compat.spconv.tensor import SparseConvTensor
from sparseconv.core.arguments import check_kind
from sparseconv.core.private_torch import BatchNorm
from sparseconv.errors import SparseConvTypeError
from sparseconv.tensor import SparseTensor

_NORMS: dict[int, Any] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
    4: ours.BatchNorm4d,
}
_REGULAR: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d, 4: ours.Conv4d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d, 4: ours.MaxPool4d}
_AVERAGE: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
# Names of spconv's tensor that a forward written for it uses, and what ours calls them.
_METHODS = {"replace_feature": "replace"}
_ATTRIBUTES = {"indices": "coords"}
_OTHERS = ("sparseconv.compat.minkowski", "sparseconv.compat.torchsparse")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def to_native(model: nn.Module) -> nn.Module:
    """Return a model of torch's and our modules that computes the same.

    Layers become ``torch.nn.Conv3d``, ``sparseconv.nn.SubmConv3d`` and so on with the same numbers
    in torch's layout; keys go, since sites remember where they came from. A forward that is written
    for spconv's tensors is traced by ``torch.fx`` and rewritten for ours.

    Args:
        model: stays as it is, and shares nothing with the result.

    Returns:
        A model that takes and returns a :class:`sparseconv.SparseTensor` where ``model`` has a
        ``SparseConvTensor``.

    Raises:
        SparseConvTypeError: a module without a counterpart, or a forward that cannot be traced.

    Example:
        >>> import torch, sparseconv as sc
        >>> from sparseconv.compat.spconv import pytorch as spconv
        >>> net = spconv.SparseSequential(spconv.SubMConv2d(1, 4, 3), torch.nn.BatchNorm1d(4))
        >>> [type(module).__name__ for module in sc.compat.to_native(net)]
        ['SubmConv2d', 'BatchNorm2d']
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    for name, module in model.named_modules():
        if type(module).__module__.startswith(_OTHERS):
            raise SparseConvTypeError(
                f"{name or 'model'}: has no counterpart, {type(module).__name__}; models written "
                f"for spconv are converted"
            )
    model = copy.deepcopy(model)
    windows = {
        module.indice_key: module
        for module in model.modules()
        if isinstance(module, pairs.WindowModule) and not getattr(module, "inverse", False)
    }
    axes = {module.ndim for module in model.modules() if isinstance(module, pairs.WindowModule)}
    return _Conversion(windows, min(axes) if len(axes) == 1 else None).of(model, "model")


class _Conversion:
    """The conversion of one model: its layers by key, its number of axes where it has but one."""

    def __init__(self, windows: dict[str | None, Any], axes: int | None) -> None:
        self._windows, self._axes = windows, axes

    def of(self, module: nn.Module, path: str) -> nn.Module:
        """Return the counterpart of a module."""
        if isinstance(module, pairs.WindowModule):
            self._axes = module.ndim
        for kind, convert in self._converters().items():
            if isinstance(module, kind):
                return self._in_mode(convert(module, path), module)
        written_for_spconv = any(isinstance(m, containers.SPARSE) for m in module.modules())
        children = list(module.named_children())
        for name, child in children:
            module._modules[name] = self.of(child, f"{path}.{name}")
        if isinstance(module, containers.SparseSequential):
            for name, child in children:
                if not isinstance(child, containers.SPARSE):
                    module._modules[name] = self._of_rows(child, path)
            return self._in_mode(nn.Sequential(OrderedDict(module.named_children())), module)
        if written_for_spconv and not isinstance(module, _CONTAINERS):
            return self._in_mode(self._traced(module, path), module)
        return module

    def _of_rows(self, module: nn.Module, path: str) -> nn.Module:
        """Return a module that took features for tensors: its norms count the tensor's axes."""
        if isinstance(module, BatchNorm):
            return self._norm(module, path)
        for name, child in list(module.named_children()):
            module._modules[name] = self._of_rows(child, f"{path}.{name}")
        return module

    def _converters(self) -> dict[Any, Callable[[Any, str], nn.Module]]:
        return {
            convolution.SparseConvolution: self._convolution,
            pooling.SparseMaxPool: self._max_pool,
            pooling.SparseAvgPool: self._avg_pool,
            pooling.SparseGlobalAvgPool: lambda module, path: ours.GlobalAvgPool(),
            pooling.SparseGlobalMaxPool: lambda module, path: ours.GlobalMaxPool(),
            containers.ToDense: lambda module, path: ours.ToDense(),
            containers.RemoveGrid: lambda module, path: nn.Identity(),
            containers.SparseIdentity: lambda module, path: nn.Identity(),
            containers.SparseReLU: lambda module, path: nn.ReLU(module.inplace),
            containers.SparseBatchNorm: self._norm,
        }

    @staticmethod
    def _in_mode(converted: nn.Module, module: nn.Module) -> nn.Module:
        return converted.train(module.training)

    def _convolution(self, module: Any, path: str) -> nn.Module:
        layer = layer_of(module)
        if layer is None or module.act_type:
            raise SparseConvTypeError(f"{path}: has no counterpart, {module}")
        kernel = tuple(module.kernel_size)
        channels = module.in_channels, module.out_channels, kernel
        options = {"bias": module.bias is not None}
        window = self._window_of(module, path)
        if module.subm:
            made: Any = getattr(ours, f"SubmConv{module.ndim}d")(
                *channels, dilation=tuple(module.dilation), **options
            )
        elif module.inverse:
            made = getattr(ours, f"InverseConv{module.ndim}d")(*channels, **window, **options)
        elif module.transposed and module.ndim in _TRANSPOSED:
            extra = {"output_padding": tuple(module.output_padding)}
            made = _TRANSPOSED[module.ndim](*channels, **window, **extra, **options)
        elif not module.transposed:
            made = _REGULAR[module.ndim](*channels, **window, **options)
        else:
            raise SparseConvTypeError(f"{path}: has no counterpart over 4 axes, {module}")
        weight = LAYOUTS[module.checkpoint_layout].read(module.weight.detach(), layer)
        made.weight = _like(module.weight, LAYOUTS["torch"].write(weight, layer).contiguous())
        made.bias = module.bias
        return made  # type: ignore[no-any-return]

    def _window_of(self, module: Any, path: str) -> dict[str, Any]:
        """Return stride, padding and dilation: an inverse layer's are those of its key's layer."""
        if module.inverse:
            if module.conv1x1:
                raise SparseConvTypeError(f"{path}: an inverse of one cell restores no sites")
            if module.indice_key not in self._windows:
                raise SparseConvTypeError(
                    f"{path}: no layer of the model leaves the key {module.indice_key!r}"
                )
            module = self._windows[module.indice_key]
        names = ("stride", "padding", "dilation")
        return {name: tuple(getattr(module, name)) for name in names}

    def _max_pool(self, module: Any, path: str) -> nn.Module:
        window = self._pooling(module, path)
        pool: nn.Module = _MAX[module.ndim](**window, dilation=tuple(module.dilation))
        return nn.Sequential(pool, nn.ReLU()) if module.from_zero else pool

    def _avg_pool(self, module: Any, path: str) -> nn.Module:
        if any(step != 1 for step in module.dilation):
            raise SparseConvTypeError(f"{path}: average pooling with dilation has no counterpart")
        window = self._pooling(module, path)
        pool: nn.Module = _AVERAGE[module.ndim](**window, count_include_pad=False)
        return pool

    @staticmethod
    def _pooling(module: Any, path: str) -> dict[str, Any]:
        if module.subm:
            raise SparseConvTypeError(f"{path}: pooling on its input's sites has no counterpart")
        names = ("kernel_size", "stride", "padding")
        return {name: tuple(getattr(module, name)) for name in names}

    def _norm(self, module: Any, path: str) -> nn.Module:
        """Return the norm for tensors of the model's axes; the object's tensors are kept."""
        if self._axes is None:
            raise SparseConvTypeError(f"{path}: which number of axes it has is not told")
        kind = _NORMS[self._axes]
        options = (module.eps, module.momentum, module.affine, module.track_running_stats)
        made: nn.Module = kind(module.num_features, *options)
        made._parameters.update(module._parameters)
        made._buffers.update(module._buffers)
        return made

    def _traced(self, module: nn.Module, path: str) -> nn.Module:
        """Return the module with its forward rewritten for our tensors."""
        try:
            graph = _Tracer().trace(module)
        except Exception as error:
            raise SparseConvTypeError(
                f"{path}: torch.fx cannot follow the forward of {type(module).__name__} "
                f"({error}); convert the parts that it calls"
            ) from error
        traced = fx.GraphModule(module, graph)
        for node in list(graph.nodes):
            if node.op == "call_method" and node.target in _METHODS:
                node.target = _METHODS[node.target]
            elif node.op == "call_function" and node.target is SparseConvTensor:
                node.target = _tensor
            elif node.op == "call_function" and node.target is getattr:
                node.args = (node.args[0], _ATTRIBUTES.get(node.args[1], node.args[1]))
        self._join_rows(traced, path)
        graph.eliminate_dead_code()
        graph.lint()
        traced.recompile()
        return traced

    def _join_rows(self, traced: fx.GraphModule, path: str) -> None:
        """Write `x.replace(f(x.features))` as `f(x)`, where f is a module and of rows no more."""
        calls = [node for node in traced.graph.nodes if node.op == "call_module"]
        for node in calls:
            features, users = node.args[0], list(node.users)
            if not _is_features(features) or len(users) != 1:
                continue
            x, (replaced,) = features.args[0], users
            alone = sum(other.target == node.target for other in calls) == 1
            if replaced.target == "replace" and replaced.args == (x, node) and alone:
                module = self._of_rows(traced.get_submodule(node.target), path)
                parent, _, name = node.target.rpartition(".")
                setattr(traced.get_submodule(parent), name, module.train(traced.training))
                node.args = (x,)
                replaced.replace_all_uses_with(node)
                traced.graph.erase_node(replaced)


class _Tracer(fx.Tracer):
    """Follows one forward, and calls the modules in it as wholes."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return True: what the module holds has been converted already."""
        return True


def _is_features(node: Any) -> bool:
    """Return whether a node of a graph reads `x.features`."""
    return (
        isinstance(node, fx.Node)
        and node.op == "call_function"
        and node.target is getattr
        and node.args[1] == "features"
    )


def _tensor(
    features: Tensor, indices: Tensor, spatial_shape: Any, batch_size: Any, *_others: Any
) -> SparseTensor:
    """Return our tensor where a forward makes spconv's."""
    return SparseConvTensor(features, indices, spatial_shape, batch_size).sparse


def _like(parameter: nn.Parameter, values: Tensor) -> nn.Parameter:
    """Return a parameter of other values, frozen where the first is."""
    return nn.Parameter(values, requires_grad=parameter.requires_grad)
