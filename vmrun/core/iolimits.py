"""A drive's limits, bytes and requests per second, in the words of a machine file; errors are QEMU's."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RATES = ("bps", "bps-rd", "bps-wr", "iops", "iops-rd", "iops-wr")
NAMES = (*RATES, *(f"{name}-max" for name in RATES), *(f"{name}-max-length" for name in RATES), "iops-size")
MOST = 1000000000000000


def checked(limits: Mapping[str, int | None]) -> dict[str, int]:
    """NAMES → values, without those that limit nothing. ValueError: they do not go together."""
    found = {name: value for name in NAMES if (value := limits.get(name) or 0)}
    for unit in ("bps", "iops"):
        for end in ("", "-max"):
            if found.get(unit + end) and (found.get(f"{unit}-rd{end}") or found.get(f"{unit}-wr{end}")):
                raise ValueError("bps/iops/max total values and read/write values cannot be used at the same time")
    if found.get("iops-size") and not any(found.get(name) for name in RATES[3:]):
        raise ValueError("iops size requires an iops value to be set")
    for name in RATES:
        rate, burst = found.get(name, 0), found.get(f"{name}-max", 0)
        given = limits.get(f"{name}-max-length")
        length = 1 if given is None else given
        if not 0 <= rate <= MOST or not 0 <= burst <= MOST:
            raise ValueError(f"bps/iops/max values must be within [0, {MOST}]")
        if length < 1:
            raise ValueError("the burst length cannot be 0")
        if length > 1 and not burst:
            raise ValueError("burst length set without burst rate")
        if burst and length > MOST // burst:
            raise ValueError("burst length too high for this burst rate")
        if burst and not rate:
            raise ValueError("bps_max/iops_max require corresponding bps/iops values")
        if burst and burst < rate:
            raise ValueError("bps_max/iops_max cannot be lower than bps/iops")
        if length == 1:
            found.pop(f"{name}-max-length", None)
    return found


def of_qemu(name: str) -> str:
    """A name of QEMU's ThrottleLimits (`bps-read-max`) as a machine file has it (`bps-rd-max`)."""
    return name.replace("-total", "").replace("-read", "-rd").replace("-write", "-wr")


def to_qemu(name: str) -> str:
    """The other way."""
    unit, _, rest = name.partition("-")
    if rest == "size":
        return name
    kind = {"rd": "read", "wr": "write"}.get(rest[:2])
    return "-".join(word for word in (unit, kind or "total", rest[3:] if kind else rest) if word)
