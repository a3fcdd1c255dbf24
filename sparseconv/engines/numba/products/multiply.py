"""The innermost loops of the products: rows times a block of weight, added or written to others.

While they multiply the rows of some pairs, those of the next ones are fetched into the cache. A
core waits for about 24 cache lines at a time: where one is asked for in each of many steps, all are
there when their turn comes; asked for at once they stop the core until most have come.

Benchmark: layer submanifold 3x3x3, 64 to 64 channels, forward
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import intrinsic

from sparseconv.engines.numba.machine.vectors import Emitter, Value, emitted
from sparseconv.engines.numba.machine.widths import CACHE_LINE_BYTES, VECTOR_BYTES, sizes

PREFETCH_STEPS = 3  # lots of pairs by which rows are fetched into the second-level cache
PREFETCH_ROW_BYTES = 256  # the longest rows that are fetched at once


class _Rows(NamedTuple):
    """Rows of a matrix, one per pair: its address, its stride, and that of int32 row numbers."""

    matrix: Value
    stride: Value
    numbers: Value

    def at(self, emitter: Emitter, pair: Value) -> Value:
        """Return the address of a pair's row."""
        return emitter.load_row(self.numbers, pair, self.matrix, self.stride)


class _Epilogue(NamedTuple):
    """What rows with one pair are written with.

    An address of what is added, whether negative results become 0, and whether the stores are
    non-temporal.
    """

    bias: Value
    relu: Value
    nontemporal: Value


class _NextRows:
    """The rows of the pairs behind some, which are multiplied in one step a channel.

    Args:
        emitter: of the code.
        rows: of all pairs.
        pair, count: the present pairs; as many follow.
        last: the pair behind the last one of all; the one before it stands in for those behind.
        length: bytes of a row that are read.
    """

    def __init__(
        self, emitter: Emitter, rows: _Rows, pair: Value, count: int, last: Value, length: Value
    ) -> None:
        self._emitter, self._rows, self._count, self._length = emitter, rows, count, length
        self._next, self._final = emitter.plus(pair, count), emitter.plus(last, -1)
        lines = emitter.plus(length, CACHE_LINE_BYTES - 1)
        self._lines = emitter.builder.sdiv(lines, emitter.const(CACHE_LINE_BYTES))

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
        for ahead, near in ((0, True), (PREFETCH_STEPS * self._count, False)):
            row = self._row(emitter.plus(pair, ahead))
            emitter.prefetch(emitter.plus(row, line, CACHE_LINE_BYTES), near)

    def fetch_short(self) -> None:
        """Ask for all lines, of rows that are short enough to leave the present ones in place."""
        emitter, builder = self._emitter, self._emitter.builder
        rows = [self._row(emitter.plus(self._next, row)) for row in range(self._count)]
        short = builder.icmp_signed("<=", self._length, emitter.const(PREFETCH_ROW_BYTES))
        lines = builder.select(short, self._lines, emitter.const(0))
        with emitter.loop(emitter.const(0), lines, 1, []) as line:
            for row in rows:
                emitter.prefetch(emitter.plus(row, line.number, CACHE_LINE_BYTES))

    def _row(self, pair: Value) -> Value:
        """Return the address of a pair's row."""
        builder = self._emitter.builder
        inside = builder.icmp_signed("<", pair, self._final)
        return self._rows.at(self._emitter, builder.select(inside, pair, self._final))


def _emit_multiply(
    emitter: Emitter,
    vectors: Value,
    source: list[Value],
    target: list[Value],
    weight: list[Value],
    pairs: list[Value],
    epilogue: list[Value] | None = None,
) -> None:
    """Emit the products of pairs' rows and a block of one or two vectors of columns."""
    written = None if epilogue is None else _Epilogue(*epilogue)
    for count in emitter.cases(vectors, (1, 2)):
        first, last = pairs
        for size in sizes(count):
            lots = first, last, size
            first = _emit_lots(
                emitter, lots, _Rows(*source), _Rows(*target), (*weight, count), written
            )


