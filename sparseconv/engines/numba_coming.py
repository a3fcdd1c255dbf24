"""Rows that a product reads next, fetched into the cache while it multiplies the present ones.

A core waits for about 24 cache lines at a time. Where one is asked for in each of many steps, all
are there when their turn comes; asked for at once they stop the core until most have come.
"""

from __future__ import annotations

import numba

from sparseconv.engines.numba_vectors import CACHE_LINE, ROWS, Emitter, Value

FETCHED_BYTES = 256  # the longest rows that are fetched at once


class Coming:
    """The rows of the pairs behind some, which are multiplied in one step a channel.

    Args:
        emitter: of the code.
        rows: addresses of int32 row numbers, one per pair, and of the rows, and their stride.
        pair, count: the present pairs; as many follow.
        last: the pair behind the last one of all; the one before it stands in for those behind.
        length: bytes of a row that are read.
    """

    def __init__(
        self,
        emitter: Emitter,
        rows: tuple[Value, Value, Value],
        pair: Value,
        count: int,
        last: Value,
        length: Value,
    ) -> None:
        builder = emitter.builder
        self._emitter, self._rows, self._count, self._length = emitter, rows, count, length
        self._next, self._final = emitter.plus(pair, count), emitter.plus(last, -1)
        self._lines = builder.sdiv(emitter.plus(length, CACHE_LINE - 1), emitter.const(CACHE_LINE))

    @property
    def steps(self) -> Value:
        """The number of lines, and of the first steps in which one of them is fetched each."""
        return self._emitter.builder.mul(self._lines, self._emitter.const(self._count))

    def fetch_line(self, step: Value) -> None:
        """Ask for the line of a step: the first of each row, then the second of each."""
        emitter, builder = self._emitter, self._emitter.builder
        row = builder.and_(step, emitter.const(self._count - 1))
        line = builder.lshr(step, emitter.const(self._count.bit_length() - 1))
        place = self._place(builder.add(self._next, row))
        emitter.fetch(emitter.plus(place, line, CACHE_LINE))

    def fetch_short(self) -> None:
        """Ask for all lines, of rows that are short enough to leave the present ones in place."""
        emitter, builder = self._emitter, self._emitter.builder
        places = [self._place(emitter.plus(self._next, row)) for row in range(self._count)]
        short = builder.icmp_signed("<=", self._length, emitter.const(FETCHED_BYTES))
        lines = builder.select(short, self._lines, emitter.const(0))
        with emitter.loop(emitter.const(0), lines, 1, []) as line:
            for place in places:
                emitter.fetch(emitter.plus(place, line.number, CACHE_LINE))

    def _place(self, pair: Value) -> Value:
        """Return the address of a pair's row."""
        builder = self._emitter.builder
        inside = builder.icmp_signed("<", pair, self._final)
        rows, x, stride = self._rows
        return self._emitter.load_row(rows, builder.select(inside, pair, self._final), x, stride)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def enough_steps(channels: int, size: int) -> bool:
    """Return whether the lines of ``ROWS`` rows take at most every second step; inside kernels."""
    return 2 * ROWS * -(-channels * size // CACHE_LINE) <= channels
