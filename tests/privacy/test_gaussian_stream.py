"""Normal numbers of a key: against blocks of the cipher, and against the normal distribution."""

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpnorm.privacy.gaussian_stream import GaussianStream, box_muller, scratch_size

KEY = bytes(range(16))
# Of the statistical tests below each misses a right implementation with a probability below 1e-6
# on other keys; these are fixed.
RARE = 1e-6


def drawn(count, std=1.0, dtype=np.float32, key=KEY, number=0):
    memory = np.empty(count, dtype)
    scratch = np.empty(scratch_size(count, memory.itemsize), np.uint8)
    GaussianStream(key, number).fill(memory, std, scratch)
    return memory


def expected(start, count, std, dtype, number):
    """By blocks of the cipher one by one, and in double precision; and the next block."""
    size = 2 * ((count + 1) // 2) * np.dtype(dtype).itemsize
    cipher = Cipher(AES(KEY), ECB()).encryptor()
    blocks = (size + 15) // 16 + 1
    raw = b"".join(
        cipher.update(number.to_bytes(8, "big") + block.to_bytes(8, "big"))
        for block in range(start // 16, start // 16 + blocks)
    )[start % 16 :][:size]
    bits = 8 * np.dtype(dtype).itemsize
    words = np.frombuffer(raw, f"<u{bits // 8}").tolist()
    radial, angular = words[: len(words) // 2], words[len(words) // 2 :]
    radius = [math.sqrt(-2 * math.log((2 * a + 1) / 2 ** (bits + 1))) for a in radial]
    angle = [2 * math.pi * b / 2**bits for b in angular]
    pairs = list(zip(radius, angle, strict=True))
    found = [r * math.cos(t) for r, t in pairs] + [r * math.sin(t) for r, t in pairs]
    return start + size, std * np.array(found[:count]), np.array([*radius, *radius][:count])


def assert_close(found, exact, radius):
    """Of words near the largest, u is near 1 and rounded by half an epsilon, as is r^2 / 2."""
    eps = np.finfo(found.dtype).eps
    allowed = 10 * eps * (1 + radius) + eps / np.maximum(radius, math.sqrt(eps))
    assert (np.abs(found - exact) <= allowed).all()


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1.0, 1e-30, 3e20]),
    st.sampled_from([0, 1, 2**64 - 1]),
)
def test_numbers_are_those_of_the_blocks_of_the_cipher(counts, dtype, std, number):
    """Of each filling after the other, and none writes beyond its memory."""
    stream = GaussianStream(KEY, number)
    scratch = np.empty(scratch_size(max(counts), np.dtype(dtype).itemsize), np.uint8)
    start = 0
    for count in counts:
        whole = np.full(count + 2, 7.0, dtype)
        stream.fill(whole[1:-1], std, scratch)
        start, exact, radius = expected(start, count, std, dtype, number)
        assert whole[0] == whole[-1] == 7.0
        assert_close(whole[1:-1] / dtype(std), exact / std, radius)


@pytest.mark.parametrize("count", [2**15 + 2, 2**18 + 1])
def test_more_numbers_than_are_encrypted_at_once_are_of_consecutive_blocks(count):
    _, exact, radius = expected(0, count, 1.0, np.float32, 5)
    assert_close(drawn(count, number=5), exact, radius)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_words_at_the_ends_make_finite_numbers(dtype):
    bits = 8 * np.dtype(dtype).itemsize
    ends = np.array([0, 1, 2 ** (bits - 1), 2**bits - 1], f"<u{bits // 8}")
    radial, angular = (grid.ravel() for grid in np.meshgrid(ends, ends))
    memory, parts = np.empty(2 * len(radial), dtype), np.empty((2, len(radial)), dtype)
    box_muller(radial, angular, 1.0, memory, parts)
    lengths = np.hypot(*memory.astype(float).reshape(2, -1))
    largest = math.sqrt(2 * (bits + 1) * math.log(2))
    assert np.isfinite(lengths).all()
    np.testing.assert_allclose(lengths[radial == 0], largest, rtol=1e-6)
    assert (lengths[radial == 2**bits - 1] < 1e-3).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_normal(dtype):
    numbers = drawn(2_000_001, dtype=dtype).astype(float)
    assert stats.kstest(numbers, "norm").pvalue > RARE
    bound = stats.norm.isf(RARE / 2)
    n = len(numbers)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((numbers**power).mean() - mean) < bound * math.sqrt(variance / n)
    for far in (3.0, 4.0, 4.5):
        for tail in (numbers > far, numbers < -far):
            expected_count = n * stats.norm.sf(far)
            assert stats.poisson.sf(tail.sum() - 1, expected_count) > RARE
            assert stats.poisson.cdf(tail.sum(), expected_count) > RARE


@pytest.mark.parametrize("lag", [1, 2, 16, 250_000, 499_999, 500_000, 500_001])
@pytest.mark.parametrize("shape", [lambda x: x, np.abs, np.square])
def test_no_number_tells_of_another(lag, shape):
    """The two of a pair, which are half of the numbers apart, too."""
    numbers = shape(drawn(1_000_000).astype(float))
    numbers -= numbers.mean()
    together = numbers[lag:] * numbers[:-lag]
    bound = stats.norm.isf(RARE / 2)
    assert abs(together.mean()) < bound * numbers.var() / math.sqrt(len(together)) * 1.01


def test_streams_of_a_key_and_of_others_are_independent():
    own = [drawn(200_000), drawn(200_000, number=1), drawn(200_000, key=bytes(16))]
    bound = stats.norm.isf(RARE / 2)
    for i in range(3):
        for j in range(i):
            product = own[i].astype(float) * own[j]
            assert abs(product.mean()) < bound / math.sqrt(200_000)


def test_the_standard_deviation_is_the_one_asked_for():
    np.testing.assert_allclose(drawn(1001, std=2.5), 2.5 * drawn(1001), rtol=1e-6)
    assert not drawn(101, std=0.0).any()
