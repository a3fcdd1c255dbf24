"""The inpainting example's parts: what its methods see, what it trains on, what it prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

for _library in ("matplotlib", "skimage.data", "sklearn.datasets", "cv2", "tqdm"):
    pytest.importorskip(_library)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "inpaint_image.py"
    spec = importlib.util.spec_from_file_location("inpaint_image", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_held_out_image_is_trained_on(example: ModuleType) -> None:
    assert not set(example.HELD_OUT) & set(example.TRAINED_ON)
    seen = [example.photograph(name, 32) for name in (*example.HELD_OUT, *example.TRAINED_ON)]
    squares = [image[..., :32, :32] for image in seen]
    for number, square in enumerate(squares):
        assert not any(torch.equal(square, other) for other in squares[:number])


def test_a_method_sees_no_hole_and_changes_no_valid_pixel(example: ModuleType) -> None:
    truth, mask = torch.rand(1, 3, 24, 24) + 0.1, torch.rand(1, 1, 24, 24) < 0.5
    given: list[Tensor] = []

    def bright(image: Tensor, mask: Tensor) -> Tensor:
        given.append(image)
        return torch.full_like(image, 2.0)

    filled = example.filling(bright, truth.clamp(max=1), mask)
    assert bool((given[0].masked_select(~mask) == 0).all())
    assert torch.equal(filled, torch.where(mask, truth.clamp(max=1), 1.0))


@pytest.mark.parametrize("name", ["biharmonic", "Telea", "Navier-Stokes", "first guess (averages)"])
def test_the_classics_fill_a_slope(example: ModuleType, name: str) -> None:
    slope = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32).clone()
    mask = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 12:18, 12:18] = False
    filled = example.filling(example.classics()[name], slope, mask)
    assert float((filled - slope).abs().max()) < 0.08


def test_the_targets_are_whole_images_without_random_pixels_or_blocks(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method that leaves the holes black is as good as the holes are few."""
    example.print_targets({"black": lambda image, mask: image}, ("camera",))
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words[0] == "black"
    half, most, nearly_all, blocks = (float(word) for word in words[1:])
    assert blocks > half > most > nearly_all
    # the squares of black pixels add up: 50 against 80 and 95 % missing
    assert half - most == pytest.approx(2.04, abs=0.2)
    assert most - nearly_all == pytest.approx(0.75, abs=0.2)
