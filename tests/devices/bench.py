"""A pretended accelerator: tensors of a device type of their own, whose operators run on the CPU.

PyTorch lets a backend be written in Python under the key PrivateUse1: it brings device guard,
hooks and streams, and a tensor subclass brings the operators. Here each operator unwraps its
arguments, runs on the CPU and wraps the results. So the plain engine meets a device that is not
the CPU on any machine, and what would go wrong on a card goes wrong here:

**Devices do not mix.** An operator that reads a tensor of each device raises. As on CUDA, three
things are let through: copies from one device to the other; CPU tensors without axes among the
operands of pointwise operators (a kernel takes them as plain numbers) and as the value of
``index_put_``, ``masked_fill`` and ``index_fill``; and indices of ``x[rows]`` on the CPU, which
are copied. A tensor has no ``numpy()``.

**Launches.** One launch is one ATen operator that reaches the device below autograd, where the
composite ones have come apart. Not counted are operators that touch numbers alone: views (the
schema says so), allocations without values (``empty`` and its kin) and questions about layout. A
copy counts as one, in either direction: it is one entry in the stream. This is a lower bound of the
kernels: ``sort``, ``unique``, ``nonzero``, ``index_put_`` and products that split their sums start
several. An operator on no elements counts too, though a card would start nothing, so that counts do
not depend on which cells happen to be empty.

**Synchronisations.** One is counted wherever PyTorch's CUDA backend makes the host wait for the
stream:

* ``item()``, ``bool()``, ``int()``, ``float()``, ``if tensor``: all are ``_local_scalar_dense``;
* ``tolist()``, ``cpu()`` and every copy to the host: a copy to pageable memory returns when it is
  done, ``non_blocking`` or not;
* copies from the host, ``torch.tensor(..., device=...)``, ``new_tensor`` and lists or CPU tensors
  as indices included: the source is pageable, and the call waits for the copy; not so with
  ``non_blocking=True``;
* results whose shape depends on the values, since their size is read back: ``nonzero``,
  ``masked_select``, the ``unique`` family, a boolean mask as an index (one for each mask; assigning
  one number to a mask is a ``masked_fill`` and does not wait), ``repeat_interleave`` without
  ``output_size``, ``bincount``, ``histc``;
* ``torch.equal``, which returns a bool; ``searchsorted`` with a ``sorter``, whose range is checked
  on the host;
* ``grouped_mm`` in other dtypes than bfloat16: it falls back to a loop that reads the offsets.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

import sparseconv

NAME = "bench"  # the device type: torch.device("bench")
PACKAGE = str(Path(inspect.getfile(sparseconv)).parent)

ALLOCATIONS = frozenset(
    f"aten::{name}"
    for name in (
        "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided",
        "resize_", "set_",
    )
)  # fmt: skip
QUESTIONS = frozenset({"aten::is_same_size", "aten::is_pinned", "aten::_unsafe_view"})
COPIES = frozenset({"aten::_to_copy", "aten::copy_", "aten::_copy_from"})
INDEXING = frozenset({"aten::index", "aten::index_put", "aten::index_put_"})
TAKES_NUMBERS = frozenset({"aten::index_put", "aten::index_put_"}) | {
    f"aten::{name}{ending}"
    for name in ("masked_fill", "index_fill", "fill")
    for ending in ("", "_")
}
PICKS_ROWS = frozenset(
    f"aten::{name}"
    for name in ("index", "index_select", "gather", "embedding_bag", "_embedding_bag",
                 "_embedding_bag_forward_only")
)  # fmt: skip
WRITES_ROWS = frozenset({"aten::index_put_", "aten::index_put"})
# which argument of a matrix product is the left one
PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::_grouped_mm": 0, "aten::addmm": 1}
READS_ITS_SIZE = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
        "unique_consecutive", "unique_dim_consecutive", "bincount", "histc", "equal",
    )
)  # fmt: skip


def why_not() -> str | None:
    """Return why there is no bench here, or None."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"PyTorch {torch.__version__} takes no backend in Python"
    if torch.cuda.is_available():
        return "a real device is here"
    return None


@dataclass
class Counts:
    """What a run would cost a device, by operator and by line of the package that called it.

    Attributes:
        launches, syncs: how often each pair came: operator or reason, and where it was called,
            as ``engines/torch/engine.py:12 in lookup``, or what else ran it: a node of autograd.
        bytes: that launches read and wrote, each argument and result once; of a tensor whose rows
            are picked those rows alone.
        flop: of matrix products, two a multiplication and addition; of nothing else.
    """

    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    syncs: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: int = 0
    flop: int = 0

    @property
    def totals(self) -> tuple[int, int]:
        """Number of launches and of synchronisations."""
        return self.launches.total(), self.syncs.total()

    def by_line(self) -> dict[str, tuple[int, int]]:
        """Return launches and synchronisations by line, the largest first."""
        lines: dict[str, list[int]] = {}
        for column, counter in enumerate((self.launches, self.syncs)):
            for (_, line), count in counter.items():
                lines.setdefault(line, [0, 0])[column] += count
        largest_first = sorted(lines.items(), key=lambda entry: entry[1], reverse=True)
        return {line: (launches, syncs) for line, (launches, syncs) in largest_first}


