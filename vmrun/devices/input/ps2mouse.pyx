"""PS/2 mouse: three buttons; with wheel and five buttons once a driver has knocked for them (IntelliMouse, Explorer).

Ref: IBM PS/2 Hardware Interface Technical Reference, 'Mouse'; Microsoft, Mouse and Keyboard PS/2 extensions.
Not modelled: the sample rate as a limit. A packet goes out as soon as the one before has been read; until then
movement adds up, so a slow guest loses none.
"""

from accel.api cimport u8, u32
from vmrun.devices.input.ps2 cimport Ps2Device

from vmrun.core.state import Flag, Signed, U8
from vmrun.devices.input.ps2 import QUEUE

cdef enum:
    ACK = 0xFA
    RESEND = 0xFE

    SCALING_1 = 0xE6
    SCALING_2 = 0xE7
    SET_RESOLUTION = 0xE8
    STATUS_REQUEST = 0xE9
    SET_STREAM = 0xEA
    READ_DATA = 0xEB
    RESET_WRAP = 0xEC
    SET_WRAP = 0xEE
    SET_REMOTE = 0xF0
    READ_TYPE = 0xF2
    SET_RATE = 0xF3
    ENABLE = 0xF4
    DISABLE = 0xF5
    SET_DEFAULT = 0xF6
    RESET = 0xFF

    FAR = 1 << 20               # movement that adds up stays within this


cdef int _clamp(int value, int low, int high) noexcept nogil:
    return low if value < low else high if value > high else value


cdef int _double(int value) noexcept nogil:
    """2:1 scaling: small steps stay small."""
    cdef int size = -value if value < 0 else value
    if size == 2:
        size = 1
    elif size == 4:
        size = 6
    elif size == 5:
        size = 9
    elif size > 5:
        size *= 2
    return -size if value < 0 else size


cdef class Ps2Mouse(Ps2Device):
    """`move(dx, dy, dz, buttons)`: right, down and wheel towards the user are positive; buttons 1 left, 2 right,
    4 middle, 8 and 16 the side ones."""

    state = QUEUE.extend(
        "ps2-mouse", 1,
        U8("kind", only=(0, 3, 4)), U8("rate", 100), U8("resolution", 2, most=3), Flag("reporting"), Flag("remote"),
        Flag("wrap"), Flag("scaling"), U8("knock", most=3), U8("buttons", most=31), U8("sent_buttons", most=31),
        Signed("dx", -FAR, FAR), Signed("dy", -FAR, FAR), Signed("dz", -FAR, FAR),
    )
    reset, save, load_state = state.methods()

    def __init__(self):
        self.reset()

    def move(self, int dx=0, int dy=0, int dz=0, u8 buttons=0):
        """What the user does; the device lock is held."""
        with nogil:
            self.moved(dx, dy, dz, buttons)

    cdef void moved(self, int dx, int dy, int dz, u8 buttons) noexcept nogil:
        self.buttons = buttons & 31
        if not self.reporting and not self.remote:
            return
        self.dx = _clamp(self.dx + _clamp(dx, -FAR, FAR), -FAR, FAR)
        self.dy = _clamp(self.dy - _clamp(dy, -FAR, FAR), -FAR, FAR)
        self.dz = _clamp(self.dz + _clamp(dz, -FAR, FAR), -FAR, FAR)
        if self.count == 0:
            self.sent_all()
            if self.count:
                self.host.ps2_ready()

    cdef bint news(self) noexcept nogil:
        cdef u8 mask = 31 if self.kind == 4 else 7
        return (self.dx != 0 or self.dy != 0 or (self.dz != 0 and self.kind != 0)
                or (self.buttons ^ self.sent_buttons) & mask)

    cdef void sent_all(self) noexcept nogil:
        if self.reporting and not self.remote and not self.wrap and self.argument < 0 and self.news():
            self.packet(True)

    cdef void packet(self, bint scaled) noexcept nogil:
        cdef int x = _clamp(self.dx, -255, 255)
        cdef int y = _clamp(self.dy, -255, 255)
        cdef int z
        self.dx -= x
        self.dy -= y
        if scaled and self.scaling:
            x = _clamp(_double(x), -255, 255)
            y = _clamp(_double(y), -255, 255)
        self.put(0x08 | (self.buttons & 7) | (0x10 if x < 0 else 0) | (0x20 if y < 0 else 0))
        self.put(x & 0xFF)
        self.put(y & 0xFF)
        if self.kind == 3:
            z = _clamp(self.dz, -127, 127)
            self.dz -= z
            self.put(z & 0xFF)
        elif self.kind == 4:
            z = _clamp(self.dz, -7, 7)
            self.dz -= z
            self.put((z & 0x0F) | (self.buttons & 0x18) << 1)
        else:
            self.dz = 0
        self.sent_buttons = self.buttons

    cdef void defaults(self) noexcept nogil:
        self.rate = 100
        self.resolution = 2
        self.scaling = self.reporting = self.remote = False
        self.dx = self.dy = self.dz = 0

    cdef void command(self, u8 value) noexcept nogil:
        if self.wrap and value != RESET and value != RESET_WRAP:
            self.put(value)
        elif self.argument >= 0:
            self.give_argument(value)
        elif value == RESEND:
            if self.last >= 0:
                self.put(self.last)
        else:
            self.flush()
            self.put(ACK)
            if value == SCALING_1:
                self.scaling = False
            elif value == SCALING_2:
                self.scaling = True
            elif value == SET_RESOLUTION or value == SET_RATE:
                self.argument = value
            elif value == STATUS_REQUEST:
                self.put((0x40 if self.remote else 0) | (0x20 if self.reporting else 0)
                         | (0x10 if self.scaling else 0) | (self.buttons & 1) << 2 | (self.buttons & 4) >> 1
                         | (self.buttons & 2) >> 1)
                self.put(self.resolution)
                self.put(self.rate)
            elif value == SET_STREAM or value == RESET_WRAP:
                self.wrap = False
                if value == SET_STREAM:
                    self.remote = False
            elif value == READ_DATA:
                self.packet(False)
            elif value == SET_WRAP:
                self.wrap = True
            elif value == SET_REMOTE:
                self.remote = True
            elif value == READ_TYPE:
                self.put(self.kind)
            elif value == ENABLE:
                self.reporting = True
            elif value == DISABLE:
                self.reporting = False
            elif value == SET_DEFAULT:
                self.defaults()
            elif value == RESET:
                self.wrap = False
                self.kind = self.knock = 0
                self.defaults()
                self.put(0xAA)
                self.put(0x00)
            else:
                self.flush()
                self.put(RESEND)
        self.host.ps2_ready()

    cdef void give_argument(self, u8 value) noexcept nogil:
        cdef int command = self.argument
        self.argument = -1
        self.flush()
        if command == SET_RESOLUTION:
            self.resolution = value & 3
        else:
            self.rate = value
            # The knock: rates 200, 100, 80 wake the wheel, 200, 200, 80 the other two buttons.
            if self.knock == 1 and value == 100:
                self.knock = 2
            elif self.knock == 1 and value == 200:
                self.knock = 3
            elif self.knock >= 2 and value == 80:
                self.kind = 3 if self.knock == 2 else 4
                self.knock = 0
            elif value == 200:
                self.knock = 1
            else:
                self.knock = 0
        self.put(ACK)
