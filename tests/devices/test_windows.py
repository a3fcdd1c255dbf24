"""Windows on devices: all cells at once, with what the CPU finds cell by cell."""

from __future__ import annotations

import pytest
import torch
from cases import DEVICES, generator, random_input
from torch import Tensor

from sparseconv.core.geometry import make_geometry
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch import windows

SPECIAL = (float("nan"), -float("inf"), float("inf"), 1.0, 1.0, -0.0, 0.0)


def book_and_rows(device: str, kernel: int, stride: int) -> tuple[Rulebook, Tensor]:
    """Return a map on a device, and rows ``[N, 6]`` on the CPU with ties, NaN and infinite ones."""
    x = random_input(70, 1, (6, 5, 4), batch=2)
    geometry = make_geometry((kernel,) * 3, stride=stride, padding=kernel // 2)
    book = x.sites.to(device).convolve(geometry)[1]
    pick = torch.randint(0, 2 * len(SPECIAL), (70, 6), generator=generator(1))
    rows = torch.randn(70, 6, generator=generator(2))
    special = torch.tensor(SPECIAL)[pick % len(SPECIAL)]
    return book, torch.where(pick < len(SPECIAL), special, rows.round())


@pytest.mark.parametrize("most", [2**29, 999])
@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (3, 3), (1, 2)])
@pytest.mark.parametrize("device", DEVICES)
def test_the_largest_of_a_window(
    device: str, kernel: int, stride: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells too: the first of equal ones, the last NaN, an infinite one before none."""
    monkeypatch.setattr(windows, "MAX_COPY", most)
    book, rows = book_and_rows(device, kernel, stride)
    on_cpu, _ = book_and_rows("cpu", kernel, stride)
    values, cells = windows.window_argmax(rows.to(device), book)
    expected, of_cell = windows.window_argmax(rows, on_cpu)
    assert torch.equal(cells.cpu(), of_cell)
    torch.testing.assert_close(values.cpu(), expected, rtol=0, atol=0, equal_nan=True)
    back = windows.window_scatter(values, cells, book).cpu()
    torch.testing.assert_close(
        back, windows.window_scatter(expected, of_cell, on_cpu), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("device", DEVICES)
def test_windows_of_nothing(device: str) -> None:
    book, rows = book_and_rows(device, 3, 2)
    none = Rulebook(book.in_rows[:0], book.out_rows[:0], (0,) * 28, 70, book.n_out)
    x = rows.to(device)
    values, cells = windows.window_argmax(x, none)
    assert values.eq(0).all() and cells.eq(-1).all() and values.shape == (book.n_out, 6)
    assert windows.window_sum(x, none, 1).eq(0).all()
    assert windows.window_scatter(values, cells, none).shape == (70, 6)
    empty = Rulebook(book.in_rows[:0], book.out_rows[:0], (0,) * 28, 70, 0)
    assert windows.window_argmax(x, empty)[0].shape == (0, 6)
    assert windows.window_sum(x[:, :0], book, 1).shape == (book.n_out, 0)