_counting: list[Counts] = []
watching: list[Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]] = []
_lock = threading.Lock()  # backward passes run in PyTorch's thread for the device


@contextmanager
def counting() -> Iterator[Counts]:
    """Count all that runs on the bench, in any thread, while the block runs."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


def counted(function: Callable[[], Any]) -> Counts:
    """Return the launches and synchronisations of one call."""
    with counting() as counts:
        function()
    return counts


class BenchTensor(Tensor):
    """A tensor that says it lies on the bench, and holds one on the CPU."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> BenchTensor:
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.shape,
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=torch.device(NAME, 0),
        )
        wrapper.on_cpu = on_cpu
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return run(operator, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"BenchTensor({self.on_cpu})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, other: BenchTensor) -> None:
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.on_cpu = other.on_cpu


def run(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator of which an argument is on the bench: refuse it, or count it and compute."""
    schema = operator._schema
    name = schema.name
    if name not in COPIES:
        _refuse_mixed(operator, name, args, kwargs)
    real_kwargs = {key: _unwrapped(value) for key, value in kwargs.items()}
    real_args = tuple(map(_unwrapped, args))
    result = operator(*real_args, **real_kwargs)
    for counts in _counting:
        with _lock:
            _count(counts, operator, name, args, kwargs)
            if _launches(operator, name):
                counts.bytes += _bytes(name, real_args, real_kwargs, result)
                counts.flop += _flop(name, real_args, result)
    for watch in watching:
        watch(operator, real_args, real_kwargs, result)
    if kwargs and _on_host(kwargs.get("device")):
        return result
    written = [_written(schema, info, args, kwargs) for info in schema.returns]
    if len(written) == 1:
        return _wrapped(result, written[0])
    return tuple(map(_wrapped, result or (), written))


def _on_host(device: torch.device | str | None) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _unwrapped(x: Any) -> Any:
    """Return what an argument stands for on the CPU: a tensor, a list of them, a device."""
    if isinstance(x, BenchTensor):
        return x.on_cpu
    if isinstance(x, list | tuple):
        return [_unwrapped(entry) for entry in x]
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _wrapped(value: Any, written: Any = None) -> Any:
    """Return a result on the bench: the very argument where the operator wrote into it."""
    if written is not None:
        assert written.shape == value.shape, "the bench cannot resize what it wraps"
        return written
    if isinstance(value, Tensor):
        return BenchTensor(value)
    return [_wrapped(entry) for entry in value] if isinstance(value, list | tuple) else value


def _written(schema: Any, info: Any, args: Any, kwargs: Any) -> Any:
    """Return the argument that the schema says a result is, or None."""
    if info.alias_info is None or not info.alias_info.is_write:
        return None
    for place, argument in enumerate(schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.before_set == info.alias_info.before_set:
            return kwargs[argument.name] if argument.name in kwargs else args[place]
    return None


def _refuse_mixed(operator: Any, name: str, args: Any, kwargs: Any) -> None:
    """Raise as CUDA does where a tensor of the CPU meets one of the bench."""
    tensors = [x for x in _flat((*args, *kwargs.values())) if isinstance(x, Tensor)]
    for x in tensors:
        if isinstance(x, BenchTensor):
            continue
        if x.ndim == 0 and (torch.Tag.pointwise in operator.tags or name in TAKES_NUMBERS):
            continue
        if name in INDEXING and any(x is index for index in args[1]):
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {operator} got {NAME}:0 and cpu, "
            f"called at {_line()}"
        )


def _flat(arguments: Iterable[Any]) -> Iterator[Any]:
    for x in arguments:
        if isinstance(x, list | tuple):
            yield from x
        else:
            yield x


def _count(counts: Counts, operator: Any, name: str, args: Any, kwargs: Any) -> None:
    """Enter one operator."""
    reasons = list(_waits(name, args, kwargs))
    launches = _launches(operator, name)
    if launches or reasons:
        line, short = _line(), _short(name)
        counts.launches[short, line] += launches
        for reason in reasons:
            counts.syncs[reason, line] += 1


def _launches(operator: Any, name: str) -> bool:
    return not (operator.is_view or name in ALLOCATIONS or name in QUESTIONS)


def _bytes(name: str, args: Any, kwargs: Any, result: Any) -> int:
    """Return the bytes that an operator reads and writes."""
    results = [x for x in _flat((result,)) if isinstance(x, Tensor)]
    read = [x for x in _flat((*args, *kwargs.values())) if isinstance(x, Tensor)]
    written = sum(map(_size, results))
    if name in PICKS_ROWS:
        picked = written
        if "embedding_bag" in name:
            written = _size(results[0])  # the other results hold nothing where bags are summed
            picked = args[1].numel() * args[0].shape[1] * args[0].element_size()
        return sum(_size(x) for x in read if x is not args[0]) + picked + written
    if name in WRITES_ROWS:
        return sum(_size(x) for x in read if x is not args[0]) + _size(args[2])
    return sum(map(_size, read)) + written


def _size(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _flop(name: str, args: Any, result: Any) -> int:
    """Return the multiplications and additions of a matrix product, 0 of all else."""
    if name not in PRODUCTS:
        return 0
    left, right = args[PRODUCTS[name] : PRODUCTS[name] + 2]
    if name == "aten::_grouped_mm" and left.ndim == right.ndim == 2:  # groups of the inner axis
        return 2 * left.numel() * right.shape[1]
    return 2 * int(result.numel()) * int(left.shape[-1])


def _short(name: str) -> str:
    """Return what a reader knows an operator by."""
    common = {"aten::_local_scalar_dense": "item", "aten::_copy_from": "copy_"}
    return common.get(name, name.removeprefix("aten::"))


def _waits(name: str, args: Any, kwargs: Any) -> Iterator[str]:
    """Yield why the host waits for the device, each time that it does."""
    short = _short(name)
    if name in READS_ITS_SIZE:
        yield short
    elif name in COPIES:
        yield from _waits_of_copy(name, args, kwargs)
    elif name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
        fills = name != "aten::index" and len(indices) == len(masks) == 1 and args[2].numel() == 1
        yield from [f"{short} by a mask"] * (0 if fills else len(masks))
        yield from ["copy from the host"] * sum(type(index) is Tensor for index in indices)
    elif name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
        yield short
    elif name == "aten::searchsorted" and kwargs.get("sorter") is not None:
        yield f"{short} with a sorter"
    elif name == "aten::_grouped_mm" and args[0].dtype != torch.bfloat16:
        yield f"{short} in {args[0].dtype}"


def _waits_of_copy(name: str, args: Any, kwargs: Any) -> Iterator[str]:
    """Yield the reason to wait for a copy from one device to another."""
    if name == "aten::_to_copy":
        source, to_host = args[0], _on_host(kwargs.get("device"))
        to_bench, waits = not to_host, not kwargs.get("non_blocking", False)
    else:
        target, source = args[:2] if name == "aten::copy_" else args[1::-1]
        to_bench, waits = isinstance(target, BenchTensor), not (*args, False)[2]
    from_bench = isinstance(source, BenchTensor)
    if from_bench and not to_bench:
        yield "copy to the host"
    elif to_bench and not from_bench and waits:
        yield "copy from the host"


def _line() -> str:
    """Return the innermost line of the package that runs, or what else runs the operator."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            file = path.removeprefix(PACKAGE).lstrip("/")
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    node = torch._C._current_autograd_node()
    return "outside" if node is None else f"({node.name()})"


class _Module(backend_registration._DummyBackendModule):
    """What ``torch.bench`` holds."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@functools.cache
def register() -> tuple[torch.library.Library, ...] | None:
    """Make the device known to PyTorch, for the whole process: before its first backward pass.

    Autograd starts its threads for devices then, and takes none later.
    """
    if why_not() is not None:
        return None
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    for operator in _factories():
        library.impl(operator, _factory(operator), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    under_autocast = torch.library.Library("_", "IMPL")
    under_autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return library, under_autocast


def _factories() -> Iterator[Any]:
    """Yield the operators that make a tensor of none: no argument tells them to come here."""
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        operator = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if operator is None or not name.startswith("aten::"):
            continue
        arguments = operator._schema.arguments
        if any(argument.name == "device" for argument in arguments) and not any(
            "Tensor" in str(argument.type) for argument in arguments
        ):
            yield operator


def _factory(operator: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: run(operator, args, kwargs)


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy between devices inside PyTorch's constructors, which pass the subclass by."""
    operator = torch.ops.aten._copy_from.default
    for counts in _counting:
        with _lock:
            _count(counts, operator, "aten::_copy_from", (source, target, non_blocking), {})
    _unwrapped(target).copy_(_unwrapped(source))
    return target
