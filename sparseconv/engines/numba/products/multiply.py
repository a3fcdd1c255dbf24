"""The innermost loops of the products: rows times a block of weight, added or written to others.

While they multiply the rows of some pairs, those of the next ones are fetched into the cache. A
core waits for about 24 cache lines at a time: where one is asked for in each of many steps, all are
there when their turn comes; asked for at once they stop the core until most have come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparseconv.engines.numba.machine.vectors import CACHE_LINE, VECTOR_BYTES, Emitter, Value, sizes

Fused = Callable[[Emitter, Value, Value, Value], Value]  # value, column, total: the new total
AHEAD = 3  # lots of pairs by which rows are fetched into the second-level cache
FETCHED_BYTES = 256  # the longest rows that are fetched at once


class _Coming:
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

    def spread(self, steps: Value) -> Value:
        """Return in how many of the steps a line is fetched each: in none, or in half at most.

        None where there are too many lines for that; short rows are fetched at once then.
        """
        emitter, builder = self._emitter, self._emitter.builder
        lines = builder.mul(self._lines, emitter.const(self._count))
        enough = builder.icmp_signed("<=", emitter.plus(emitter.const(0), lines, 2), steps)
        return builder.select(enough, lines, emitter.const(0))

    def fetch_line(self, step: Value) -> None:
        """Ask for the line of a step: the first of each row, then the second of each.

        Those of pairs further on come as far as the second-level cache.
        """
        emitter, builder = self._emitter, self._emitter.builder
        row = builder.and_(step, emitter.const(self._count - 1))
        line = builder.lshr(step, emitter.const(self._count.bit_length() - 1))
        pair = builder.add(self._next, row)
        for ahead, near in ((0, True), (AHEAD * self._count, False)):
            place = self._place(emitter.plus(pair, ahead))
            emitter.fetch(emitter.plus(place, line, CACHE_LINE), near)

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


def _fma(emitter: Emitter, value: Value, column: Value, total: Value) -> Value:
    return emitter.fma(value, column, total)


def emit_multiply(vectors: int, fused: Fused = _fma, single: bool = False) -> Callable[..., None]:
    """Return the emitter of: multiply pairs ``first`` to ``last`` by a block, and add them to rows.

    Args:
        vectors: of columns of the block.
        fused: what is done with what a row holds for one step.
        single: whether a row has one pair only: it is written and never read, and three more
            arguments say what is added (an address), whether negative results become 0, and
            whether rows are written past the cache.
    """

    def emit(context: Any, builder: Value, signature: Any, args: tuple[Value, ...]) -> None:
        emitter = Emitter(builder, signature.args[0].dtype)
        _, x, x_stride, in_rows, out, out_stride, out_rows, weight, steps, *given = args
        first, last, *ending = given
        length = builder.mul(steps, emitter.const(emitter.size))
        for size in sizes(vectors):
            whole = size == max(sizes(vectors))  # not of the few pairs left over
            may_spread = 2 * size * emitter.size <= CACHE_LINE  # else no row has steps enough
            with emitter.loop(first, last, size, []) as pairs:
                entries = [emitter.plus(pairs.number, row) for row in range(size)]
                sources = [emitter.load_row(in_rows, e, x, x_stride) for e in entries]
                targets = [emitter.load_row(out_rows, e, out, out_stride) for e in entries]
                origins = [ending[0]] * size if single else targets
                totals = [emitter.load(origin, v) for origin in origins for v in range(vectors)]
                coming = _Coming(emitter, (in_rows, x, x_stride), pairs.number, size, last, length)
                done = spread = emitter.const(0)
                if whole and may_spread:
                    spread = coming.spread(steps)
                    with builder.if_then(builder.icmp_signed("==", spread, done)):
                        coming.fetch_short()
                elif whole:
                    coming.fetch_short()
                for fetching in (True, False) if whole and may_spread else (False,):
                    end = spread if fetching else steps
                    with emitter.loop(done, end, 1, totals) as step:
                        if fetching:
                            coming.fetch_line(step.number)
                        block = emitter.plus(weight, step.number, vectors * VECTOR_BYTES)
                        columns = [emitter.load(block, vector) for vector in range(vectors)]
                        values = iter(step.values)
                        step.values = [
                            fused(emitter, value, column, next(values))
                            for value in emitter.broadcasts(sources, step.number)
                            for column in columns
                        ]
                    done, totals = step.number, step.values
                parts = [totals[row * vectors : (row + 1) * vectors] for row in range(size)]
                if single:
                    parts = [[emitter.bounded(v, ending[1]) for v in part] for part in parts]
                    emitter.write_rows(list(zip(parts, targets, strict=True)), ending[2])
                else:
                    for part, target in zip(parts, targets, strict=True):
                        for vector, value in enumerate(part):
                            emitter.store(value, target, vector)
            first = pairs.number

    return emit
