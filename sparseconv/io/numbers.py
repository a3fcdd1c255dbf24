"""Text to float64, as `float` reads it: a compiled loop for large files, Python for small ones."""

from __future__ import annotations

import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from sparseconv.io.table import Array

COMPILED = 1 << 20  # bytes from which loading the compiled loop pays
BLANK = 0  # separator: any run of blanks and tabs
MISSING = ("", "na", "n/a", "null", "none", "nan", "-nan")
MOST_THREADS = 8
COMMENTS = (b"#", b"//")
NEWLINE = ord("\n")


def read_numbers(
    data: npt.NDArray[np.uint8],
    columns: int,
    separator: str | None = None,
    comma: bool = False,
    rows: int | None = None,
) -> npt.NDArray[np.float64]:
    """Read lines of numbers; what follows ``#`` or ``//`` is left out, as are empty lines.

    Args:
        data: Bytes of text, UTF-8 or Latin-1.
        columns: Numbers in a line.
        separator: What stands between them; None for blanks. An empty cell is NaN.
        comma: Whether a comma stands before the decimals.
        rows: How many lines to read at most; None for all.

    Returns:
        ``[rows, columns]`` float64, each number rounded once, as `float` does.

    Raises:
        ValueError: A line has another number of columns, or one of them is no number.
    """
    if len(data) >= COMPILED:
        table = _compiled(data, columns, separator, comma, rows)
        if table is not None:
            return table
    lines = bytes(data).decode("utf-8", "replace").splitlines()
    found: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if rows is not None and len(found) == rows:
            break
        words = words_of(line, separator)
        if not words:
            continue
        if len(words) != columns:
            raise ValueError(f"line {number} has {len(words)} columns, the first has {columns}")
        found.append([number_of(word, comma) for word in words])
    return np.array(found, np.float64).reshape(len(found), columns)


def words_of(line: str, separator: str | None) -> list[str]:
    r"""Return the cells of a line without its comment; none where it is empty.

    >>> words_of("1 2\t3 # a comment", None), words_of("1,,3", ",")
    (['1', '2', '3'], ['1', '', '3'])
    """
    for comment in ("#", "//"):
        line = line.partition(comment)[0]
    line = line.strip("\0 \t\r\n\f\v")
    if not line:
        return []
    return line.split() if separator is None else [word.strip() for word in line.split(separator)]


def number_of(word: str, comma: bool = False) -> float:
    """Return what a word means: NaN where a cell is empty or says that nothing is known.

    Raises:
        ValueError: It is no number.
    """
    word = word.strip(" \t\"'")
    if word.lower() in MISSING:
        return float("nan")
    if "_" in word:
        raise ValueError(f"could not convert {word[:40]!r} to a number")
    try:
        return float(word.replace(",", ".") if comma else word)
    except ValueError as error:
        raise ValueError(f"could not convert {word[:40]!r} to a number") from error


def _compiled(
    data: npt.NDArray[np.uint8],
    columns: int,
    separator: str | None,
    comma: bool,
    rows: int | None,
) -> npt.NDArray[np.float64] | None:
    """Return what :func:`read_numbers` does, in parallel; None where a line is not so plain."""
    loop = importlib.import_module("sparseconv.io.loops")
    marks = ord(separator) if separator else BLANK, ord("," if comma else ".")
    threads = max(1, min(os.cpu_count() or 1, MOST_THREADS, len(data) // COMPILED))
    if rows is not None:
        threads = 1  # where the last row ends is not known before the others are read
    cuts = [0]
    for part in range(1, threads):
        cuts.append(max(cuts[-1], loop.after_line(data, len(data) * part // threads)))
    pieces = [data[begin:end] for begin, end in pairwise((*cuts, len(data)))]
    with ThreadPoolExecutor(threads) as pool:
        lines = list(pool.map(loop.count_lines, pieces))
        # what follows the last line's end is no line
        lines = [n - (piece[-1:] == NEWLINE).any() for n, piece in zip(lines, pieces, strict=True)]
        lines = lines if rows is None else [min(*lines, rows)]
        ends = list(accumulate(lines, initial=0))
        table = np.empty((ends[-1], columns))  # one for all parts: memory is not free

        def parse(part: int) -> tuple[int, int]:
            piece, out = pieces[part], table[ends[part] : ends[part + 1]]
            doubtful = np.empty((max(1024, out.size // 16), 3), np.int64)
            read, doubts = loop.parse(piece, *marks, *_powers(), out, doubtful)
            for cell, start, end in doubtful[: max(doubts, 0)].tolist():
                out.flat[cell] = number_of(bytes(piece[start:end]).decode("latin1"), comma)
            return read, doubts

        parts = list(pool.map(parse, range(threads)))
    if any(doubts < 0 for _, doubts in parts):
        return None
    size = 0
    for begin, (read, _) in zip(ends[:-1], parts, strict=True):
        if size != begin:  # lines without a row
            table[size : size + read] = table[begin : begin + read]
        size += read
    return table[:size]


@cache
def _powers() -> tuple[Array, Array]:
    """Return 10**k for k from -300 to 300 as sums of two float64, to about 106 bits."""
    high = np.empty(601)
    low = np.empty(601)
    for number, exponent in enumerate(range(-300, 301)):
        scale = 10 ** abs(exponent)
        # int / int is rounded once, whatever their size
        high[number] = scale / 1 if exponent >= 0 else 1 / scale
        above, below = high[number].as_integer_ratio()
        if exponent >= 0:
            low[number] = (scale * below - above) / below
        else:
            low[number] = (below - above * scale) / (below * scale)
    return high, low


def read_integers(data: npt.NDArray[np.uint8], column: int, separator: str | None) -> Array:
    """Return one column of whole numbers that float64 does not hold, as int64 or uint64.

    Raises:
        ValueError: A cell is no whole number, or needs more than 64 bits.
    """
    lines = bytes(data).decode("utf-8", "replace").splitlines()
    cells = [words[column] for line in lines if (words := words_of(line, separator))]
    numbers = [int(cell.strip("\"'")) for cell in cells]
    fits = not numbers or max(numbers) < 2**63
    if numbers and (max(numbers) >= 2**64 or min(numbers) < (-(2**63) if fits else 0)):
        raise ValueError("a whole number has more than 64 bits")
    return np.array(numbers, np.int64 if fits else np.uint64)
