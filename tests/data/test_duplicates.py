import io

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from solution.data.describe import MAX_HASH_DISTANCE, Signature, exact_groups, near_groups, near_pairs, signature


def scene(seed, side=96):
    """A smooth random picture: some colors, large blobs, no two seeds alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def recompressed(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(image, width, height):
    return np.asarray(Image.fromarray(image).resize((width, height)))


def grouped(images):
    return near_groups([signature(image) for image in images]).tolist()


def test_equal_pixels_are_exact_copies_and_shape_counts():
    flat = np.zeros((4, 8, 3), np.uint8)
    signatures = [signature(image) for image in (scene(0), scene(1), scene(0).copy(), flat, flat.reshape(8, 4, 3))]
    assert exact_groups(signatures) == [[0, 2]]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: recompressed(image, 40),
        lambda image: resized(image, 50, 50),
        lambda image: resized(image, 300, 300),
        lambda image: resized(image, 96, 80),
        lambda image: (image * 0.8 + 10).astype(np.uint8),
    ],
    ids=["recompressed", "shrunk", "enlarged", "squeezed", "darker"],
)
def test_changed_copies_are_near_duplicates(change):
    for seed in range(10):
        groups = grouped([scene(seed), scene(seed + 100), change(scene(seed))])
        assert groups[0] == groups[2] != groups[1]


def test_different_pictures_stay_apart():
    assert len(set(grouped([scene(seed) for seed in range(200)]))) == 200


def test_a_hash_alone_does_not_make_a_near_duplicate():
    """Two products in the middle of a white table: hashes agree, colors do not."""
    white = np.full((96, 96, 3), 255, np.uint8)
    green, red = white.copy(), white.copy()
    green[20:80, 40:56] = (30, 120, 30)
    red[20:80, 40:56] = (120, 30, 30)
    red[30:70, 30:66] = (200, 180, 160)
    first, second = signature(green), signature(red)
    assert (first.bits ^ second.bits).bit_count() <= 20
    assert len(set(grouped([green, red]))) == 2


def test_uniform_pictures_are_grouped_only_when_equal():
    gray, white = np.full((32, 32, 3), 128, np.uint8), np.full((32, 32, 3), 255, np.uint8)
    groups = grouped([gray, white, gray])
    assert groups[0] == groups[2] != groups[1]


def test_groups_are_transitive():
    chain = [scene(3), recompressed(scene(3), 60), resized(recompressed(scene(3), 60), 64, 64)]
    assert len(set(grouped([*chain, scene(4)]))) == 2


@pytest.mark.parametrize("count", [0, 1])
def test_few_images(count):
    assert near_groups([signature(scene(0))] * count).tolist() == [0] * count


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 64))
def test_pairs_are_those_whose_hashes_are_close(bits, flipped):
    bits = [*bits, *(value ^ ((1 << flipped) - 1) for value in bits)]
    same = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    signatures = [Signature(digest=str(number), bits=value, thumbnail=same) for number, value in enumerate(bits)]
    expected = {
        (first, second)
        for second in range(len(bits))
        for first in range(second)
        if (bits[first] ^ bits[second]).bit_count() <= MAX_HASH_DISTANCE
    }
    assert {tuple(pair) for pair in near_pairs(signatures).tolist()} == expected


def test_a_pair_is_found_among_ten_thousand_images():
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**63, 10_000, dtype=np.uint64).tolist()
    thumbnail = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    bits[9_999] = bits[3] ^ 0b111
    signatures = [Signature(digest=str(number), bits=value, thumbnail=thumbnail) for number, value in enumerate(bits)]
    assert [3, 9_999] in near_pairs(signatures).tolist()
