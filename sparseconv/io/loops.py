"""The loops over bytes that NumPy has no function for, compiled by Numba; imported when needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

NEWLINE, RETURN, TAB, SPACE = 10, 13, 9, 32
HASH, SLASH, PLUS, MINUS, ZERO, NINE = 35, 47, 43, 45, 48, 57
MOST_DIGITS = 19  # that fit into uint64
PLAIN_DIGITS = 15  # that float64 holds, whatever they are
TRIES = 16  # rows that may be no plain ones before they are the fewer
FAILED = -1
SPLITTER = 134217729.0  # 2**27 + 1: splits a float64 into two of 26 bits (Dekker 1971)
DOUBT = 2.0**-98  # of a value: how far the product of two pairs of float64 may be off
SHORTEST = 3  # bytes that a reference of LZF copies at least


def _compiled(function: Callable[..., Any]) -> Any:
    """Return what Numba compiles a function to, kept on disk where there is room for it."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True)(function)


@_compiled
def count_lines(data: Any) -> int:
    """Return the number of lines, the last one without an end included."""
    lines = 1
    for byte in data:
        lines += (byte == NEWLINE) | (byte == RETURN)
    return lines


@_compiled
def after_line(data: Any, start: int) -> int:
    """Return where the line after the one around ``start`` begins."""
    while start < len(data) and data[start] != NEWLINE and data[start] != RETURN:
        start += 1
    return min(start + 1, len(data))


@_compiled
def _product(mantissa: Any, high: float, low: float) -> tuple[float, float]:
    """Return mantissa * (high + low) as a sum of two float64."""
    a = float(mantissa >> np.uint64(32)) * 4294967296.0
    b = float(mantissa & np.uint64(0xFFFFFFFF))
    first = a + b
    rest = b - (first - a)
    product = first * high
    part = SPLITTER * first
    first_high = part - (part - first)
    first_low = first - first_high
    part = SPLITTER * high
    high_high = part - (part - high)
    high_low = high - high_high
    error = first_high * high_high - product
    error = ((error + first_high * high_low) + first_low * high_high) + first_low * high_low
    error += first * low + rest * high
    total = product + error
    return total, error - (total - product)


@_compiled
def _is_comment(data: Any, place: int) -> bool:
    if data[place] == HASH:
        return True
    return data[place] == SLASH and place + 1 < len(data) and data[place + 1] == SLASH


@_compiled
def _number(data: Any, place: int, decimal: int, high: Any, low: Any) -> tuple[int, float, int]:
    """Read one number: where it ends, its value, and 0 (sure), 1 (doubtful) or FAILED."""
    size = len(data)
    negative = data[place] == MINUS
    if negative or data[place] == PLUS:
        place += 1
    mantissa, exponent, digits = np.uint64(0), np.int64(0), np.int64(0)
    seen, sure = False, True
    after_point = False
    while place < size:
        byte = data[place]
        if ZERO <= byte <= NINE:
            seen = True
            if digits < MOST_DIGITS:
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - ZERO)
                digits += mantissa > 0
                exponent -= after_point
            else:
                sure = sure and byte == ZERO
                exponent += not after_point
        elif byte == decimal and not after_point:
            after_point = True
        else:
            break
        place += 1
    if not seen:
        return place, 0.0, FAILED
    if place < size and (data[place] == 101 or data[place] == 69):  # e, E
        place += 1
        below = False
        if place < size and (data[place] == MINUS or data[place] == PLUS):
            below = data[place] == MINUS
            place += 1
        power, any_digit = np.int64(0), False
        while place < size and ZERO <= data[place] <= NINE:
            power = min(power * 10 + np.int64(data[place]) - ZERO, np.int64(100000))
            any_digit = True
            place += 1
        if not any_digit:
            return place, 0.0, FAILED
        exponent += -power if below else power
    if mantissa == 0:
        return place, -0.0 if negative else 0.0, 0
    if mantissa < np.uint64(1) << np.uint64(53) and -22 <= exponent <= 22 and sure:
        # both are exact in float64: one operation rounds once
        value = float(mantissa)
        value = value * high[300 + exponent] if exponent >= 0 else value / high[300 - exponent]
        return place, -value if negative else value, 0
    if not sure or exponent < -280 or exponent > 270:
        return place, 0.0, 1
    value, rest = _product(mantissa, high[300 + exponent], low[300 + exponent])
    doubt = value * DOUBT
    if value + (rest - doubt) != value + (rest + doubt):
        return place, 0.0, 1
    value += rest
    return place, -value if negative else value, 0


@_compiled
def _nan(data: Any, place: int) -> bool:
    if place + 3 > len(data):
        return False
    n = data[place] | 32 == 110 and data[place + 2] | 32 == 110
    return bool(n and data[place + 1] | 32 == 97)


