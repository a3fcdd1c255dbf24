"""Inference by a captured graph of a device: one start instead of hundreds."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sparseconv import engines
from sparseconv.core.arguments import came, check_int, check_kind
from sparseconv.engines.torch.capacity import Uncapturable
from sparseconv.errors import SparseConvError, SparseConvValueError
from sparseconv.sites.roomy import Rooms
from sparseconv.tensor import SparseTensor

ROOM = 1.25  # times the sites of the example, where nobody says how many there may be
TOLERANCE = 0.05  # of the largest value: products of other batches may round otherwise

Replay = Callable[[], object]


def cuda_graph(run: Callable[[], Any]) -> tuple[Replay, Any]:
    """Capture what a function does on the current CUDA device; return how to replay it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()  # libraries make their workspaces
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph.replay, result


RECORDERS: dict[str, Callable[[Callable[[], Any]], tuple[Replay, Any]]] = {"cuda": cuda_graph}


def capture(model: nn.Module, example: SparseTensor, capacity: int | None = None) -> CapturedModel:
    """Return ``model`` for inference, as a CUDA graph where that can be.

    A forward starts hundreds of kernels from Python, which takes longer than they run; a graph
    starts them all at once. It has fixed shapes: features and maps lie in memory with room for
    ``capacity`` sites. Sites that it saw last need nothing but their features; for others the maps
    are built and copied into that memory first.

    Where a call cannot be captured (on the CPU; layers that work sample by sample or change
    which sites are active by their values; more sites than there is room for; an input of another
    dtype) the model itself runs, and one warning says why, once for each reason.

    Args:
        model: in evaluation mode, best after :func:`sparseconv.optimize`. Its forward takes one
            SparseTensor and returns tensors, alone or in tuples, lists and dicts. A graph does not
            run Python: what the forward decides by numbers it decides by those of the example.
            Capture anew after a change of the weights.
        example: an input as later ones will be.
        capacity: number of sites that an input may have; 1.25 times the example's where left out.

    Returns:
        A function of one SparseTensor, without gradients.

    Raises:
        SparseConvError: a model in training mode, an example that is no SparseTensor, a capacity
            below its number of sites.

    Example:
        >>> import torch, sparseconv as sc
        >>> net = sc.nn.SubmConv2d(1, 4, 3).eval()
        >>> x = sc.SparseTensor(torch.ones(2, 1), torch.tensor([[0, 1, 1], [0, 1, 2]]))
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     fast = sc.capture(net, x)
        >>> str(said[0].message)
        'capture: the model runs uncaptured: there are graphs on cuda, the example is on cpu'
        >>> torch.equal(fast(x).features, net(x).features)
        True
    """
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    check_kind("example", example, SparseTensor, "a SparseTensor")
    _check_evaluation(model)
    if capacity is None:
        capacity = math.ceil(ROOM * max(example.num_sites, 1))
    if check_int("capacity", capacity, least=1) < example.num_sites:
        raise SparseConvValueError(
            f"capacity: must be at least the {example.num_sites} sites of the example, "
            f"got {capacity}"
        )
    return CapturedModel(model, example, capacity)


