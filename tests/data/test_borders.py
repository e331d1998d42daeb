import io

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from solution.data.prepare import trim_borders
from solution.data.readers import open_source


def noisy(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def padded(photo, pads, color):
    top, bottom, left, right = pads
    height, width = photo.shape[:2]
    canvas = np.empty((height + top + bottom, width + left + right, 3), np.uint8)
    canvas[:] = color
    canvas[top : top + height, left : left + width] = photo
    return canvas


def through_jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(0, 40)] * 4),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.integers(20, 60),
    st.integers(20, 60),
)
def test_padding_of_one_color_is_cut_exactly(pads, color, height, width):
    photo = noisy(height, width)
    assert np.array_equal(trim_borders(padded(photo, pads, color)), photo)


@pytest.mark.parametrize("quality", [75, 90])
@pytest.mark.parametrize("gray", [0, 114, 128])
@pytest.mark.parametrize("pads", [(24, 24, 0, 0), (0, 0, 21, 22)])
def test_jpeg_noise_costs_at_most_three_lines(quality, gray, pads):
    coarse = Image.fromarray(noisy(8, 8, seed=gray)[..., 0])
    photo = np.asarray(coarse.resize((90, 80), Image.Resampling.BICUBIC).convert("RGB"))
    trimmed = trim_borders(through_jpeg(padded(photo, pads, gray), quality))
    assert np.abs(np.array(trimmed.shape[:2]) - (80, 90)).max() <= 3


def test_a_product_on_a_white_table_stays():
    rows, columns = np.mgrid[:96, :96]
    image = np.full((96, 96, 3), 255, np.uint8)
    image[(rows - 48) ** 2 + (columns - 48) ** 2 < 30**2] = (40, 90, 40)
    assert trim_borders(image) is image


@pytest.mark.parametrize("image", [noisy(40, 50), np.full((30, 30, 3), 200, np.uint8), noisy(1, 1)])
def test_what_has_no_padding_stays(image):
    assert trim_borders(image) is image


def test_a_sliver_of_content_is_not_cut_out():
    image = padded(noisy(4, 60), (30, 30, 0, 0), 128)
    assert trim_borders(image) is image


@pytest.mark.real_data
def test_letterboxed_photos_are_found(real_data):
    """Padded to a square and saved as JPEG, photos of waste come back to within three lines, nine in ten of them."""
    source = open_source(real_data / "recycle9.tar")
    photos = [source.image(item) for item in source.items[::100]]
    wide = [photo for photo in photos if photo.shape[0] < 0.8 * photo.shape[1]]
    found = 0
    for photo in wide:
        missing = photo.shape[1] - photo.shape[0]
        square = padded(photo, (missing // 2, missing - missing // 2, 0, 0), 128)
        found += np.abs(np.subtract(trim_borders(through_jpeg(square, 90)).shape, photo.shape)).max() <= 3
    assert len(wide) > 10
    assert found >= 0.9 * len(wide)
