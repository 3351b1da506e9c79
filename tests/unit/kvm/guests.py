"""Guests longer than a line, as bytes with their assembly beside them."""

# Protected mode, flat: lgdt [f0018h]; cr0 |= 1; jmp 8:f0038h; ds = es = ss = 10h; esp = 7000h.
# The descriptors are marked as accessed: KVM cannot mark them in ROM.
PROTECTED = (
    "fa2e660f011618000f20c00c010f22c066ea38000f000800170020000f0066900000000000000000"
    "ffff0000009bcf00ffff00000093cf00b8100000008ed88ec08ed0bc00700000"
)
PROTECTED_DONE = "b05a e6f4 f4"

# Real mode: IVT entry 2dh, both 8259As (vectors 28h, 70h), only IRQ 5 unmasked, log 11h, then for ever sti;
# hlt; cli; log 22h. The handler logs 33h and ends the interrupt.
IRQ5 = (
    "fa31c08ed88ed0bc0070c706b4004700c706b60000f0b011e620e6a0b028e621b070e6a1b004e621b002e6a1b001e621e6a1b0dfe621b0ff"
    "e6a1b011e680fbf4fab022e680ebf750b033e680b020e62058cf"
)

# Protected mode: IDT at 1000h with vector 41h, local APIC on, log 11h, sti, hlt. The handler logs 33h, ends
# the interrupt at the local APIC and goes back to sti, without IRET: not every KVM emulates that.
MSI41 = (
    PROTECTED + "c7050812000087000f0066c7050a120000080066c7050c120000008e66c7050e1200000f002e0f"
    "011d9a000f00c705f000e0feff010000b011e680fbf4ebfcb033e680c705b000e0fe0000000083c40cebe9ff07"
    "00100000"
)

# Protected mode: INIT to all but self, wait, SIPI f0h to all but self, until [500h] == [600h]; then end.
START_OTHERS = (
    PROTECTED + "c705f000e0feff010000c7050003e0fe00450c00b9204e0000e2fec7050003e0fef0460c00"
    "66a100050000663b050006000075f1e6f4f4"
)
# What a SIPI with vector f0h finds: lock inc word [500h]; then hlt for ever.
OTHER = "fa31c08ed8f0ff060005f4ebfd"
