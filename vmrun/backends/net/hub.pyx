"""netdev type `hubport`: a hub inside the machine. What comes in at one port goes out at all others.

A port is a card's (its netdev is the port) or another netdev's (`netdev:` of the port): the hub is that one's card then.
"""

from accel.api cimport u8, u32, u64
from accel.dma cimport IoVec
from libc.string cimport memcpy
from vmrun.backends.net.base cimport HostNet
from vmrun.backends.protocols cimport NET_MOST_FRAME, NetFrontend, NetHeader

from vmrun.errors import BackendError

cdef enum:
    MOST_PORTS = 64


cdef class Hub:
    cdef void *ports[MOST_PORTS]
    cdef u32 count
    cdef list kept
    cdef readonly int number

    def __init__(self, number):
        self.number = number
        self.kept = []

    def __len__(self):
        return self.count

    def add(self, HubPort port):
        if self.count == MOST_PORTS:
            return False
        self.kept.append(port)
        self._settle()
        return True

    def remove(self, port):
        if port in self.kept:
            self.kept.remove(port)
            self._settle()

    cdef _settle(self):
        for n, port in enumerate(self.kept):
            self.ports[n] = <void *>port
        self.count = len(self.kept)

    cdef void flood(self, void *source, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        cdef u32 n
        for n in range(self.count):
            if self.ports[n] != source:
                (<HubPort>self.ports[n]).out(frame, length, header)


cdef class HubCard(NetFrontend):
    """The hub as the card of another netdev."""

    cdef HubPort port

    def __init__(self, HubPort port):
        self.port = port

    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        self.port.hub.flood(<void *>self.port, frame, length, header)
        return 1


cdef class HubPort(HostNet):
    cdef Hub hub
    cdef HostNet behind         # the netdev at this port; None: a card
    cdef u8 whole[NET_MOST_FRAME]

    def __init__(self, Hub hub, behind=None):
        self.hub, self.behind = hub, behind
        if not hub.add(self):
            raise BackendError(f"hub {hub.number} has {MOST_PORTS} ports already")
        if behind is not None:
            behind.plug(HubCard(self))

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        """From the card at this port."""
        cdef u64 done = 0
        cdef u32 n
        if count == 1:
            self.hub.flood(<void *>self, <u8 *>pieces[0].base, <u32>total, header)
            return
        for n in range(count):
            memcpy(self.whole + done, pieces[n].base, pieces[n].length)
            done += pieces[n].length
        self.hub.flood(<void *>self, self.whole, <u32>total, header)

    cdef void out(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        """To whoever is at this port."""
        cdef IoVec piece
        if self.behind is not None:
            piece.base, piece.length = <void *>frame, <u64>length
            self.behind.send(&piece, 1, header)
        elif self.frontend is not None:
            self.deliver(frame, length, header)

    def describe(self):
        return f"hub {self.hub.number}"

    def close(self):
        if self.behind is not None:
            self.behind.plug(None)
        self.hub.remove(self)
        HostNet.close(self)


def open(name, spec, host):
    number = int(spec["hubid"])
    hub = host.hubs.get(number)
    if hub is None:
        hub = host.hubs[number] = Hub(number)
    behind = spec.get("netdev")
    with host.lock:
        return HubPort(hub, host.netdev(str(behind)) if behind else None)
