import io
import random

import numpy as np
import pytest
from PIL import Image

from solution.data import decode as decoding
from solution.data.decode import decode
from solution.data.readers import UnreadableImage

SHADES = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6) * 10


def _file(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _color(size=(6, 4), color=(200, 60, 20), mode="RGB"):
    return Image.new("RGB", size, color).convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_every_kind_of_file_is_told_by_its_content(kind):
    image = decode(_file(_color(), kind), "wrong-name.txt")
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - (200, 60, 20)).max() <= 6


def test_cmyk_grey_palette_and_two_tone():
    assert np.abs(decode(_file(_color(mode="CMYK"), "JPEG"), "a").astype(int) - (200, 60, 20)).max() <= 6
    gray = decode(_file(Image.fromarray(SHADES)), "a")
    assert (gray == SHADES[..., None]).all()
    assert (
        decode(_file(_color(mode="P")), "a")[0, 0] == decode(_file(_color(mode="P").convert("RGB")), "a")[0, 0]
    ).all()
    two = Image.fromarray((SHADES > 100).astype(np.uint8) * 255).convert("1")
    assert set(np.unique(decode(_file(two), "a"))) == {0, 255}


def test_sixteen_bits_keep_the_high_byte():
    image = Image.fromarray(SHADES.astype(np.uint16) * 256 + 7)
    assert (decode(_file(image), "a") == SHADES[..., None]).all()


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    half = Image.new("LA", (6, 4), (0, 128))
    palette = Image.fromarray(SHADES).convert("P")
    assert (decode(_file(clear), "a") == 255).all()
    assert (decode(_file(half), "a") == 127).all()
    image = decode(_file(palette, transparency=10), "a")[..., 0]
    assert (image == np.where(SHADES == 10, 255, SHADES)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: SHADES, 2: SHADES[:, ::-1], 3: SHADES[::-1, ::-1], 4: SHADES[::-1],
        5: SHADES.T, 6: np.rot90(SHADES, -1), 7: SHADES[::-1, ::-1].T, 8: np.rot90(SHADES),
    }[orientation]  # fmt: skip
    assert (decode(_file(Image.fromarray(SHADES), exif=exif), "a")[..., 0] == upright).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello" * 30, "not an image"),
        (_file(Image.effect_noise((64, 64), 90), "JPEG")[:900], "broken or cut short"),
        (_file(Image.effect_noise((64, 64), 90))[:900], "broken or cut short"),
        (_file(_color(), "WEBP")[:30], "not an image|broken or cut short"),
    ],
)
def test_what_cannot_be_decoded_says_which_and_why(data, reason):
    with pytest.raises(UnreadableImage, match=rf"photos/bad\.jpg: ({reason})") as caught:
        decode(data, "photos/bad.jpg")
    assert caught.value.name == "photos/bad.jpg"
    assert isinstance(caught.value, ValueError)


def test_decompression_bombs_are_refused_unopened(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 23)
    with pytest.raises(UnreadableImage, match=r"bomb: 6 x 4 pixels are more than 23: refused"):
        decode(_file(_color()), "bomb")


def test_large_jpegs_may_come_smaller_but_not_too_small():
    data = _file(_color((640, 480)), "JPEG")
    assert decode(data, "a").shape == (480, 640, 3)
    assert decode(data, "a", at_least=100).shape == (120, 160, 3)
    assert decode(_file(_color((640, 480))), "a", at_least=100).shape == (480, 640, 3)


def test_damaged_files_decode_or_are_unreadable_and_nothing_else():
    chance = random.Random(0)
    files = [_file(Image.fromarray(SHADES), "PNG"), _file(_color(mode="P"), "PNG", transparency=3)]
    files += [_file(_color(), kind) for kind in ("JPEG", "WEBP", "BMP", "GIF")]
    for _ in range(3000):
        data = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            image = decode(bytes(data[: chance.randint(1, 2 * len(data))]), "a", chance.choice([None, 8]))
            assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8)
        except UnreadableImage:
            pass
