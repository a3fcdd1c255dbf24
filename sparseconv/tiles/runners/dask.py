"""Tiles on a Dask cluster."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from sparseconv.errors import SparseConvError
from sparseconv.tiles.run import Task
from sparseconv.tiles.runners.here import Outcome


class Dask:
    """Tiles through ``client.map``: Dask runs a tile again when its worker dies.

    Args:
        client: a ``distributed.Client``; its workers must see the folder under the same path.
    """

    elsewhere = True

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, task: Task, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Yield each tile's outcome as soon as it is there."""
        distributed = library("distributed")
        futures = self.client.map(task, list(numbers), pure=False)
        number_of = dict(zip((future.key for future in futures), numbers, strict=True))
        for future in distributed.as_completed(futures):
            error = future.exception()
            yield number_of[future.key], future.result() if error is None else error


def library(name: str) -> Any:
    """Return a library that a runner needs."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SparseConvError(
            f"runner: needs {name}, which is not installed: pip install 'sparseconv[cluster]'"
        ) from error
