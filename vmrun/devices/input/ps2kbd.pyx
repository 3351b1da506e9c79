"""PS/2 keyboard with 101 keys and more: scan code sets 1, 2 and 3, typematic repeat, all commands.

Ref: IBM PS/2 Hardware Interface Technical Reference, 'Keyboards (101- and 102-key)'; Microsoft, Keyboard Scan Code
Specification 1.3a, for the keys that came later.
Not modelled: the duration of the self test (its result follows at once), numeric-pad shift sequences that depend on Num Lock.
"""

from libc.string cimport memset

from accel.api cimport i64, u8, u32
from accel.clock cimport Timer, TimerQueue
from vmrun.core.cells cimport cells
from vmrun.devices.input.ps2 cimport Ps2Device

from accel.api import _report
from vmrun.devices.input.keycodes import KEYS, PAUSE, PRINT, SET1_FROM_SET2, SET3_MAKE_BREAK, SET3_MAKE_ONLY
from vmrun.core.state import Bytes, Deadline, Flag, U8, U32
from vmrun.devices.input.ps2 import QUEUE

cdef enum:
    ACK = 0xFA
    RESEND = 0xFE
    BAT_OK = 0xAA
    ECHO = 0xEE

    SET_LEDS = 0xED
    SCAN_SET = 0xF0
    READ_ID = 0xF2
    SET_RATE = 0xF3
    ENABLE = 0xF4
    DISABLE = 0xF5
    SET_DEFAULT = 0xF6
    ALL_TYPEMATIC = 0xF7        # to 0xFA: all keys of set 3
    KEY_TYPEMATIC = 0xFB        # to 0xFD: single keys of set 3
    RESET = 0xFF

    MODE_BREAK = 1              # what a key of set 3 does besides its make code
    MODE_REPEAT = 2

    EVENTS = 16                 # bytes of the keyboard's own buffer
    DEFAULT_RATE = 0x2B         # 10.9 characters a second after 500 ms

    EXTENDED = 0x100            # the key's codes follow 0xE0
    CODE_PRINT = 0x200
    CODE_PAUSE = 0x201

cdef u8 XLATE[256]
for _i in range(256):
    XLATE[_i] = SET1_FROM_SET2[_i]

cdef u8 MODES[256]
memset(MODES, MODE_REPEAT, 256)
for _i in SET3_MAKE_ONLY:
    MODES[_i] = 0
for _i in SET3_MAKE_BREAK:
    MODES[_i] = MODE_BREAK

assert PRINT == CODE_PRINT and PAUSE == CODE_PAUSE

cdef u8 mode_of(int choice) noexcept nogil:
    """The commands' order: typematic, make/break, make only, typematic and make/break."""
    if choice == 0:
        return MODE_REPEAT
    if choice == 1:
        return MODE_BREAK
    return 0 if choice == 2 else MODE_REPEAT | MODE_BREAK


cdef inline bint once(u32 code2) noexcept nogil:
    """Keys that in sets 1 and 2 are heard when they go down and then no more: Pause, and the Korean Hanja and Hangul."""
    return code2 == CODE_PAUSE or code2 == 0xF1 or code2 == 0xF2


cdef class _Typematic(Timer):
    cdef Ps2Keyboard keyboard

    cdef void expire(self) noexcept nogil:
        self.keyboard.repeat()


