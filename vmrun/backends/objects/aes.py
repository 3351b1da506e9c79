"""AES-256-CBC, the way back only: for secrets that another program has encrypted, a few hundred bytes at most.

Ref: FIPS 197 (cipher, 5.3 inverse), NIST SP 800-38A (CBC). Plain Python: neither fast nor safe against who can measure
its time, which no guest can.
"""

from __future__ import annotations

BLOCK, KEY = 16, 32
ROUNDS = 14


def _tables() -> tuple[bytes, bytes]:
    """The substitution and its inverse: multiplicative inverses of GF(2^8), then an affine map."""
    forward = bytearray(256)
    p = q = 1
    while True:
        p ^= (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)  # times 3
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09  # divided by 3
        turned = q
        for n in range(1, 5):
            turned ^= (q << n | q >> (8 - n)) & 0xFF
        forward[p] = turned ^ 0x63
        if p == 1:
            break
    forward[0] = 0x63
    inverse = bytearray(256)
    for n, value in enumerate(forward):
        inverse[value] = n
    return bytes(forward), bytes(inverse)


SUBSTITUTE, BACK = _tables()


def _times(a: int, b: int) -> int:
    found = 0
    while b:
        if b & 1:
            found ^= a
        a = (a << 1) & 0xFF ^ (0x1B if a & 0x80 else 0)
        b >>= 1
    return found


_BY = {factor: bytes(_times(n, factor) for n in range(256)) for factor in (9, 11, 13, 14)}


def _round_keys(key: bytes) -> list[bytes]:
    words = [key[n : n + 4] for n in range(0, KEY, 4)]
    constant = 1
    for n in range(8, 4 * (ROUNDS + 1)):
        word = words[-1]
        if n % 8 == 0:
            word = bytes(SUBSTITUTE[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _times(constant, 2)
        elif n % 8 == 4:
            word = bytes(SUBSTITUTE[byte] for byte in word)
        words.append(bytes(a ^ b for a, b in zip(words[-8], word, strict=True)))
    return [b"".join(words[n : n + 4]) for n in range(0, len(words), 4)]


def _block(data: bytes, keys: list[bytes]) -> bytes:
    state = bytes(a ^ b for a, b in zip(data, keys[ROUNDS], strict=True))
    for n in range(ROUNDS - 1, -1, -1):
        shifted = bytes(state[(4 * (column - row) + row) % 16] for column in range(4) for row in range(4))
        state = bytes(BACK[byte] ^ key for byte, key in zip(shifted, keys[n], strict=True))
        if n:
            mixed = bytearray()
            for start in range(0, 16, 4):
                a, b, c, d = state[start : start + 4]
                for w, x, y, z in ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):
                    mixed.append(_BY[14][w] ^ _BY[11][x] ^ _BY[13][y] ^ _BY[9][z])
            state = bytes(mixed)
    return state


def decrypted(data: bytes, key: bytes, iv: bytes) -> bytes:
    """With the padding still on. `data` is whole blocks, `key` KEY bytes, `iv` BLOCK."""
    keys, before, found = _round_keys(key), iv, b""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        found += bytes(a ^ b for a, b in zip(_block(block, keys), before, strict=True))
        before = block
    return found
