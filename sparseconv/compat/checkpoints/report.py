"""What became of every tensor of a checkpoint, and of every tensor of a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparseconv.core.arguments import Ints


@dataclass(frozen=True)
class Entry:
    """What became of one tensor.

    Attributes:
        key: of the model's state dict; of the checkpoint's for what is unexpected.
        action: ``"taken"`` as it was, ``"converted"`` to the model's layout, ``"missing"`` from the
            checkpoint, ``"unexpected"`` in it, or ``"unfit"``: of a shape that no such layer has.
        origin: key of the checkpoint, None where it lacks the tensor.
        found: shape in the checkpoint.
        shape: shape in the model.
        by_order: whether names did not tell which tensor it is, but order and shapes.
    """

    key: str
    action: str
    origin: str | None = None
    found: Ints | None = None
    shape: Ints | None = None
    by_order: bool = False

    def __str__(self) -> str:
        text = f"{self.key}: {self.action}"
        if self.origin not in (None, self.key):
            text += f", from {self.origin}" + (" by order" if self.by_order else "")
        if self.found != self.shape:
            shapes = [str(shape) for shape in (self.found, self.shape) if shape is not None]
            text += f", {' to '.join(shapes)}"
        return text


@dataclass(frozen=True)
class CheckpointReport:
    """What became of every tensor; ``print`` shows a line each.

    Attributes:
        source: the library whose layout the checkpoint has.
        entries: one for each tensor of the model, then one for each that is left over.
    """

    source: str
    entries: tuple[Entry, ...]

    def of(self, *actions: str) -> list[Entry]:
        """Return the entries of some actions."""
        return [entry for entry in self.entries if entry.action in actions]

    @property
    def problems(self) -> list[Entry]:
        """What is missing, unexpected or unfit.

        A count of batches that a norm lacks is none: only ``momentum=None`` reads it.
        """
        return [
            entry
            for entry in self.of("missing", "unexpected", "unfit")
            if not entry.key.endswith("num_batches_tracked")
        ]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(self.of(action))} {action}"
            for action in ("taken", "converted", "missing", "unexpected", "unfit")
            if self.of(action)
        )
        return "\n".join([f"weights of {self.source}: {counts}", *map(str, self.entries)])


def shape_of(tensor: Tensor) -> Ints:
    """Return a tensor's shape as a tuple."""
    return tuple(tensor.shape)