@_compiled
def _plain_row(data: Any, place: int, marks: Any, high: Any, out: Any) -> int:
    """Read a row of up to 15 digits a number, without exponents; most files have no others.

    Returns:
        Where the next line begins, or FAILED where this one is not so plain.
    """
    size, separator, decimal = len(data), marks[0], marks[1]
    for column in range(len(out)):
        if column > 0:
            if place >= size or data[place] != separator:
                return FAILED
            place += 1
        negative = place < size and data[place] == MINUS
        place += negative
        mantissa, first, point = np.uint64(0), place, -1
        while place < size:
            digit = np.int64(data[place]) - ZERO
            if 0 <= digit <= 9:
                mantissa = mantissa * np.uint64(10) + np.uint64(digit)
            elif data[place] == decimal and point < 0:
                point = place
            else:
                break
            place += 1
        digits, decimals = place - first, 0
        if point >= 0:
            digits, decimals = digits - 1, place - point - 1
        if digits < 1 or digits > PLAIN_DIGITS:
            return FAILED
        value = float(mantissa) / high[300 + decimals]  # both are exact: it is rounded once
        out[column] = -value if negative else value
    if place < size and data[place] != NEWLINE and data[place] != RETURN:
        return FAILED
    return min(place + 1, size)


@_compiled
def parse(
    data: Any, separator: int, decimal: int, high: Any, low: Any, out: Any, doubtful: Any
) -> tuple[int, int]:
    """Read rows of numbers.

    Args:
        data: uint8, lines of text.
        separator: A byte, or 0 for blanks.
        decimal: The byte before the decimals.
        high, low: Powers of ten from -300 to 300.
        out: float64 ``[rows, columns]``.
        doubtful: int64 ``[n, 3]``: cell, start and end of numbers that are left to Python.

    Returns:
        Rows that were read, and how many cells are doubtful: -1 where a line is not so plain.
    """
    rows, columns = out.shape
    size, place, row, doubts, others = len(data), 0, 0, 0, 0
    marks = (separator if separator else SPACE, decimal)
    while row < rows and place < size:
        while place < size and (data[place] == SPACE or data[place] == TAB):
            place += 1
        if place == size:
            break
        if data[place] == NEWLINE or data[place] == RETURN:
            place += 1
            continue
        if others < TRIES or 2 * others < row:
            end = _plain_row(data, place, marks, high, out[row])
            if end != FAILED:
                place = end
                row += 1
                continue
            others += 1
        column = 0
        if _is_comment(data, place):
            column = columns
        while column < columns:
            start = place
            if separator and (place == size or data[place] in (separator, NEWLINE, RETURN)):
                value, state = np.nan, 0
            elif place == size:
                return row, FAILED
            elif _nan(data, place):
                value, state = np.nan, 0
                place += 3
            else:
                place, value, state = _number(data, place, decimal, high, low)
            if state == FAILED or (state == 1 and doubts == len(doubtful)):
                return row, FAILED
            if state == 1:
                doubtful[doubts, 0] = row * columns + column
                doubtful[doubts, 1] = start
                doubtful[doubts, 2] = place
                doubts += 1
            out[row, column] = value
            column += 1
            end = place
            while place < size and (
                data[place] == SPACE or (data[place] == TAB and separator != TAB)
            ):
                place += 1
            if column < columns:
                if separator:
                    if place == size or data[place] != separator:
                        return row, FAILED
                    place += 1
                    while place < size and data[place] == SPACE:
                        place += 1
                elif place == end:
                    return row, FAILED
            else:
                row += 1
        if place < size and _is_comment(data, place):
            while place < size and data[place] != NEWLINE and data[place] != RETURN:
                place += 1
        if place < size and data[place] != NEWLINE and data[place] != RETURN:
            return row, FAILED
    return row, doubts


@_compiled
def decompress_lzf(data: Any, out: Any) -> int:
    """Fill ``out`` with what LZF packed; returns the bytes written, -1 for a bad reference."""
    size, room = len(data), len(out)
    place, end = 0, 0
    while place < size and end <= room:
        control = int(data[place])
        place += 1
        if control < 32:
            count = control + 1
            if place + count > size or end + count > room:
                return -2
            for offset in range(count):
                out[end + offset] = data[place + offset]
            place += count
            end += count
            continue
        length = control >> 5
        if length == 7:
            if place >= size:
                return -2
            length += int(data[place])
            place += 1
        if place >= size:
            return -2
        length += SHORTEST - 1
        distance = ((control & 31) << 8 | int(data[place])) + 1
        place += 1
        if distance > end:
            return -1
        if end + length > room:
            return -2
        for offset in range(length):  # one by one: the copy may overlap itself
            out[end + offset] = out[end - distance + offset]
        end += length
    return end if place == size else -2
