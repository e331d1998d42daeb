import io
import random
import struct

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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
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


def in_scans(side, more=0):
    """A JPEG that gets better as it loads, its last scan repeated."""
    data = _file(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + more * last + data[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_unopened(monkeypatch):
    assert decode(in_scans(100, 5), "a").shape == (100, 100, 3)
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UnreadableImage, match=r"a JPEG of [\d,]+ scans, more than 50"):
        decode(in_scans(100, 5000), "a")


def test_of_a_jpeg_in_scans_all_pixels_count_however_small_it_comes():
    assert decode(in_scans(800), "a", at_least=50, most_pixels=700_000).shape == (100, 100, 3)
    with pytest.raises(UnreadableImage, match="800 x 800 pixels"):
        decode(in_scans(800), "a", at_least=50, most_pixels=600_000)


def test_large_jpegs_may_come_smaller_but_not_too_small():
    data = _file(_color((640, 480)), "JPEG")
    assert decode(data, "a").shape == (480, 640, 3)
    assert decode(data, "a", at_least=100).shape == (120, 160, 3)
    assert decode(_file(_color((640, 480))), "a", at_least=100).shape == (480, 640, 3)


def test_damaged_files_decode_or_are_unreadable_and_nothing_else():
    chance = random.Random(0)
    files = [_file(Image.fromarray(SHADES), "PNG"), _file(_color(mode="P"), "PNG", transparency=3)]
    files += [_file(_color(), kind) for kind in ("JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")]
    for _ in range(3000):
        data = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            image = decode(bytes(data[: chance.randint(1, 2 * len(data))]), "a", chance.choice([None, 8]))
            assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8)
        except UnreadableImage:
            pass


def _exif(*entries):
    """A block of EXIF with (tag, kind, count, value) entries, as a camera with faults writes them."""
    listed, more, start = struct.pack("<H", len(entries)), b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        if isinstance(value, bytes):
            listed, more = listed + struct.pack("<HHLL", tag, kind, count, start + len(more)), more + value
        else:
            listed += struct.pack("<HHLL", tag, kind, count, value)
    return b"Exif\0\0II*\0" + struct.pack("<L", 8) + listed + struct.pack("<L", 0) + more


ODD = {
    "a maker that is a fraction": (0x010F, 5, 1, struct.pack("<LL", 7, 2)),
    "a maker that is a number": (0x010F, 3, 1, 9),
    "a fraction over zero": (0x011A, 5, 1, struct.pack("<LL", 1, 0)),
    "a block of a kind that is not": (0x8769, 99, 1, 3),
    "a pointer beyond the end": (0x8825, 4, 1, 4_000_000_000),
    "text with zeros": (0x010E, 2, 4, 0),
    "a size of four billion": (0x0110, 2, 4_000_000_000, 60),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_turned_photo_with_odd_exif_is_a_good_photo(odd):
    image = Image.fromarray(SHADES)
    entries = sorted([ODD[odd], (0x0112, 3, 1, 6)])
    found = decode(_file(image, "JPEG", exif=_exif(*entries), quality=100), "a")
    assert np.abs(found[..., 0].astype(int) - np.rot90(SHADES, -1)).max() <= 12


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(orientation):
    found = decode(_file(Image.fromarray(SHADES), "JPEG", exif=_exif((0x0112, 3, 1, orientation))), "a")
    assert found.shape == (4, 6, 3)


@pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x"), ZeroDivisionError(), MemoryError(), TypeError()])
def test_whatever_a_decoder_raises_the_picture_is_unreadable_by_name(monkeypatch, error):
    def stumble(*_, **__):
        raise error

    data = _file(_color())
    monkeypatch.setattr(Image.Image, "load", stumble)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stumble)
    with pytest.raises(UnreadableImage, match=r"photos/a\.png: broken or cut short"):
        decode(data, "photos/a.png")


def test_a_heic_photo_is_called_so():
    with pytest.raises(UnreadableImage, match="a HEIC photo, which is not read here: convert it to JPEG"):
        decode(b"\0\0\0\x18ftypheic" + bytes(100), "a.heic")


def test_float_tiffs_are_fractions_or_bytes():
    values = (SHADES / 255).astype(np.float32)
    assert np.abs(decode(_file(Image.fromarray(values), "TIFF"), "a")[..., 0].astype(int) - SHADES).max() <= 1
    assert (decode(_file(Image.fromarray(SHADES.astype(np.float32)), "TIFF"), "a")[..., 0] == SHADES).all()
