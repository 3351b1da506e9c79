# What every network chip is to the host's side. The documentation is in nic.pyx.
from accel.api cimport IoRegion, u8, u32
from accel.clock cimport Timer, TimerQueue
from vmrun.backends.protocols cimport NetFrontend, NetHeader, net_burst, net_room, net_send_frame


cdef enum:                      # work, in quarters of a microsecond or so
    TURN = 2048                 # that one access does; the chip's timer has the rest, others want the device lock
    FRAME = 8                   # of a frame, and one more for 512 bytes of it
    FRAME_BYTES_LOG = 9         # a descriptor is one


cdef class NicPort(NetFrontend):
    cdef void *chip             # borrowed: the chip owns its port


cdef class NicChip(IoRegion):
    cdef readonly bint link_up, plugged, wired
    cdef readonly NicPort port
    cdef readonly object net
    cdef void *backend          # borrowed from `net`
    cdef u32 spent              # of this turn
    cdef void work(self, u32 size) noexcept nogil
    cdef void transmit(self, u8 *frame, u32 size) noexcept nogil
    cdef void burst(self, bint begins) noexcept nogil
    cdef void room(self) noexcept nogil
    cdef bint ready(self) noexcept nogil
    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil
    cdef void cable(self, bint up) noexcept nogil
    cdef void settle_link(self) noexcept nogil
    cdef void link_changed(self) noexcept nogil
    cdef void timed(self, u32 which) noexcept nogil


cdef class NicTimer(Timer):
    cdef void *chip             # borrowed: the chip owns its timers
    cdef u32 which