cdef class Ps2Keyboard(Ps2Device):
    """`key(qcode, down)` is what the user does; `on_leds(mask)` hears of bit 0 scroll, 1 num, 2 caps."""

    # After power-on the result of the self test is not sent: the firmware asks for it anyway.
    state = QUEUE.extend(
        "ps2-keyboard", 1,
        Flag("enabled", True), U8("leds", most=7), U8("scan_set", 2, least=1, most=3), U8("rate", DEFAULT_RATE, most=0x7F),
        Bytes("key_modes", 256, bytes([MODES[n] for n in range(256)]), each=3), Bytes("held", 64),
        U32("repeat2", most=0x201), U32("repeat3", most=0xFF), Flag("overrun"), Deadline("typematic"),
    )
    reset, save, load_state = state.methods()

    def __init__(self, TimerQueue timers, on_leds=None):
        cdef _Typematic timer = _Typematic(timers)
        timer.keyboard = self
        self.typematic = timer
        self.on_leds = on_leds
        self.reset()

    def detach(self):
        self.typematic.cancel()

    def key(self, str qcode, bint down):
        """Press or release a key by QEMU's name for it. KeyError names an unknown one; the device lock is held."""
        cdef u32 code2, code3
        code2, code3 = KEYS[qcode]
        with nogil:
            self.event(code2, code3, down)

    def unrepeated(self):
        """The key that is down does not repeat; the device lock is held."""
        self.repeat2 = 0
        self.typematic.cancel()

    cdef void event(self, u32 code2, u32 code3, bint pressed) noexcept nogil:
        cdef u32 slot = code2 >> 3 & 63
        cdef u8 bit = 1 << (code2 & 7)
        if code2 == CODE_PAUSE:
            slot, bit = 63, 1
        elif code2 == CODE_PRINT:
            slot, bit = 63, 2
        if pressed == ((self.down[slot] & bit) != 0):
            return              # the host's repeats: the keyboard makes its own
        self.down[slot] ^= bit
        self.emit(code2, code3, pressed)
        if pressed and not once(code2) and (self.scan_set != 3 or self.modes[code3 & 0xFF] & MODE_REPEAT):
            self.repeat2, self.repeat3 = code2, code3
            self.typematic.arm(self.typematic.queue.clock.now() + <i64>250000000 * (1 + (self.rate >> 5 & 3)))
        elif pressed or code2 == self.repeat2:
            self.repeat2 = 0
            self.typematic.cancel()

    cdef void repeat(self) noexcept nogil:
        """The key is still held. (8 + A) * 2^B * 4.17 ms between codes, A bits 2..0 of the rate, B bits 4..3."""
        cdef i64 period
        if self.repeat2 and self.enabled:
            if self.count == 0:             # a guest that is behind gets no more of the same
                self.emit(self.repeat2, self.repeat3, True)
            period = <i64>(8 + (self.rate & 7)) << (self.rate >> 3 & 3)
            self.typematic.arm(self.typematic.queue.clock.now() + period * 4166667)

    cdef void emit(self, u32 code2, u32 code3, bint pressed) noexcept nogil:
        cdef u8 out[8]
        cdef u32 n = 0
        cdef u8 code = code2 & 0xFF
        if not self.enabled:
            return
        if self.scan_set == 3:
            if pressed or self.modes[code3 & 0xFF] & MODE_BREAK:
                if not pressed:
                    out[n] = 0xF0
                    n += 1
                out[n] = code3 & 0xFF
                n += 1
        elif once(code2) and not pressed:
            return
        elif code2 == CODE_PAUSE:
            if self.scan_set == 1:
                out[0], out[1], out[2], out[3], out[4], out[5] = 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5
                n = 6
            else:
                out[0], out[1], out[2], out[3] = 0xE1, 0x14, 0x77, 0xE1
                out[4], out[5], out[6], out[7] = 0xF0, 0x14, 0xF0, 0x77
                n = 8
        elif code2 == CODE_PRINT:
            if self.scan_set == 1:
                out[0], out[1], out[2], out[3] = 0xE0, 0x2A, 0xE0, 0x37
                if not pressed:
                    out[1], out[3] = 0xB7, 0xAA
                n = 4
            elif pressed:
                out[0], out[1], out[2], out[3] = 0xE0, 0x12, 0xE0, 0x7C
                n = 4
            else:
                out[0], out[1], out[2], out[3], out[4], out[5] = 0xE0, 0xF0, 0x7C, 0xE0, 0xF0, 0x12
                n = 6
        else:
            if code2 & EXTENDED:
                out[n] = 0xE0
                n += 1
            if self.scan_set == 1:
                out[n] = XLATE[code] if pressed else XLATE[code] | 0x80
            else:
                if not pressed:
                    out[n] = 0xF0
                    n += 1
                out[n] = code
            n += 1
        self.queue_event(out, n)

    cdef void queue_event(self, const u8 *bytes_, u32 count) noexcept nogil:
        """All bytes of a key or none; after the buffer has overflowed, one overrun code."""
        cdef u32 i
        if count == 0:
            return
        if self.count + count > EVENTS:
            if not self.overrun:
                self.overrun = True
                self.put(0xFF if self.scan_set == 1 else 0x00)
        else:
            for i in range(count):
                self.put(bytes_[i])
        self.host.ps2_ready()

    cdef void sent_all(self) noexcept nogil:
        self.overrun = False

    # --- commands -------------------------------------------------------------------------------------------

    cdef void defaults(self) noexcept nogil:
        cdef u32 i
        self.scan_set = 2
        self.rate = DEFAULT_RATE
        self.repeat2 = self.repeat3 = 0
        self.typematic.cancel()
        for i in range(256):
            self.modes[i] = MODES[i]

    cdef void command(self, u8 value) noexcept nogil:
        cdef u32 i
        if self.argument >= 0:
            if value < 0xED or self.argument in (SET_LEDS, SCAN_SET, SET_RATE) and value < 0xF0:
                self.give_argument(value)
                self.host.ps2_ready()
                return
            self.argument = -1      # a command where an argument was due is obeyed
        if value == RESEND:
            if self.last >= 0:
                self.put(self.last)
                self.host.ps2_ready()
            return
        self.flush()
        self.overrun = False
        if value in (SET_LEDS, SCAN_SET, SET_RATE) or KEY_TYPEMATIC <= value <= KEY_TYPEMATIC + 2:
            self.argument = value
            self.put(ACK)
        elif value == ECHO:
            self.put(ECHO)
        elif value == READ_ID:
            self.put(ACK)
            self.put(0xAB)
            self.put(0x83)
        elif value == 0x00:
            self.put(ACK)           # as QEMU answers it
        elif value == ENABLE:
            self.enabled = True
            self.put(ACK)
        elif value == DISABLE or value == SET_DEFAULT:
            self.defaults()
            self.enabled = value == SET_DEFAULT
            self.put(ACK)
        elif ALL_TYPEMATIC <= value <= ALL_TYPEMATIC + 3:
            for i in range(256):
                self.modes[i] = mode_of(value - ALL_TYPEMATIC)
            self.put(ACK)
        elif value == RESET:
            self.defaults()
            self.enabled = True
            self.leds = 0
            self.show_leds()
            self.put(ACK)
            self.put(BAT_OK)
        else:
            self.put(RESEND)
        self.host.ps2_ready()

    cdef void give_argument(self, u8 value) noexcept nogil:
        cdef int command = self.argument
        self.flush()
        if KEY_TYPEMATIC <= command <= KEY_TYPEMATIC + 2:
            # More keys may follow, until the next command.
            self.modes[value] = mode_of(command - KEY_TYPEMATIC)
            self.put(ACK)
            return
        self.argument = -1
        if command == SET_LEDS:
            self.leds = value & 7
            self.show_leds()
            self.put(ACK)
        elif command == SET_RATE:
            self.rate = value & 0x7F
            self.put(ACK)
        elif value == 0:
            self.put(ACK)
            self.put(self.scan_set)
        elif value <= 3:
            self.scan_set = value
            self.put(ACK)
        else:
            self.put(RESEND)

    cdef void show_leds(self) noexcept nogil:
        if self.on_leds is not None:
            self.call_leds()

    cdef void call_leds(self) noexcept with gil:
        try:
            self.on_leds(self.leds)
        except Exception as exc:
            _report("keyboard lights", exc)

    # --- state ----------------------------------------------------------------------------------------------

    @property
    def key_modes(self):
        return cells(self, self.modes, 256)

    @property
    def held(self):
        return cells(self, self.down, 64)

    def settle(self):
        self.show_leds()
