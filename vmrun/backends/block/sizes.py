"""Sizes for people."""

from __future__ import annotations


def people(count: int) -> str:
    """As QEMU writes sizes: three digits, from 1000 of a unit on the next."""
    import math

    _, exponent = math.frexp(count / (1000 / 1024))
    unit = max(0, (exponent - 1) // 10)
    value = count / (1 << (10 * unit))
    return f"{value:.3g} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[unit]}B"
