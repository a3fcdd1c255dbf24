"""A captured graph of the bench: operators with the memory that they read and wrote.

As a CUDA graph it runs no Python of the model: a replay repeats the operators on the same memory,
in their order. It owns what was made while it was captured, its pool. Of everything else it keeps
no more than the address, so a replay fails where that memory was let go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from devices import bench
from torch import Tensor


class Started(NamedTuple):
    """One operator of a graph: what it reads, weakly where it is not of the pool, and writes."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Tensor]


class Graph:
    """The operators of one call on the bench, views left out."""

    def __init__(self) -> None:
        self.started: list[Started] = []
        self._pool: dict[int, Tensor] = {}  # by address
        self._outside: dict[int, weakref.ref[Tensor]] = {}

    def capture(self, run: Callable[[], Any]) -> Any:
        """Run a function and remember its operators; refuse what a graph cannot hold."""
        bench.watching.append(self._watch)
        try:
            with bench.counting() as counts:
                result = run()
        finally:
            bench.watching.remove(self._watch)
        if counts.syncs:
            raise RuntimeError(f"operation not permitted when stream is capturing: {counts.syncs}")
        return result

    def _watch(
        self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        schema = operator._schema
        if "copy" in schema.name and kwargs.get("device") is not None:
            raise RuntimeError(f"a copy from the host cannot be captured: {operator}")
        read = self._addresses(args), self._addresses(kwargs)
        if operator.is_view:
            return
        results = list(_tensors(out))
        if not schema.is_mutable:
            self._pool.update((_address(result), result) for result in results)
        self.started.append(Started(operator, *read, results))

    def _addresses(self, value: Any) -> Any:
        """Return the arguments with memory outside the pool as no more than its address."""
        if isinstance(value, Tensor):
            if _address(value) in self._pool:
                return value
            seen = self._outside.setdefault(_address(value), weakref.ref(value))
            return Outside(seen, value.shape, value.stride(), value.storage_offset())
        if isinstance(value, dict):
            return {name: self._addresses(entry) for name, entry in value.items()}
        many = isinstance(value, list | tuple)
        return type(value)(map(self._addresses, value)) if many else value

    def replay(self) -> None:
        """Run the operators again, on the same memory."""
        for step in self.started:
            again = step.operator(*_strong(step.args), **_strong(step.kwargs))
            if not step.operator._schema.is_mutable:
                for old, new in zip(step.results, _tensors(again), strict=True):
                    assert old.shape == new.shape, f"{step.operator} has another shape"
                    old.copy_(new)


class Outside(NamedTuple):
    """Where memory lies that the graph does not own."""

    seen: weakref.ref[Tensor]
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def tensor(self) -> Tensor:
        """Return what is there now."""
        base = self.seen()
        assert base is not None, "a graph reads memory that was let go"
        return base.as_strided(self.shape, self.stride, self.offset)


def _address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _strong(value: Any) -> Any:
    if isinstance(value, Outside):
        return value.tensor()
    if isinstance(value, dict):
        return {name: _strong(entry) for name, entry in value.items()}
    return type(value)(map(_strong, value)) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)


def record(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture a call on the bench; return how to replay it and its result."""
    run()
    graph = Graph()
    result = graph.capture(run)
    return graph.replay, result
