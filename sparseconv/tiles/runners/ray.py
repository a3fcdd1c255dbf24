"""Tiles on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from sparseconv.core.arguments import check_int
from sparseconv.errors import SparseConvError
from sparseconv.tiles.run import Done, Task
from sparseconv.tiles.runners.dask import library
from sparseconv.tiles.runners.here import Outcome


class Worker:
    """An actor: its process loads the model with the first tile, and holds it."""

    def label(self, task: Task, number: int) -> Done:
        """Run one tile."""
        return task(number)


class Ray:
    """Tiles on actors that hold the model; ``ray.init`` comes before.

    An actor that dies is replaced, and its tile is run again; a tile that kills two counts as
    broken.

    Args:
        actors: how many.
        options: of each actor, as ``ray.remote`` takes them, such as ``num_gpus=1``.
    """

    elsewhere = True

    def __init__(self, actors: int, **options: Any) -> None:
        self.actors, self.options = check_int("actors", actors, least=1), options

    def run(self, task: Task, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Yield each tile's outcome as soon as it is there."""
        ray = library("ray")
        make = ray.remote(**{"num_cpus": 1, **self.options})(Worker).remote
        idle = [make() for _ in range(self.actors)]
        waiting, deaths = deque(numbers), dict[int, int]()
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while waiting and idle:
                actor, number = idle.pop(), waiting.popleft()
                running[actor.label.remote(task, number)] = number, actor
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            number, actor = running.pop(reference)
            try:
                outcome: Outcome = ray.get(reference)
            except ray.exceptions.RayActorError:
                idle.append(make())
                deaths[number] = deaths.get(number, 0) + 1
                if deaths[number] == 1:
                    waiting.append(number)
                    continue
                outcome = SparseConvError("its actor died, twice")
            except Exception as error:  # what the tile raised
                idle.append(actor)
                outcome = error
            else:
                idle.append(actor)
            yield number, outcome
        for actor in idle:
            ray.kill(actor)
