"""What a runner is, and the plainest one: tile after tile in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

from sparseconv.tiles.run import Done, Task

Outcome: TypeAlias = Done | BaseException


class Runner(Protocol):
    """Runs a task on tiles, wherever it likes.

    Attributes:
        elsewhere: whether tasks run in other processes, which load the model from the folder.
    """

    elsewhere: bool

    def run(self, task: Task, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Yield what became of each tile, in any order: what the task returned or raised."""


class Here:
    """Tile after tile in this process."""

    elsewhere = False

    def run(self, task: Task, numbers: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
        """Yield each tile's outcome as soon as it is there."""
        for number in numbers:
            outcome: Outcome
            try:
                outcome = task(number)
            except Exception as error:  # any error of a model or a disk breaks one tile alone
                outcome = error
            yield number, outcome