def _emit_lots(
    emitter: Emitter,
    lots: tuple[Value, Value, int],
    source: _Rows,
    target: _Rows,
    weight: tuple[Value, Value, int],
    epilogue: _Epilogue | None,
) -> Value:
    """Emit the products of as many lots of pairs as fit; return the first pair left over.

    Args:
        emitter: of the code.
        lots: the first pair, the one behind the last, and the pairs of a lot.
        source, target: the rows that are read and written.
        weight: the address of a block, its steps (channels, or pairs of them), and its vectors.
        epilogue: of rows that have one pair only: they are written and never read.
    """
    builder, (first, last, size), (block, steps, vectors) = emitter.builder, lots, weight
    length = builder.mul(steps, emitter.const(emitter.size))
    whole = size == max(sizes(vectors))  # not of the few pairs left over
    may_spread = 2 * size * emitter.size <= CACHE_LINE_BYTES  # else no row has steps enough
    with emitter.loop(first, last, size, []) as pairs:
        entries = [emitter.plus(pairs.number, row) for row in range(size)]
        sources = [source.at(emitter, entry) for entry in entries]
        targets = [target.at(emitter, entry) for entry in entries]
        origins = [epilogue.bias] * size if epilogue else targets
        totals = [emitter.load(origin, v) for origin in origins for v in range(vectors)]
        following = _NextRows(emitter, source, pairs.number, size, last, length)
        done = spread = emitter.const(0)
        if whole and may_spread:
            spread = following.spread(steps)
            with builder.if_then(builder.icmp_signed("==", spread, done)):
                following.fetch_short()
        elif whole:
            following.fetch_short()
        for fetching in (True, False) if whole and may_spread else (False,):
            with emitter.loop(done, spread if fetching else steps, 1, totals) as step:
                if fetching:
                    following.fetch_line(step.number)
                columns = emitter.plus(block, step.number, vectors * VECTOR_BYTES)
                step.values = _emit_step(emitter, sources, step.number, columns, step.values)
            done, totals = step.number, step.values
        _emit_stores(emitter, totals, targets, vectors, epilogue)
    return pairs.number


def _emit_step(
    emitter: Emitter, sources: list[Value], step: Value, block: Value, totals: list[Value]
) -> list[Value]:
    """Return the totals and what one step of each row adds to them."""
    vectors = len(totals) // len(sources)
    columns = [emitter.load(block, vector) for vector in range(vectors)]
    values = [emitter.broadcast(emitter.plus(row, step, emitter.size)) for row in sources]
    return [
        emitter.fma(value, column, totals[row * vectors + vector])
        for row, value in enumerate(values)
        for vector, column in enumerate(columns)
    ]


def _emit_stores(
    emitter: Emitter,
    totals: list[Value],
    targets: list[Value],
    vectors: int,
    epilogue: _Epilogue | None,
) -> None:
    """Write the totals of rows, with their epilogue where there is one."""
    rows = [totals[row * vectors : (row + 1) * vectors] for row in range(len(targets))]
    if epilogue:
        rows = [[emitter.bounded(value, epilogue.relu) for value in row] for row in rows]
        emitter.store_rows(list(zip(rows, targets, strict=True)), epilogue.nontemporal)
        return
    for row, target in zip(rows, targets, strict=True):
        for vector, value in enumerate(row):
            emitter.store(value, target, vector)


@intrinsic
def multiply_add(
    typing: Any, like: Any, vectors: Any, source: Any, target: Any, weight: Any, pairs: Any
) -> Any:
    """Add rows times a block of weight to the rows of their pairs.

    Args:
        typing: of Numba.
        like: an array of the rows' dtype.
        vectors: of columns in the block, 1 or 2.
        source, target: addresses of the first row, strides, and addresses of int32 row numbers.
        weight: the address of the block, and its steps.
        pairs: the first, and the one behind the last.
    """
    return emitted(_emit_multiply, like, vectors, source, target, weight, pairs)


@intrinsic
def multiply_write(
    typing: Any,
    like: Any,
    vectors: Any,
    source: Any,
    target: Any,
    weight: Any,
    pairs: Any,
    epilogue: Any,
) -> Any:
    """Write rows times a block of weight, with an epilogue, to rows that have one pair only.

    ``epilogue`` as of :class:`_Epilogue`, the others as of :func:`multiply_add`.
    """
    return emitted(_emit_multiply, like, vectors, source, target, weight, pairs, epilogue)
