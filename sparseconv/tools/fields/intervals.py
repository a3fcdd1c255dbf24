"""Which inputs each position of one axis reads: exact intervals of whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

Span = tuple[int, int] | None
Number = int | float


def hull(spans: Iterable[Span]) -> Span:
    """Return the smallest interval that holds all ``spans``; None where they are empty."""
    present = [span for span in spans if span is not None]
    if not present:
        return None
    return min(low for low, _ in present), max(high for _, high in present)


@dataclass(frozen=True)
class Field:
    """The intervals of inputs that the positions of one axis read.

    Position ``n`` reads ``spans[n]``; ``n + len(spans)`` reads the same, ``advance`` further on.
    One span is enough until a transposed layer, whose positions differ in turns. Padding is not
    cut off: an interval may begin below 0.

    Attributes:
        spans: first and last input of each position in turn; None where it reads nothing.
        advance: inputs by which a turn moves on.
        always: what every position reads besides, such as a global average.
    """

    spans: tuple[Span, ...] = ((0, 0),)
    advance: int = 1
    always: Span = None

    @property
    def jump(self) -> Fraction:
        """Distance of neighbouring positions, in inputs."""
        return Fraction(self.advance, len(self.spans))

    @property
    def reach(self) -> int:
        """Number of inputs of the widest interval."""
        widest = [hull((span, self.always)) for span in self.spans]
        return max((high - low + 1 for low, high in filter(None, widest)), default=0)

    @property
    def start(self) -> Fraction:
        """The middle of the first interval that is not empty."""
        span = next(filter(None, self.spans), self.always) or (0, 0)
        return Fraction(span[0] + span[1], 2)

    def at(self, position: int) -> Span:
        """Return what one position reads, ``always`` aside."""
        turn, phase = divmod(position, len(self.spans))
        span = self.spans[phase]
        moved = turn * self.advance
        return None if span is None else (span[0] + moved, span[1] + moved)

    def through(self, reads: Callable[[int], Iterable[int]], period: int, step: int) -> Field:
        """Return the field behind a layer whose output ``n`` reads the positions ``reads(n)``.

        ``reads(n + period)`` must be ``reads(n)``, ``step`` further on.
        """
        turns = len(self.spans) // math.gcd(len(self.spans), step)
        spans = tuple(hull(map(self.at, reads(n))) for n in range(period * turns))
        return Field(spans, self.advance * step * turns // len(self.spans), self.always)

    def whole(self, size: int) -> Field:
        """Return the field of a window over all ``size`` positions."""
        return self.through(lambda n: range(n * size, (n + 1) * size), 1, size)

    def everywhere(self, size: int = 1) -> Field:
        """Return the field of positions that all read all of these ``size`` positions."""
        return Field((None,), 0, hull((*map(self.at, range(size)), self.always)))

    def union(self, other: Field, size: int) -> Field:
        """Return the field of ``size`` positions that read what both read."""
        always = hull((self.always, other.always))
        for one, two in ((self, other), (other, self)):
            if not any(one.spans):
                return Field(two.spans, two.advance, always)
        period, advance = math.lcm(len(self.spans), len(other.spans)), 0
        if self.jump != other.jump:  # no common turn: every position for itself
            period = size
        advance = round(max(self, other, key=lambda field: field.reach).jump * period)
        spans = tuple(hull((self.at(n), other.at(n))) for n in range(period))
        return Field(spans, advance, always)


def joined(fields: Sequence[Field], sizes: Sequence[int]) -> Field:
    """Return the field of positions laid one after another."""
    spans = [field.at(n) for field, size in zip(fields, sizes, strict=True) for n in range(size)]
    advance = round(fields[0].jump * len(spans))
    return Field(tuple(spans), advance, hull(field.always for field in fields))


def plain(value: Fraction) -> Number:
    """Return a whole number as an int, another as a float."""
    return int(value) if value.denominator == 1 else float(value)