class CapturedModel:
    """A model for inference, captured where that can be; made by :func:`sparseconv.capture`.

    Attributes:
        model: what was captured.
        capacity: number of sites that an input may have.
        reason: why nothing could be captured, None where it was.
    """

    def __init__(self, model: nn.Module, example: SparseTensor, capacity: int) -> None:
        self.model = model
        self.capacity = capacity
        self.reason: str | None = None
        self._said: set[str] = set()
        self._autocast = _autocast(example.device)
        try:
            with torch.no_grad(), _without_autocast_cache():
                self._capture(example.detach())
        except Uncapturable as error:
            self.reason = str(error)
            self._say(self.reason, stacklevel=4)

    def __call__(self, x: SparseTensor) -> Any:
        """Return what the model returns for ``x``."""
        if self.model.training:
            _check_evaluation(self.model)
        with torch.no_grad():
            if self.reason is not None:
                return self.model(x)
            try:
                self._load(x)
            except SparseConvError as error:
                self._say(str(error), stacklevel=3)
                return self.model(x)
            self._replay()
            return _mapped(self._output, self._taken)

    def _say(self, reason: str, stacklevel: int) -> None:
        """Warn once for each reason, whatever the numbers in it."""
        kind = re.sub(r"\d+", "", reason)
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"capture: the model runs uncaptured: {reason}", stacklevel=stacklevel)

    def _capture(self, example: SparseTensor) -> None:
        """Run the forward on sites with room to spare, first to find its maps, then to record."""
        record = RECORDERS.get(example.device.type)
        if record is None:
            raise Uncapturable(
                f"there are graphs on {' and '.join(RECORDERS)}, the example is on "
                f"{example.device.type}"
            )
        if engines.chosen(example.features) != "torch":
            raise Uncapturable("only the engine 'torch' keeps maps in memory of one size")
        rows = self.capacity + 1
        self._rooms = Rooms(rows / max(example.num_sites, 1))
        self._root = self._rooms.add(example.sites, rows)
        # what lies behind the last site is NaN, so that nothing can take it in unseen
        self._features = example.features.new_full((rows, example.channels), math.nan)
        self._features[: example.num_sites].copy_(example.features)
        expected = self.model(example)
        padded = SparseTensor.on_sites(self._features, self._root)
        first = _mapped(self.model(padded), self._taken)
        if not _agree(first, expected):
            raise Uncapturable("the forward reads rows behind the last site")
        self._rooms.complete = True
        try:
            self._replay, self._output = record(lambda: self.model(padded))
        except RuntimeError as error:
            raise Uncapturable(str(error).partition("\n")[0]) from error

    def _load(self, x: SparseTensor) -> None:
        """Write an input, and the maps of its sites, to where the graph reads them.

        Raises:
            Uncapturable: the graph does not fit the input.
        """
        if not isinstance(x, SparseTensor):
            raise Uncapturable(f"the input must be a SparseTensor, got {came(x)}")
        kinds = [(t.dtype, t.device, t.shape[1]) for t in (x.features, self._features)]
        if kinds[0] != kinds[1] or x.sites.dimensions != self._root.dimensions:
            raise Uncapturable(f"the input must be as the example, got {came(x)}")
        if _autocast(x.device) != self._autocast:
            raise Uncapturable("autocast is not as it was for the example")
        if x.num_sites > self.capacity:
            raise Uncapturable(f"the input has {x.num_sites} sites, capacity={self.capacity}")
        if self._rooms.real.get(self._root) is not x.sites:
            self._rooms.fill(self._root, x.sites)
        self._features[: x.num_sites].copy_(x.features)

    def _taken(self, value: SparseTensor | Tensor) -> Any:
        """Return a copy of a result without the rows behind its last site."""
        real = self._rooms.real
        if isinstance(value, SparseTensor):
            sites = real.get(value.sites)
            if sites is None:
                raise Uncapturable("the forward returns sites that are not made of the input's")
            return SparseTensor.on_sites(value.features[: sites.num_sites].clone(), sites)
        by_rows = {roomy.num_sites: sites.num_sites for roomy, sites in real.items()}
        count = by_rows.get(value.shape[0]) if value.ndim else None
        return value.clone() if count is None else value[:count].clone()


def _mapped(value: Any, take: Callable[[Any], Any]) -> Any:
    """Return the same tuples, lists and dicts of what ``take`` returns of their tensors."""
    if isinstance(value, SparseTensor | Tensor):
        return take(value)
    if isinstance(value, dict):
        return {name: _mapped(entry, take) for name, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(entry, take) for entry in value))
    if isinstance(value, list | tuple):
        return type(value)(_mapped(entry, take) for entry in value)
    if value is None:
        return None
    raise Uncapturable(f"the forward returns {came(value)}")


def _agree(first: Any, second: Any) -> bool:
    """Return whether two results hold the same numbers, up to what products round."""
    pairs = list(zip(_leaves(first), _leaves(second), strict=False))
    return len(_leaves(first)) == len(_leaves(second)) and all(_close(*pair) for pair in pairs)


def _leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(value, lambda t: found.append(t.features if isinstance(t, SparseTensor) else t))
    return found


def _close(first: Tensor, second: Tensor) -> bool:
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    if not first.is_floating_point():
        return first.equal(second)
    scale = float(second.nan_to_num(0, 0, 0).abs().max()) if second.numel() else 0.0
    return torch.allclose(first, second, TOLERANCE, TOLERANCE * scale, equal_nan=True)


def _check_evaluation(model: nn.Module) -> None:
    """Raise if a module is in training mode, where layers learn from what they see."""
    for name, module in model.named_modules():
        if module.training:
            raise SparseConvValueError(
                f"model: must be in evaluation mode, call model.eval(); "
                f"{name or type(module).__name__} is in training mode"
            )


def _autocast(device: torch.device) -> torch.dtype | None:
    """Return the dtype to which autocast casts on a device, None where it is off."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Let autocast keep no weights, which a graph would read after autocast has let them go."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
