import numpy as np
import pytest
import zstandard
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError
from solution.export.packed import codecs, coding
from solution.export.packed.codecs import from_byte_planes, to_byte_planes
from solution.export.packed.coding import Reader, joined, share

PLANES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.integers(0, 3), max_size=2000).map(bytes),
    st.builds(lambda value, count: bytes([value]) * count, st.integers(0, 255), st.integers(0, 5000)),
)


def entropy_bytes(values):
    counts = np.bincount(values)
    counts = counts[counts > 0]
    return float((counts * np.log2(len(values) / counts)).sum()) / 8


@settings(max_examples=150, deadline=None)
@given(PLANES)
def test_what_is_coded_comes_back(data):
    values = np.frombuffer(data, dtype=np.uint8)
    name, coded = coding.encode(values)
    assert len(coded) <= len(values)
    assert np.array_equal(coding.decode(name, coded, len(values)), values)


@pytest.mark.parametrize("spread", [0.5, 8, 35])
def test_it_comes_within_a_percent_of_the_entropy_and_a_small_table(spread):
    values = np.clip(np.random.default_rng(0).normal(128, spread, 30_000).round(), 0, 255).astype(np.uint8)
    assert len(coding.encode(values)[1]) < 1.01 * entropy_bytes(values) + 200


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([coding.STORED, coding.ZSTD, coding.ANS, "other"]), st.integers(0, 3000))
def test_nonsense_is_refused_or_gives_as_many_bytes_as_asked_for(data, name, count):
    try:
        values = coding.decode(name, data, count)
    except InputError:
        return
    assert values.dtype == np.uint8
    assert len(values) == count


def test_a_bomb_is_not_unpacked():
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    with pytest.raises(InputError, match="does not hold"):
        coding.decode(coding.ZSTD, bomb, 1000)
    with pytest.raises(InputError, match="does not hold"):
        coding.unsqueezed(bomb, 1 << 20, exact=False)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["<u1", "<u2", "<u4", "<u8"]), st.booleans(), st.integers(0, 70_000), st.integers(0, 9))
def test_planes_join_to_the_same_numbers(dtype, rotate, count, seed):
    numbers = np.random.default_rng(seed).integers(0, 256, count * int(dtype[2]), dtype=np.uint8).view(dtype)
    again = from_byte_planes(to_byte_planes(numbers, rotate), rotate)
    assert again.dtype == numbers.dtype
    assert np.array_equal(again, numbers)


def test_rotated_planes_hold_the_exponent_first_and_the_sign_last():
    numbers = np.array([1.0, -1.0, 0.5], dtype=np.float32).view(np.uint32)
    byte_planes = to_byte_planes(numbers, rotate=True)
    assert [plane.tolist() for plane in byte_planes] == [[127, 127, 126], [0, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("size", "share_"), [(2, 8), (3, 4), (4, 4), (5, 2), (16, 2), (17, 1), (256, 1)])
@pytest.mark.parametrize("count", [1, 1000, 1 << 16, (1 << 16) + 3])
def test_small_numbers_share_bytes_when_they_are_many(size, share_, count):
    numbers = np.random.default_rng(count).integers(0, size, count).astype(np.uint8)
    packed = codecs.pack(numbers, size)
    assert len(packed) == codecs.packed_length(size, count) == -(-count // (share_ if count >= 1 << 16 else 1))
    assert np.array_equal(codecs.unpack(packed, size, count), numbers)


def test_planes_that_are_spread_alike_share_a_stream():
    chance = np.random.default_rng(0)
    bells = [chance.normal(128, 4, 2000).astype(np.uint8) for _ in range(3)]
    edges = [chance.normal(30, 4, 2000).astype(np.uint8) for _ in range(3)]
    byte_planes = [bells[0], edges[0], bells[1], edges[1], bells[2], edges[2]]
    chosen = share(byte_planes, ["a", "b"] * 3)
    assert chosen == [0, 1, 0, 1, 0, 1]
    streams = list(joined(byte_planes, chosen))
    reader = Reader(streams)
    assert all(np.array_equal(reader.take(own, 2000), plane) for own, plane in zip(chosen, byte_planes, strict=True))
    assert reader.at_end()
    with pytest.raises(InputError, match="past the end"):
        reader.take(0, 1)


def test_small_planes_of_one_label_go_together():
    byte_planes = [np.full(10, 7, dtype=np.uint8)] * 20 + [np.arange(200, dtype=np.uint8)]
    chosen = share(byte_planes, ["steps"] * 20 + ["rest"])
    assert len(set(chosen[:20])) == 1
    assert share([], []) == []
