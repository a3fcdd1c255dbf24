"""Image files of all kinds: depth, range, masks, profiles, damage; and which method is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sparseconv as sc
from sparseconv.cli import main
from sparseconv.inpaint import images, methods
from sparseconv.inpaint.masks import irregular_mask

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage.metrics")


@pytest.fixture(autouse=True)
def as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.use_deterministic_algorithms(False)
    monkeypatch.chdir(tmp_path)


def smooth(height: int = 40, width: int = 48) -> np.ndarray:  # type: ignore[type-arg]
    rows, columns = np.mgrid[:height, :width]
    return 0.5 + 0.4 * np.sin(rows / 9) * np.cos(columns / 7)


def hole(height: int = 40, width: int = 48) -> np.ndarray:  # type: ignore[type-arg]
    mask = np.zeros((height, width), np.uint8)
    mask[10:16, 20:30] = 255
    return mask


def inpaint(*arguments: str) -> int:
    return main(["inpaint", *arguments])


def test_sixteen_bits_stay_sixteen_bits(capsys: pytest.CaptureFixture[str]) -> None:
    values = np.round(smooth() * 20_000 + 3_000).astype(np.uint16)
    Image.fromarray(values).save("t.png")
    damaged = values.copy()
    damaged[10:16, 20:30] = 65_535
    Image.fromarray(damaged).save("i.png")
    Image.fromarray(hole()).save("m.png")
    one, two = images.read_image("i.png"), images.read_image("t.png")
    assert torch.equal(one[..., :10, :], two[..., :10, :])
    assert inpaint("i.png", "--mask", "m.png", "--truth", "t.png", "-o", "o.png") == 0
    with Image.open("o.png") as picture:
        found = np.asarray(picture)
    assert found.dtype == np.uint16
    valid = hole() == 0
    np.testing.assert_array_equal(found[valid], values[valid])
    assert np.abs(found.astype(int) - values).max() < 1_500
    assert float(capsys.readouterr().out.split("PSNR ")[1].split()[0]) > 35


def test_floats_keep_their_range() -> None:
    values = (smooth() * 900 - 400).astype(np.float32)
    damaged = values.copy()
    damaged[10:16, 20:30] = np.nan
    Image.fromarray(damaged).save("i.tif")
    Image.fromarray(hole()).save("m.png")
    for given in (("--mask", "m.png"), ("--mask", "m.png", "--method", "telea")):
        if "telea" in given:
            pytest.importorskip("cv2")
        assert inpaint("i.tif", *given, "-o", "o.tif") == 0
        with Image.open("o.tif") as picture:
            found = np.asarray(picture)
        np.testing.assert_allclose(found, values, atol=90)
        np.testing.assert_allclose(found[hole() == 0], values[hole() == 0], rtol=1e-4, atol=1e-3)
    assert inpaint("i.tif", "--mask", "m.png", "-o", "o.png") == 1


def mask_files() -> dict[str, object]:
    """Return the same hole as people save it."""
    bright = hole()
    marked = bright > 0
    alpha = np.where(marked, 0, 255).astype(np.uint8)
    white, dark = np.full_like(bright, 255), np.zeros_like(bright)
    strokes = np.stack([bright, dark, dark, bright], -1)
    strokes[..., 0] = np.where(marked, 255, 0)
    strokes[..., 1] = strokes[..., 2] = np.where(marked, 200, 0)
    return {
        "bytes": Image.fromarray(bright),
        "zero and one": Image.fromarray(marked.astype(np.uint8)),
        "bilevel": Image.fromarray(marked),
        "sixteen bits": Image.fromarray(marked.astype(np.uint16) * 65_535),
        "transparent, grey": Image.merge("LA", [Image.fromarray(dark), Image.fromarray(alpha)]),
        "transparent, white": Image.fromarray(np.stack([white, white, white, alpha], -1)),
        "painted on nothing": Image.fromarray(strokes),
        "palette": Image.fromarray(bright).convert("P"),
    }


@pytest.mark.parametrize("name", mask_files())
def test_masks_of_all_kinds_mark_the_same_pixels(name: str) -> None:
    mask_files()[name].save("m.png")  # type: ignore[attr-defined]
    found = images.read_mask("m.png", (40, 48))[0, 0].numpy()
    np.testing.assert_array_equal(found, hole() == 0)


def test_a_mask_without_a_mark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray((smooth() * 255).astype(np.uint8)).save("i.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save("m.png")
    assert inpaint("i.png", "--mask", "m.png", "-o", "o.png") == 1
    assert "mask: m.png marks no pixel" in capsys.readouterr().err


def test_a_colour_marks_and_holes_grow(capsys: pytest.CaptureFixture[str]) -> None:
    values = np.repeat((smooth() * 200).astype(np.uint8)[..., None], 3, axis=-1)
    values[hole() > 0] = (255, 0, 255)
    Image.fromarray(values).save("i.png")
    assert inpaint("i.png", "--mask-color", "#ff00ff", "-o", "o.png") == 0
    assert f"filled {100 * 60 / 1920:.1f} %" in capsys.readouterr().out
    assert inpaint("i.png", "--mask-color", "magenta", "--dilate", "2", "-o", "o.png") == 0
    assert f"filled {100 * 140 / 1920:.1f} %" in capsys.readouterr().out
    with Image.open("o.png") as picture:
        found = np.asarray(picture).astype(int)
    assert np.ptp(found, axis=-1).max() <= 1  # the magenta is gone
    for color, message in (("puce-ish", "must be a name"), ("yellow", "no pixel of i.png is yell")):
        assert inpaint("i.png", "--mask-color", color, "-o", "o.png") == 1
        assert message in capsys.readouterr().err


def test_the_profile_is_kept() -> None:
    profile = pytest.importorskip("PIL.ImageCms").ImageCmsProfile(
        pytest.importorskip("PIL.ImageCms").createProfile("sRGB")
    )
    values = np.repeat((smooth() * 200).astype(np.uint8)[..., None], 3, axis=-1)
    for suffix in ("jpg", "png"):
        Image.fromarray(values).save(f"i.{suffix}", icc_profile=profile.tobytes())
        assert inpaint(f"i.{suffix}", "--random-mask", "0.1", "-o", f"o.{suffix}") == 0
        with Image.open(f"o.{suffix}") as picture:
            assert picture.info["icc_profile"] == profile.tobytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp", "webp"])
def test_damaged_files_end_in_one_line(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.repeat((smooth() * 200).astype(np.uint8)[..., None], 3, axis=-1)
    Image.fromarray(values).save(f"i.{suffix}")
    data = bytearray(Path(f"i.{suffix}").read_bytes())
    rng = np.random.default_rng(0)
    for number in range(8):
        bad = bytearray(data[: rng.integers(1, len(data))] if number % 2 else data)
        for place in rng.integers(0, min(len(bad), 200), 4):
            bad[place] = rng.integers(0, 256)
        Path(f"b.{suffix}").write_bytes(bad)
        status = inpaint(f"b.{suffix}", "--random-mask", "0.1", "-o", "o.png")
        error = capsys.readouterr().err
        assert status == 0 or error.count("\n") == 1


@pytest.mark.parametrize("name", methods.METHODS)
def test_each_method_fills_and_leaves_valid_pixels(name: str) -> None:
    if name == "telea":
        pytest.importorskip("cv2")
    image = torch.from_numpy(smooth()).float()[None, None].repeat(1, 3, 1, 1)
    mask = irregular_mask(40, 48, 0.1, torch.Generator().manual_seed(0))
    filled = methods.METHODS[name](torch.where(mask, image, torch.nan), mask)
    assert torch.equal(filled[mask.expand_as(image)], image[mask.expand_as(image)])
    assert images.psnr(filled, image, ~mask) > 25


def test_tiles_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "TILE", 64)
    monkeypatch.setattr(methods, "MARGIN", 24)
    image = torch.from_numpy(smooth(200, 260)).float()[None, None]
    mask = irregular_mask(200, 260, 0.02, torch.Generator().manual_seed(0))
    mask[..., 60:70, 60:70] = False
    damaged = torch.where(mask, image, torch.nan)
    *_, filled = methods.by_tiles(methods.METHODS["average"], damaged, mask)
    assert torch.equal(filled[mask], image[mask])
    whole = methods.METHODS["average"](damaged, mask)
    assert (filled - whole).abs().max() < 0.02
    assert len(methods.tiles(mask)) <= 20
    empty = torch.zeros_like(mask)
    empty[..., :4, :4] = True  # most tiles see nothing valid
    *_, filled = methods.by_tiles(methods.METHODS["average"], image, empty)
    assert bool(filled.isfinite().all())


def test_a_network_is_used_only_where_it_wins(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray((smooth() * 255).astype(np.uint8)).save("i.png")
    Image.fromarray(hole()).save("m.png")
    given = ["--mask", "m.png", "--method", "network", "--steps", "2", "-o", "o.png"]
    assert inpaint("i.png", *given) == 0
    printed = capsys.readouterr().out
    assert "valid pixels held out: average" in printed and "network" in printed
    scores = {
        word.split()[0]: float(word.split()[1])
        for word in printed.split("held out: ")[1].split(";")[0].split(", ")
    }
    best = printed.split("using ")[1].split()[0]
    assert scores[best] == max(scores.values())
    with pytest.raises(sc.SparseConvValueError, match="dilate: must be 0 or more, got -1"):
        methods.dilated(torch.ones(1, 1, 4, 4, dtype=torch.bool), -1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_sixteen_bits_stay_sixteen_bits(suffix: str, alpha: bool) -> None:
    cv2, tifffile = pytest.importorskip("cv2"), pytest.importorskip("tifffile")
    ramp = np.stack([smooth(), smooth()[::-1], 1 - smooth()], axis=-1)
    values = np.round(ramp * 20_000 + 3_003).astype(np.uint16)
    opaque = np.where(hole() == 0, 65_535, 0).astype(np.uint16)
    stored = np.dstack([values[..., ::-1], opaque]) if alpha else values[..., ::-1]
    cv2.imwrite(f"i{suffix}", stored)
    Image.fromarray(hole()).save("m.png")
    assert images.depth_of(f"i{suffix}") == "word"
    wanted = values.transpose(2, 0, 1).astype(np.float32) / 65_535
    np.testing.assert_array_equal(images.read_image(f"i{suffix}")[0].numpy(), wanted)
    mask = () if alpha else ("--mask", "m.png")
    assert inpaint(f"i{suffix}", *mask, "--method", "telea", "-o", f"o{suffix}") == 0
    read = tifffile.imread if suffix == ".tif" else cv2.imread
    given = () if suffix == ".tif" else (cv2.IMREAD_UNCHANGED,)
    found = read(f"o{suffix}", *given)
    found = found if suffix == ".tif" else found[..., ::-1]
    assert found.dtype == np.uint16 and found.shape == values.shape
    np.testing.assert_array_equal(found[hole() == 0], values[hole() == 0])
    assert np.abs(found.astype(int) - values).max() < 3_000
    assert inpaint(f"i{suffix}", *mask, "--method", "telea", "-o", "o.jpg") == 0


def test_deep_colours_are_turned_upright_and_keep_their_profile() -> None:
    cv2 = pytest.importorskip("cv2")
    values = np.arange(4 * 6 * 3, dtype=np.uint16).reshape(4, 6, 3) * 700
    profile = pytest.importorskip("PIL.ImageCms").ImageCmsProfile(
        pytest.importorskip("PIL.ImageCms").createProfile("sRGB")
    )
    from sparseconv.inpaint import deep_colour  # noqa: PLC0415

    for suffix in (".png", ".tif"):
        deep_colour.write_deep_colour(Path(f"p{suffix}"), values, profile.tobytes())
        with Image.open(f"p{suffix}") as picture:
            assert picture.info["icc_profile"] == profile.tobytes()
            picture.load()
        images.write_image(f"q{suffix}", images.read_image(f"p{suffix}"), f"p{suffix}")
        with Image.open(f"q{suffix}") as picture:
            assert picture.info["icc_profile"] == profile.tobytes()
        assert (cv2.imread(f"q{suffix}", cv2.IMREAD_UNCHANGED)[..., ::-1] == values).all()
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[deep_colour.ORIENTATION] = orientation
        grey.save("g.png", exif=exif)
        wanted = images.read_image("g.png")[0, 0].numpy() * 255
        turn = deep_colour.UPRIGHT.get(orientation, lambda v: v)
        np.testing.assert_array_equal(turn(np.asarray(grey).astype(np.uint16)), wanted)


def test_a_damaged_deep_image_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite("i.png", np.full((40, 48, 3), 999, np.uint16))
    Image.fromarray(hole()).save("m.png")
    data = Path("i.png").read_bytes()
    for length in (20, 40, len(data) // 2, len(data) - 20):
        Path("i.png").write_bytes(data[:length])
        assert inpaint("i.png", "--mask", "m.png", "-o", "o.png") == 1
        assert capsys.readouterr().err.count("\n") == 1
