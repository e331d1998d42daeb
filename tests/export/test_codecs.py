import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from solution.contracts import InputError
from solution.export.packed import grid
from solution.export.packed.codecs import Numbers, decode, encode


def numbers_of(values, rows=1):
    bits = np.ascontiguousarray(values).ravel()
    return Numbers(dtype=bits.dtype.name, bits=bits.view(f"<u{bits.itemsize}"), row=len(bits) // max(rows, 1))


def again(coded, numbers):
    left = iter(coded.byte_planes)

    def take(count):
        plane = next(left)
        assert len(plane) == count
        return plane

    bits = decode(coded.code, numbers.dtype, len(numbers.bits), take)
    assert next(left, None) is None
    return bits


def check(values, rows, name):
    numbers = numbers_of(values, rows)
    coded = encode(numbers)
    assert coded.code[0] == name
    assert np.array_equal(again(coded, numbers), numbers.bits)
    return coded


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def quantized(rows, row, bits, seed=0):
    """Rows of float32 on the grid of their largest number, as a quantizer of `bits` bits makes them."""
    values = noise(rows * row, seed).reshape(rows, row)
    scales = (np.abs(values).max(1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)).astype(np.float32)
    return np.rint(values / scales) * scales


def test_float_noise_is_stored_as_bytes():
    assert check(noise(5000), 1, "bytes").cost < 4 * 5000


def test_floats_that_float16_holds_take_half():
    assert check(noise(5000).astype(np.float16).astype(np.float32), 1, "half").cost < 2 * 5000


def test_few_distinct_numbers_become_a_codebook():
    book = noise(16)
    assert check(book[np.random.default_rng(1).integers(0, 16, 5000)], 50, "codebook").cost < 0.52 * 5000 + 100
    assert encode(numbers_of(np.full(1000, 7, dtype=np.int64))).cost < 30


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_quantized_rows_take_their_bits(bits):
    coded = check(quantized(64, 90, bits), 64, "grid")
    assert coded.cost < bits / 8 * 64 * 90 + 4.2 * 64


def test_binary_rows_take_a_bit():
    values = np.sign(noise(64 * 90)).reshape(64, 90) * np.abs(noise(64))[:, None]
    assert check(values, 64, "grid").cost < 0.126 * 64 * 90 + 4.2 * 64


def test_mostly_zeros_are_sparse():
    values = np.where(np.random.default_rng(1).random(5000) < 0.1, noise(5000), np.float32(0))
    coded = check(values, 1, "sparse")
    assert coded.code[1] == np.count_nonzero(values)
    assert coded.cost < 500 * 4 + 0.6 * 5000


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8"]),
    st.integers(0, 200),
    st.sampled_from(["noise", "few", "sparse", "small"]),
    st.integers(0, 50),
)
def test_any_bits_come_back(dtype, count, kind, seed):
    chance = np.random.default_rng(seed)
    raw = chance.integers(0, 256, count * np.dtype(dtype).itemsize, dtype=np.uint8).view(dtype)
    if kind == "few" and count:
        raw = raw[chance.integers(0, min(count, 3), count)]
    if kind == "sparse":
        raw = np.where(chance.random(count) < 0.1, raw, raw.dtype.type(0))
    if kind == "small":
        raw = chance.integers(-3, 4, count).astype(dtype)
    numbers = numbers_of(raw)
    assert np.array_equal(again(encode(numbers), numbers), numbers.bits)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 127), st.integers(1, 40), st.floats(1e-30, 1e30), st.integers(0, 99))
@example(87, 4, 453439.0, 0)
@example(120, 4, 64676027.0, 0)
def test_a_grid_is_found_from_its_numbers(top, count, scale, seed):
    whole = np.random.default_rng(seed).integers(-top, top + 1, (2, count)).astype(np.float32)
    values = whole * np.float32(scale)
    found = grid.find(values)
    assert found is not None
    assert np.array_equal(found.values().view(np.uint32), values.view(np.uint32))


def test_zeros_keep_their_sign():
    values = np.array([[-0.0, 0.0, 0.25, -0.5, -0.0]], dtype=np.float32)
    assert np.array_equal(grid.find(values).values().view(np.uint32), values.view(np.uint32))


def test_another_order_of_operations_leaves_residuals():
    top = np.float32(0.7123)
    values = (np.arange(-127, 128).astype(np.float32) / np.float32(127) * top)[None]
    found = grid.find(values)
    assert found.residuals is not None
    assert np.array_equal(found.values().view(np.uint32), values.view(np.uint32))


def test_noise_and_what_is_no_number_have_no_grid():
    assert grid.find(noise(300).reshape(3, 100)) is None
    assert grid.find(np.array([[1.0, np.nan]], dtype=np.float32)) is None


@pytest.mark.parametrize(
    "code",
    [[], ["other"], ["grid"], ["grid", 0, 1, ["bytes"]], ["grid", 3, 1, ["bytes"]], ["codebook", 0, ["bytes"]],
     ["codebook", 300, ["bytes"]], ["codebook", 2, ["sparse", 2, ["bytes"]]], ["sparse", 99, ["bytes"]],
     ["codebook", "2", ["bytes"]], [["bytes"]], [{}], ["half", 1]],
)  # fmt: skip
def test_codes_that_make_no_sense_are_refused(code):
    with pytest.raises(InputError):
        decode(code, "float32" if code != ["half", 1] else "int32", 10, lambda count: np.ones(count, dtype=np.uint8))
