"""The VGA's registers after reset, which of their bits exist, and what a saved state may hold."""

from __future__ import annotations

from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Bits that exist, by index of the sequencer and the graphics controller. The rest read as 0.
SR_MASK = (0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0x00, 0x00, 0xFF)
GR_MASK = (0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF, 0, 0, 0, 0, 0, 0, 0)
AR_COUNT = 21
VBE_COUNT = 11
VBE_IDS = range(0xB0C0, 0xB0C6)

RESET: dict[str, Any] = {
    "misc": 0,
    "feature": 0,
    "sr_index": 0,
    "sr": bytes(8),
    "gr_index": 0,
    "gr": bytes(16),
    "ar_index": 0,
    "ar_data": False,
    "ar": bytes(AR_COUNT),
    "cr_index": 0,
    "cr": bytes(256),
    "latch": 0,
    "dac_state": 0,
    "dac_read": 0,
    "dac_write": 0,
    "dac_part": 0,
    "dac_cache": bytes(3),
    "dac": bytes(768),
    "pel_mask": 0xFF,
    "vbe_index": 0,
    "vbe": [VBE_IDS[-1]] + [0] * (VBE_COUNT - 1),
    "bank_offset": 0,
    "big_endian": False,
}

LIMITS = {
    "misc": 0xFF,
    "feature": 0x10,
    "sr_index": 7,
    "gr_index": 15,
    "ar_index": 0x3F,
    "cr_index": 0xFF,
    "latch": 0xFFFFFFFF,
    "dac_state": 3,
    "dac_read": 0xFF,
    "dac_write": 0xFF,
    "dac_part": 2,
    "pel_mask": 0xFF,
    "vbe_index": 0xFFFF,
    "ar_data": 1,
    "big_endian": 1,
}


def check(state: dict[str, Any], size: int) -> None:
    """StateError when `state` is none that a card with `size` bytes of memory can be in."""
    if set(state) != set(RESET):
        raise StateError(f"vga: wrong fields: {', '.join(sorted(set(state) ^ set(RESET)))}")
    for name, most in LIMITS.items():
        if not isinstance(state[name], int) or not 0 <= state[name] <= most:
            raise StateError(f"vga: {name} = {state[name]!r} is outside 0..{most}")
    for name, value in RESET.items():
        if isinstance(value, bytes) and (
            not isinstance(state[name], bytes) or len(state[name]) != len(value)
        ):
            raise StateError(f"vga: {name} is not {len(value)} bytes")
    for name, masks in (("sr", SR_MASK), ("gr", GR_MASK)):
        for index, (byte, mask) in enumerate(zip(state[name], masks, strict=True)):
            if byte & ~mask:
                raise StateError(f"vga: {name}[{index}] = {byte:#x} has reserved bits set")
    vbe = state["vbe"]
    if not isinstance(vbe, list) or len(vbe) != VBE_COUNT or vbe[0] not in VBE_IDS:
        raise StateError(f"vga: vbe = {vbe!r} is no set of VBE registers")
    if not all(isinstance(value, int) and 0 <= value <= 0xFFFF for value in vbe):
        raise StateError(f"vga: vbe = {vbe!r} is no set of VBE registers")
    bank = state["bank_offset"]
    if not isinstance(bank, int) or bank & 0xFFFF or not 0 <= bank < size:
        raise StateError(f"vga: bank_offset = {bank!r} is no bank of {size} bytes")
