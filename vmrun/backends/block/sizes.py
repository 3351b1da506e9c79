"""Sizes as people read and write them."""

from __future__ import annotations

FIRST = 4096  # bytes of a new file that are there, so that what it is aligned to can be tried


def people(count: int) -> str:
    """As QEMU writes sizes: three digits, from 1000 of a unit on the next."""
    import math

    _, exponent = math.frexp(count / (1000 / 1024))
    unit = max(0, (exponent - 1) // 10)
    value = count / (1 << (10 * unit))
    return f"{value:.3g} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[unit]}B"


def digits(text: str) -> int | None:
    """A number of ASCII digits, of 64 bits at most; None when it is none (`isdigit` takes `²` for one)."""
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None
    return found if found is None or found < 1 << 64 else None


SUFFIXES = {"b": 0} | {letter: 10 * (n // 2 + 1) for n, letter in enumerate("kKmMgGtTpPeE")}


def bytes_of(text: str) -> int | None:
    """Bytes of `10G`, `1.5M`, `0x100`; None when it is not a size."""
    import re

    if len(text) > 64:
        return None
    match = re.fullmatch(r"\+?(0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-zA-Z]?)", text.strip())
    if not match or match[2] and match[2] not in SUFFIXES:
        return None
    if match[1][:2] in ("0x", "0X"):
        return int(match[1], 16) << (SUFFIXES[match[2]] if match[2] else 0)
    whole, _, part = match[1].partition(".")
    shift = SUFFIXES[match[2]] if match[2] else 0
    found = int(whole or "0") << shift
    if part.strip("0"):
        if shift == 0:
            return None
        found += int(float("0." + part) * (1 << shift))
    return found
