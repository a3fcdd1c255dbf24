"""The inpainting command and what it is made of, on an image of 48 x 40 pixels."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import sparseconv as sc
from sparseconv.cli import main
from sparseconv.inpaint.command import save_network
from sparseconv.inpaint.fill import average_fill, crops, fill, new_network, train
from sparseconv.inpaint.masks import block_mask, irregular_mask, scattered_mask, varied_holes
from sparseconv.models import PartialUNet

pytest.importorskip("PIL.Image")
pytest.importorskip("skimage.metrics")
from PIL import Image

from sparseconv.inpaint import images  # it is of no use without them

HEIGHT, WIDTH = 40, 48


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a smooth picture, and let the command run as users run it."""
    torch.use_deterministic_algorithms(False)
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    planes = [torch.sin(rows / 9), torch.cos(columns / 7), torch.sin((rows + columns) / 11)]
    path = tmp_path / "picture.png"
    images.write_image(path, 0.5 + 0.4 * torch.stack(planes)[None])
    return path


def hole(path: Path) -> Tensor:
    """Write a mask file, and return where the image is valid."""
    mask = irregular_mask(HEIGHT, WIDTH, 0.2, torch.Generator().manual_seed(3))
    images.write_image(path, (~mask).float())
    return mask


def test_random_holes_are_filled_and_scored(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert main(["inpaint", str(picture), "--random-mask", "0.3", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "filled 30.0 % of picture.png" in printed
    assert float(printed.split("PSNR ")[1].split()[0]) > 25
    assert images.read_image(out).shape == (1, 3, HEIGHT, WIDTH)


def test_a_mask_file_leaves_valid_pixels_alone(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, mask = tmp_path / "out.png", hole(tmp_path / "mask.png")
    arguments = ["inpaint", str(picture), "--mask", str(tmp_path / "mask.png"), "-o", str(out)]
    assert main(arguments) == 0
    assert "PSNR" not in capsys.readouterr().out
    before, after = images.read_image(picture), images.read_image(out)
    assert torch.equal(*(image.masked_select(mask) for image in (before, after)))
    assert main([*arguments, "--truth", str(picture)]) == 0
    assert "SSIM" in capsys.readouterr().out


def test_fit_trains_on_valid_pixels_alone(picture: Path, tmp_path: Path) -> None:
    """What lies in the hole, however bright, changes no bit of the result."""
    mask = hole(tmp_path / "mask.png")
    results = []
    for name, value in (("black", 0.0), ("white", 1.0)):
        path, out = tmp_path / f"{name}.png", tmp_path / f"{name}_out.png"
        images.write_image(path, torch.where(mask, images.read_image(picture), value))
        given = ["--mask", str(tmp_path / "mask.png"), "--fit", "--steps", "3"]
        assert main(["inpaint", str(path), *given, "-o", str(out)]) == 0
        results.append(images.read_image(out))
    assert torch.equal(*results)


def test_weights_that_were_kept_fill_as_their_network_does(picture: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, mask = new_network(3, (4, 8)), hole(tmp_path / "mask.png")
    torch.nn.init.normal_(network.last.get_parameter("weight"), std=0.1)
    save_network(tmp_path / "network.pt", network, (4, 8))
    out, image = tmp_path / "out.png", images.read_image(picture)
    given = ["--mask", str(tmp_path / "mask.png"), "--weights", str(tmp_path / "network.pt")]
    assert main(["inpaint", str(picture), *given, "-o", str(out)]) == 0
    expected = fill(network, image, mask)
    torch.testing.assert_close(images.read_image(out), expected, rtol=0, atol=1 / 255)


def test_weights_of_a_network_for_colours_fill_a_grey_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, grey = new_network(3, (4, 8)), torch.rand(1, 1, 20, 24)
    torch.nn.init.normal_(network.last.get_parameter("weight"), std=0.1)
    save_network(tmp_path / "network.pt", network, (4, 8))
    images.write_image(tmp_path / "grey.png", grey)
    mask = irregular_mask(20, 24, 0.3, torch.Generator().manual_seed(3))
    images.write_image(tmp_path / "mask.png", (~mask).float())
    out, image = tmp_path / "out.png", images.read_image(tmp_path / "grey.png")
    given = ["--mask", str(tmp_path / "mask.png"), "--weights", str(tmp_path / "network.pt")]
    assert main(["inpaint", str(tmp_path / "grey.png"), *given, "-o", str(out)]) == 0
    expected = fill(network, image.expand(-1, 3, -1, -1), mask).mean(dim=1, keepdim=True)
    filled = images.read_image(out)
    torch.testing.assert_close(filled, expected, rtol=0, atol=1 / 255)
    assert torch.equal(filled[mask], image[mask])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--random-mask", "0.2"], "nowhere.png"),
        (["{picture}", "--random-mask", "1.5"], "share: must lie from 0 to 1, got 1.5"),
        (["{picture}", "--random-mask", "1"], "mask: nothing of the image is valid"),
        (["{text}", "--random-mask", "0.5"], "image: text.png is not an image file"),
        (["{picture}", "--mask", "{small}"], "mask: small.png is 4 x 4 pixels, the image 48 x 40"),
        (["{picture}", "--random-mask", "0.2", "--weights", "{text}"], "weights: text.png"),
        (["{picture}", "--random-mask", "0.2", "--fit", "--steps", "0"], "steps: must be 1 or"),
        (["{small}", "--random-mask", "0.2", "--fit"], "image: --fit needs 8 x 8 pixels or more"),
    ],
)
def test_a_wrong_call_says_so_in_one_line(
    picture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    images.write_image(tmp_path / "small.png", torch.zeros(1, 1, 4, 4))
    paths = {
        "picture": picture,
        "text": tmp_path / "text.png",
        "small": tmp_path / "small.png",
    }
    filled_in = [argument.format(**paths) for argument in arguments]
    assert main(["inpaint", *filled_in, "-o", str(tmp_path / "out.png")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["out.xyz", "out", "nowhere/out.png"])
def test_an_output_that_cannot_be_written_is_named_before_any_work(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    given = ["inpaint", str(picture), "--random-mask", "0.2", "--fit", "--steps", "1"]
    assert main([*given, "-o", str(tmp_path / name)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sparseconv: output: ") and error.count("\n") == 1
    assert "fit:" not in error


def test_an_image_too_small_for_a_similarity_is_filled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.png"
    images.write_image(path, torch.rand(1, 3, 5, 9))
    assert main(["inpaint", str(path), "--random-mask", "0.3", "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "PSNR" in printed and "SSIM" not in printed
    with pytest.raises(sc.SparseConvValueError, match="image: SSIM needs 7 x 7 pixels or more"):
        images.ssim(*[torch.rand(1, 3, 5, 9)] * 2, torch.ones(1, 1, 5, 9, dtype=torch.bool))


def test_the_package_runs_as_a_module() -> None:
    given = [sys.executable, "-m", "sparseconv", "--version"]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    assert done.stdout == f"sparseconv {sc.__version__}\n"


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    with pytest.raises(sc.SparseConvError, match="pip install pillow scikit-image tqdm"):
        images.needed("no_such_module", "nothing")


@pytest.mark.parametrize("share", [0.0, 0.37, 0.95])
def test_irregular_masks_hide_their_share(share: float) -> None:
    mask = irregular_mask(30, 50, share, torch.Generator().manual_seed(1))
    assert int((~mask).sum()) == round(share * 1500)


def test_scattered_pixels_and_blocks_are_missing() -> None:
    generator = torch.Generator().manual_seed(1)
    scattered = scattered_mask(100, 100, 0.8, generator)
    assert 0.18 < float(scattered.float().mean()) < 0.22
    one = ~block_mask(30, 50, 1, 12, generator)
    assert int(one.sum()) == 144 and bool((one.any(3).sum() == 12) & (one.any(2).sum() == 12))


def test_holes_to_learn_from_leave_something_of_every_kind() -> None:
    holes = varied_holes(24, torch.Generator().manual_seed(2))
    shares = [float((~next(holes)).float().mean()) for _ in range(60)]
    assert 0 < min(shares) < 0.2 and 0.8 < max(shares) < 1


def test_eight_positions_make_a_filling_that_turns_with_its_image() -> None:
    torch.manual_seed(0)
    network = new_network(1, (4, 8))
    torch.nn.init.normal_(network.last.get_parameter("weight"), std=0.1)
    image, mask = torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20) < 0.6
    image = torch.where(mask, image, torch.nan)
    filled = fill(network, image, mask)
    assert torch.equal(filled[mask], image[mask])
    turned = fill(network, image.rot90(1, (2, 3)), mask.rot90(1, (2, 3)))
    torch.testing.assert_close(turned, filled.rot90(1, (2, 3)))


def test_the_first_guess_of_a_plane_is_flat_and_reads_no_hole() -> None:
    image = torch.full((2, 3, 17, 23), 0.4)
    mask = torch.rand(2, 1, 17, 23) < 0.2
    filled = average_fill(torch.where(mask, image, torch.nan), mask)
    torch.testing.assert_close(filled, image)
    assert bool((average_fill(image, torch.zeros_like(mask)) == 0).all())


def test_training_reads_no_unknown_pixel_and_learns() -> None:
    """A stripe that the first guess cannot know is learnt from the valid part of the picture."""
    torch.manual_seed(0)
    picture = (torch.arange(40) // 3 % 2).float().expand(1, 1, 40, 40).clone()
    known = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    known[..., 15:25, 15:25] = False
    picture[~known] = torch.nan
    network = new_network(1, (8, 8))
    losses: list[float] = []
    samples = crops(picture, known, 24, 4, torch.Generator().manual_seed(0))
    train(network, samples, 60, 1e-2, lambda step, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_network_fills_from_the_rim_inwards(axes: int) -> None:
    torch.manual_seed(0)
    size = (19, 12, 9)[:axes]
    network = PartialUNet(2, 1, (4, 6, 6), axes)
    x, mask = torch.randn(2, 2, *size), torch.zeros(2, 1, *size, dtype=torch.bool)
    mask[0].flatten()[0] = True
    y, filled = network(torch.where(mask, x, torch.nan), mask)
    assert y.shape == filled.shape == (2, 1, *size)
    assert bool(filled[0].any()) and not bool(filled[1].any())
    assert bool((y[1] == 0).all()) and bool(y.isfinite().all())
    plain, everywhere = PartialUNet(2, 1, (4, 6, 6), axes, normalize="none")(x, mask)
    assert plain.shape == y.shape and bool(everywhere.all())


@pytest.mark.parametrize(("widths", "axes"), [((4,), 2), ((4, 8), 4)])
def test_a_network_that_cannot_be(widths: tuple[int, ...], axes: int) -> None:
    with pytest.raises(sc.SparseConvValueError, match=r"widths|dimensions"):
        PartialUNet(1, 1, widths, axes)


def test_the_figure_of_mask_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path = Path(__file__).resolve().parents[2] / "examples" / "mask_growth.py"
    spec = importlib.util.spec_from_file_location("mask_growth", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--output", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [int(word) for word in lines[1].split()[1:]] == [1, 9, 25, 49, 81]
    assert [int(word) for word in lines[3].split()[1:]] == [1, 1, 1, 1, 1]
    assert (tmp_path / "mask_growth.png").stat().st_size > 0


def test_a_photograph_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    values = np.arange(24 * 16, dtype=np.uint8).reshape(24, 16)
    exif = Image.Exif()
    exif[274] = 6  # the first row is the right side
    Image.fromarray(values).save(tmp_path / "side.png", exif=exif)
    image = images.read_image(tmp_path / "side.png")
    assert torch.equal((255 * image[0, 0]).round(), torch.from_numpy(values).rot90(-1).float())
    command = ["inpaint", str(tmp_path / "side.png"), "--random-mask", "0.1"]
    assert main([*command, "-o", str(tmp_path / "filled.png")]) == 0
    with Image.open(tmp_path / "filled.png") as filled:
        assert filled.size == (24, 16)
        assert 274 not in filled.getexif()


def test_transparent_pixels_are_holes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.full((20, 20, 4), 200, np.uint8)
    values[5:9, 5:10] = (0, 255, 0, 0)
    Image.fromarray(values).save(tmp_path / "logo.png")
    assert main(["inpaint", str(tmp_path / "logo.png"), "-o", str(tmp_path / "filled.png")]) == 0
    assert "filled 5.0 %" in capsys.readouterr().out
    filled = images.read_image(tmp_path / "filled.png")
    assert torch.equal(filled, torch.full((1, 3, 20, 20), 200 / 255))
    Image.fromarray(values[..., :3]).save(tmp_path / "opaque.png")
    assert main(["inpaint", str(tmp_path / "opaque.png"), "-o", str(tmp_path / "out.png")]) == 1
    assert (
        "give --mask, --mask-color or --random-mask, opaque.png has no transparent"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("quality", [60, 98])
def test_a_jpeg_is_written_with_the_quality_that_it_had(tmp_path: Path, quality: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    source, output = tmp_path / "photo.jpg", tmp_path / "filled.jpg"
    Image.fromarray(values).save(source, quality=quality)
    assert main(["inpaint", str(source), "--random-mask", "0.1", "-o", str(output)]) == 0
    with Image.open(source) as before, Image.open(output) as after:
        assert after.quantization == before.quantization


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "inpaint" in capsys.readouterr().out
