"""Many normal numbers from a key, faster than torch's generator on the CPU gives them.

Most of the time of torch's `normal_` is its Mersenne Twister, which gives one word after the other.
Here AES in counter mode gives the words, by instructions that processors have for it, and NumPy's
vectorized functions make them normal.
"""

import math

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

KEY = 16  # bytes
_ENCRYPTED_AT_ONCE = 2**16  # bytes of zeros, which stay in the cache
_BLOCK = AES.block_size // 8  # bytes


class GaussianStream:
    """Normal numbers that follow from a key and a number.

    Two streams of one key have no block of the cipher in common, and two fillings no byte of one.

    Args:
        key: 16 bytes.
        number: of the stream, at least 0 and below 2**64.

    Source: counter mode, NIST SP 800-38A.
    """

    def __init__(self, key: bytes, number: int) -> None:
        first = number.to_bytes(_BLOCK // 2, "big") + bytes(_BLOCK // 2)
        self._cipher = Cipher(AES(key), CTR(first)).encryptor()

    def fill(self, memory: NDArray[np.floating], std: float, scratch: NDArray[np.uint8]) -> None:
        """Writes normal numbers with mean 0.

        Args:
            memory: (n,), of float32 or float64.
            std: their standard deviation.
            scratch: `scratch_size` bytes or more, whose values are lost.
        """
        pairs = (len(memory) + 1) // 2
        drawn = 2 * pairs * memory.itemsize  # bytes
        parts = scratch[:drawn].view(memory.dtype).reshape(2, pairs)
        raw = scratch[drawn : 2 * drawn + _BLOCK]
        room = raw.data
        for start in range(0, drawn, _ENCRYPTED_AT_ONCE):
            zeros = _ZEROS[: drawn - start]
            # the cipher asks for room for a block more than it writes
            self._cipher.update_into(zeros, room[start : start + len(zeros) + _BLOCK])
        words = raw[:drawn].view(f"<u{memory.itemsize}")
        box_muller(words[:pairs], words[pairs:], std, memory, parts)


def scratch_size(numbers: int, itemsize: int) -> int:
    """How many bytes it takes to draw so many numbers of so many bytes at once."""
    return 4 * ((numbers + 1) // 2) * itemsize + _BLOCK


def box_muller(
    radial: NDArray[np.unsignedinteger],
    angular: NDArray[np.unsignedinteger],
    std: float,
    memory: NDArray[np.floating],
    parts: NDArray[np.floating],
) -> None:
    """Writes normal numbers made of independent uniform words.

    A pair of words a and b, of w bits, makes two independent numbers: r cos(t) and r sin(t) with
    r = sqrt(-2 log u), u = (a + 1/2) / 2^w, and t = 2 pi b / 2^w. The largest is that of a = 0, 6.8
    standard deviations for 32 bits and 9.5 for 64. Of r near 0, r^2 comes in steps of an epsilon.

    Args:
        radial: (ceil(n / 2),), a.
        angular: (ceil(n / 2),), b.
        std: of the numbers.
        memory: (n,), where they go: cosines first.
        parts: (2, ceil(n / 2)), of the type of the memory, whose values are lost.

    Source: Box and Muller, Annals of Mathematical Statistics 29 (1958).
    """
    bits, half = 8 * radial.itemsize, len(radial)
    radius, angle = parts
    np.copyto(radius, radial, casting="unsafe")
    radius += 0.5
    np.divide(2.0**bits, radius, out=radius)  # 1 / u
    np.log2(radius, out=radius)
    np.sqrt(radius, out=radius)
    radius *= std * math.sqrt(2 * math.log(2))
    np.copyto(angle, angular.view(f"<i{angular.itemsize}"), casting="unsafe")
    angle *= math.pi * 2.0 ** (1 - bits)
    np.cos(angle, out=memory[:half])
    memory[:half] *= radius
    rest = memory[half:]
    np.sin(angle, out=angle)
    np.multiply(angle[: len(rest)], radius[: len(rest)], out=rest)


_ZEROS = memoryview(bytes(_ENCRYPTED_AT_ONCE))
