"""A virtio device as its registers show it, compiled: features, status, queues, interrupts, and the layouts of those
registers over PCI, legacy and modern.

Ref: Virtual I/O Device (VIRTIO) 1.1, 2.1 to 2.4 and 4.1; Virtio PCI Card Specification 0.9.5, 2.2 (legacy).

Devices subclass VirtioChip: `kicked(queue)` when the driver put something into a queue, `started()` and `stopped()` when it
begins and ends, `config_written`. They take requests with queue.pop, answer with queue.push, then call interrupt(queue).

Kicks are served by whoever makes them, the device lock held, or on an I/O thread (`serve_on`): there with the device lock,
or, of a device that can (`own_locks`), with a lock of the queue alone, or one of all its queues. Then no processor waits
for a disk's rings, nor they for it.

Locks, in this order: device lock; lock of a queue (several in the order of the queues); mutex of the MSI-X table. Registers,
reset, `started` and `stopped` come with the device lock, the two latter with the locks of all queues too; `kicked` and
whatever answers with the device lock or, of such a device, the queue's. Who holds only a queue's lock never waits for the device
lock: a pin or message that needs it is owed, and paid by whoever comes with it (`pay`), the I/O thread at the latest.
"""

from libc.string cimport memcpy, memset

from accel.api import IrqLine as _IrqLine
from accel.errands import give_back, spare_lock

from vmrun.bus.virtio.ring import VirtQueue as _VirtQueue
from vmrun.core.state import KEEP, U8, U16, U32, U64, Bytes, Flag, Parts, Table
from vmrun.errors import StateError

cdef enum:
    QUEUE_SHIFT = 12            # legacy: rings lie on pages
    ALIGN = 4096
    MOST_SELECT = 1024          # what a queue selector takes, there or not
    BURST = 64                  # requests served at one go, and bytes that they move
    BURST_BYTES = 1 << 20
    # legacy registers
    L_FEATURES = 0
    L_ACCEPTED = 4
    L_PFN = 8
    L_SIZE = 12
    L_SELECT = 14
    L_NOTIFY = 16
    L_STATUS = 18
    L_ISR = 19
    L_CONFIG_VECTOR = 20
    L_QUEUE_VECTOR = 22
    # modern ones
    C_FEATURE_SELECT = 0x00
    C_FEATURES = 0x04
    C_DRIVER_SELECT = 0x08
    C_ACCEPTED = 0x0C
    C_CONFIG_VECTOR = 0x10
    C_QUEUES = 0x12
    C_STATUS = 0x14
    C_GENERATION = 0x15
    C_SELECT = 0x16
    C_SIZE = 0x18
    C_VECTOR = 0x1A
    C_ENABLE = 0x1C
    C_NOTIFY_OFFSET = 0x1E
    C_DESC = 0x20
    C_AVAIL = 0x28
    C_USED = 0x30
    C_NOTIFY_DATA = 0x38
    C_RESET = 0x3A
    ISR_QUEUE = 1
    ISR_CONFIG = 2

cdef extern from *:
    """
    #define vr_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define vr_or(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define vr_take(p) __atomic_exchange_n((p), 0, __ATOMIC_SEQ_CST)
    """
    int vr_load(int *) nogil
    void vr_store(int *, int) nogil
    int vr_take(int *) nogil
    u32 vr_or(u32 *, u32) nogil
    u32 vr_take32 "vr_take"(u32 *) nogil
    u64 vr_or64 "vr_or"(u64 *, u64) nogil
    u64 vr_take64 "vr_take"(u64 *) nogil

cdef u64 NOTIFY_ON_EMPTY = <u64>1 << 24
cdef u64 BAD_FEATURE = <u64>1 << 30
cdef u64 EVENT_IDX = <u64>1 << 29
cdef u64 VERSION_1 = <u64>1 << 32
cdef u64 PACKED = <u64>1 << 34
cdef u64 RING_RESET = <u64>1 << 40


cdef class QueueKick(EventHandler):
    """A kick of one queue, on the I/O thread."""

    def __init__(self, VirtioChip chip, u32 queue):
        EventHandler.__init__(self, locked=not chip.own_locks)
        self.chip, self.queue = <void *>chip, queue

    cdef void kicked(self) noexcept nogil:
        (<VirtioChip>self.chip).take_kick(self.queue)


cdef class Debt(Completion):
    def __init__(self, VirtioChip chip):
        self.chip = <void *>chip

    cdef void complete(self) noexcept nogil:
        (<VirtioChip>self.chip).pay()


cdef class VirtioChip:
    """`sizes`: entries of each queue. `msix` may be None; `intx` is the pin."""

    state = Table(
        "virtio", 1,
        U64("accepted"), U8("status"), U8("isr", most=3), U32("select", most=MOST_SELECT - 1), U32("feature_select"),
        U32("driver_select"), U8("generation"), U16("config_vector", 0xFFFF), Flag("legacy"),
        Bytes("config_bytes", lambda chip: chip.config_size, KEEP), Parts("queues"),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, Dma dma, sizes):
        if not 0 < len(sizes) <= MOST_QUEUES:
            raise ValueError(f"a virtio device has 1 to {MOST_QUEUES} queues, not {len(sizes)}")
        self.dma = dma
        self.queues = [_VirtQueue(dma, n, size) for n, size in enumerate(sizes)]
        self.queue_count = len(sizes)
        for n in range(self.queue_count):
            self.queue_of[n] = <void *>self.queues[n]
        self.intx = _IrqLine()
        self.has_legacy = self.has_modern = True
        self.config_vector = NO_VECTOR
        self.kicks = []

    def connect(self, IrqLine intx, MsixChip msix):
        self.intx, self.msix = intx, msix

    def serve_on(self, IoThread thread, bint offloads, bint own_locks=False):
        """Kicks are served on `thread` from now on: those that an accelerator turns into signals of `kicks` alone, or
        (`offloads`) all. `own_locks`: without the device lock. Before the machine runs; `quit` ends it.
        """
        self.thread, self.offloads, self.own_locks = thread, offloads, own_locks
        self.debt = Debt(self)
        for queue in self.queues:
            queue.lock = self.make_lock() if own_locks else None
            kick = QueueKick(self, queue.number)
            self.kick_of[queue.number] = <void *>kick
            self.kicks.append(kick)
            thread.add(kick)

    def quit(self):
        """Nothing comes from the I/O thread any more. The device lock is held."""
        for kick in self.kicks:
            self.thread.remove(kick)
        if self.debt is not None:
            self.thread.withdraw(self.debt)
        for lock in {queue.lock for queue in self.queues} - {None}:
            give_back(lock)
        for queue in self.queues:
            queue.lock = None
        self.own_locks = self.offloads = False

    # --- for devices --------------------------------------------------------------------------------------

    def make_lock(self):
        """For the next queue. A device whose queues share what they work on gives all of them the same."""
        return spare_lock()

    cdef void kicked(self, u32 queue) noexcept nogil:
        pass

    cdef int serve_chain(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """One request of serve_queue's. 1: it is answered; 0: it will be; -1: out of protocol."""
        return -1

    cdef void serve_queue(self, VirtQueue queue) noexcept nogil:
        """Every request that waits in a queue; with a thread so many at a time, the rest a moment later."""
        cdef Chain chain
        cdef int result
        cdef bint some = False, later = False
        cdef u32 count = 0
        cdef u64 moved = 0
        while self.running:
            if self.has_thread() and (count == BURST or moved >= BURST_BYTES):
                later = True
                break
            chain.count = 0
            result = queue.pop(&chain)
            if result > 0:
                result = self.serve_chain(queue, &chain)
                some = some or result > 0
                count += 1
                moved += chain.read_size + chain.write_size
            if result < 0:
                self.fault()
                break
            if result == 0 and not chain.count:
                break
        if some:
            self.interrupt(queue)
        if later:
            self.serve_later(queue.number)

    cdef void started(self) noexcept nogil:
        """DRIVER_OK: the features are settled."""

    cdef void stopped(self) noexcept nogil:
        """A reset: give up what is in flight."""

    cdef void queue_stopped(self, u32 queue) noexcept nogil:
        """One queue is reset: give up what is in flight of it."""

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """The driver wrote to the device's configuration, which has not changed."""

    cdef void interrupt(self, VirtQueue queue) noexcept nogil:
        """Answers were pushed."""
        if not queue.should_notify():
            return
        vr_or(&self.isr, ISR_QUEUE)
        if not self.own_locks:
            self.raise_vector(queue.vector)
        elif self.msix is not None and self.msix.anywhere() and self.msix.enabled():
            if queue.vector != NO_VECTOR:
                self.msix.notify(queue.vector)
        else:
            vr_or64(&self.owed, <u64>1 << queue.number)
            if not queue.attended:
                self.thread.post(self.debt)

    cdef void pay(self) noexcept nogil:
        """What was owed, with the device lock held."""
        cdef u64 owed
        cdef u32 n
        if vr_take(&self.faulty):
            self.need_reset()
        owed = vr_take64(&self.owed)
        for n in range(self.queue_count):
            if owed >> n & 1:
                self.raise_vector((<VirtQueue>self.queue_of[n]).vector)

    cdef void config_changed(self) noexcept nogil:
        """self.config has changed by itself (a disk was resized). The device lock is held."""
        if self.status & DRIVER_OK:
            self.generation = (self.generation + 1) & 0xFF
            vr_or(&self.isr, ISR_QUEUE | ISR_CONFIG)
            self.raise_vector(self.config_vector)

    cdef void fault(self) noexcept nogil:
        """The driver broke a ring: the device has to be reset."""
        if self.own_locks:
            vr_store(&self.faulty, 1)
            self.thread.post(self.debt)
        else:
            self.need_reset()

    cdef void need_reset(self) noexcept nogil:
        if self.accepted & VERSION_1 and not self.status & NEEDS_RESET:
            self.status |= NEEDS_RESET
            self.config_changed()

    cdef void raise_vector(self, u32 vector) noexcept nogil:
        if self.msix is not None and self.msix.enabled():
            if vector != NO_VECTOR:
                self.msix.notify(vector)
        elif self.isr:
            self.intx.set(1)

    # --- the transport ------------------------------------------------------------------------------------

    cdef void kick(self, u32 queue) noexcept nogil:
        """A processor's, by a register."""
        self.exits += 1
        if queue < self.queue_count and self.running:
            if self.offloads:
                (<QueueKick>self.kick_of[queue]).notifier.signal()
            else:
                self.attend(queue)

    cdef void attend(self, u32 queue) noexcept nogil:
        """Serve a queue here and now, with the device lock held."""
        if not self.own_locks:
            self.kicked(queue)
            return
        (<VirtQueue>self.queue_of[queue]).enter()
        (<VirtQueue>self.queue_of[queue]).attended = True
        self.kicked(queue)
        (<VirtQueue>self.queue_of[queue]).attended = False
        (<VirtQueue>self.queue_of[queue]).leave()
        self.pay()

    cdef void take_kick(self, u32 queue) noexcept nogil:
        """On the I/O thread."""
        (<VirtQueue>self.queue_of[queue]).enter()
        if vr_load(&self.running):
            self.served += 1
            self.kicked(queue)
        (<VirtQueue>self.queue_of[queue]).leave()

    cdef bint has_thread(self) noexcept nogil:
        """Whether serve_later() leads anywhere: a test may do without."""
        return self.thread is not None and self.thread.running

    cdef void serve_later(self, u32 queue) noexcept nogil:
        """The rest of a long queue: after whatever else waits for the I/O thread."""
        (<QueueKick>self.kick_of[queue]).notifier.signal()

    cdef void lock_queues(self, bint lock) noexcept nogil:
        cdef u32 n
        for n in range(self.queue_count):
            if lock:
                (<VirtQueue>self.queue_of[n]).enter()
            else:
                (<VirtQueue>self.queue_of[n]).leave()

    cdef void reset_all(self) noexcept nogil:
        cdef bint ran = self.running
        vr_store(&self.running, 0)                              # who serves a queue leaves it after the request at hand
        self.lock_queues(True)
        if ran:
            self.stopped()
        with gil:
            for queue in self.queues:
                queue.reset()
        self.lock_queues(False)
        self.owed, self.faulty = 0, 0
        if ran and self.on_running is not None:
            with gil:
                self.on_running(False)
        self.accepted = 0
        self.status = self.isr = self.select = 0
        self.config_vector = NO_VECTOR
        self.legacy = False
        self.intx.set(0)

    cdef u64 shown(self, bint legacy) noexcept nogil:
        """What is offered to this kind of driver."""
        return self.offered & ~(self.modern_only if legacy else self.legacy_only)

    cdef void set_status(self, u32 value) noexcept nogil:
        cdef u32 n
        cdef bint begin
        value &= 0xFF
        if value == 0:
            self.reset_all()
            return
        if value & FEATURES_OK and not self.status & FEATURES_OK and not self.legacy:
            if self.accepted & ~self.shown(False):
                value &= ~<u32>FEATURES_OK
        begin = value & DRIVER_OK and not self.status & DRIVER_OK
        self.status = value | (self.status & NEEDS_RESET)
        if begin:
            with gil:
                for queue in self.queues:
                    self._settle(queue)
            self.lock_queues(True)
            vr_store(&self.running, 1)
            self.started()
            self.lock_queues(False)
            if self.on_running is not None:
                with gil:
                    self.on_running(True)
            for n in range(self.queue_count):                   # what was put in before
                if self.offloads:
                    (<QueueKick>self.kick_of[n]).notifier.signal()
                else:
                    self.attend(n)

    cdef void set_legacy_pfn(self, u32 pfn) noexcept nogil:
        cdef u64 base = <u64>pfn << QUEUE_SHIFT
        if pfn == 0:
            self.reset_all()
            return
        (<VirtQueue>self.queue_of[self.select]).enter()
        with gil:
            queue = self.queues[self.select]
            queue.size = queue.most
            queue.desc, queue.avail = base, base + 16 * queue.size
            queue.used = (queue.avail + 6 + 2 * queue.size + ALIGN - 1) & ~(ALIGN - 1)
            queue.ready = True
        (<VirtQueue>self.queue_of[self.select]).leave()

    cdef u32 read_isr(self) noexcept nogil:
        cdef u32 value
        self.pay()                                              # before a processor learns of what was answered
        value = vr_take32(&self.isr)
        self.intx.set(0)
        return value

    cdef u32 vector(self, u32 value) noexcept nogil:
        """A vector as the driver wrote it, or none when there is no such."""
        return value if self.msix is not None and value < self.msix.vectors else NO_VECTOR

    cdef u32 read_config(self, u32 offset, u32 size) noexcept nogil:
        cdef u32 value = 0
        if offset + size <= self.config_size:
            memcpy(&value, self.config + offset, size)
            return value
        return 0xFFFFFFFF

    cdef void write_config(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """What a device does not take in `config_written` is as it was."""
        if offset + size <= self.config_size:
            self.config_written(offset, size, value)

    # --- legacy -------------------------------------------------------------------------------------------

    cdef u32 read_legacy(self, u32 offset, u32 size) noexcept nogil:
        cdef u32 start = L_CONFIG_VECTOR
        cdef u32 value
        if self.msix is not None and self.msix.enabled():
            start += 4
            if L_CONFIG_VECTOR <= offset < start:
                with gil:
                    value = self.config_vector if offset < L_QUEUE_VECTOR else self._queue("vector", NO_VECTOR)
                return value
        if offset >= start:
            return self.read_config(offset - start, size)
        if offset == L_FEATURES:
            return <u32>self.shown(True)
        if offset == L_ACCEPTED:
            return <u32>self.accepted
        if offset == L_SELECT:
            return self.select
        if offset == L_STATUS:
            return self.status
        if offset == L_ISR:
            return self.read_isr()
        if offset == L_PFN or offset == L_SIZE:
            with gil:
                if offset == L_PFN:
                    value = <u32>(<u64>self._queue("desc", 0) >> QUEUE_SHIFT)
                else:
                    value = self._queue("most", 0)
            return value
        return 0xFFFFFFFF

    def _queue(self, name, otherwise):
        return getattr(self.queues[self.select], name) if self.select < self.queue_count else otherwise

    cdef void write_legacy(self, u32 offset, u32 size, u32 value) noexcept nogil:
        cdef u32 start = L_CONFIG_VECTOR
        self.legacy = True
        if self.msix is not None and self.msix.enabled():
            start += 4
            if offset == L_CONFIG_VECTOR:
                self.config_vector = self.vector(value & 0xFFFF)
                return
            if offset == L_QUEUE_VECTOR:
                if self.select < self.queue_count:
                    with gil:
                        self.queues[self.select].vector = self.vector(value & 0xFFFF)
                return
        if offset >= start:
            self.write_config(offset - start, size, value)
        elif offset == L_ACCEPTED:
            if value & BAD_FEATURE:
                value = 0                                       # who takes all takes nothing
            self.accepted = value & self.shown(True)
        elif offset == L_PFN:
            if self.select < self.queue_count:
                self.set_legacy_pfn(value)
        elif offset == L_SELECT:
            if (value & 0xFFFF) < MOST_SELECT:
                self.select = value & 0xFFFF
        elif offset == L_NOTIFY:
            self.kick(value & 0xFFFF)
        elif offset == L_STATUS:
            self.set_status(value)

    # --- modern -------------------------------------------------------------------------------------------

    cdef u32 read_common(self, u32 offset, u32 size) noexcept nogil:
        if offset == C_FEATURE_SELECT:
            return self.feature_select
        if offset == C_FEATURES:
            return <u32>(self.shown(False) >> (32 * self.feature_select)) if self.feature_select < 2 else 0
        if offset == C_DRIVER_SELECT:
            return self.driver_select
        if offset == C_ACCEPTED:
            return <u32>(self.accepted >> (32 * self.driver_select)) if self.driver_select < 2 else 0
        if offset == C_CONFIG_VECTOR:
            return self.config_vector
        if offset == C_QUEUES:
            return self.queue_count
        if offset == C_STATUS:
            return self.status
        if offset == C_GENERATION:
            return self.generation
        if offset == C_SELECT:
            return self.select
        if self.select >= self.queue_count:
            return 0
        with gil:
            return self._read_queue(offset)

    def _read_queue(self, offset):
        queue = self.queues[self.select]
        if offset in (C_DESC, C_AVAIL, C_USED, C_DESC + 4, C_AVAIL + 4, C_USED + 4):
            value = {C_DESC: queue.desc, C_AVAIL: queue.avail, C_USED: queue.used}[offset & ~7]
            return value >> (32 if offset & 4 else 0) & 0xFFFFFFFF
        return {
            C_SIZE: queue.size, C_VECTOR: queue.vector, C_ENABLE: int(queue.ready), C_NOTIFY_OFFSET: self.select,
        }.get(offset, 0)

    cdef void write_common(self, u32 offset, u32 size, u32 value) noexcept nogil:
        if offset == C_FEATURE_SELECT:
            self.feature_select = value
        elif offset == C_DRIVER_SELECT:
            self.driver_select = value
        elif offset == C_ACCEPTED:
            if self.driver_select < 2 and not self.status & FEATURES_OK:
                self.accepted &= ~(<u64>0xFFFFFFFF << (32 * self.driver_select))
                self.accepted |= <u64>value << (32 * self.driver_select)
                self.accepted &= self.shown(False)
        elif offset == C_CONFIG_VECTOR:
            self.config_vector = self.vector(value & 0xFFFF)
        elif offset == C_STATUS:
            self.set_status(value)
        elif offset == C_SELECT:
            if (value & 0xFFFF) < MOST_SELECT:
                self.select = value & 0xFFFF
        elif self.select < self.queue_count:
            (<VirtQueue>self.queue_of[self.select]).enter()
            if offset == C_RESET and value & 0xFFFF == 1 and self.accepted & RING_RESET:
                self.queue_stopped(self.select)
            with gil:
                self._write_queue(offset, value)
            (<VirtQueue>self.queue_of[self.select]).leave()

    def _write_queue(self, offset, value):
        queue = self.queues[self.select]
        low = 0xFFFFFFFF
        if offset == C_SIZE:
            if 0 < value & 0xFFFF <= queue.most and not queue.ready:
                queue.size = value & 0xFFFF
        elif offset == C_VECTOR:
            queue.vector = self.vector(value & 0xFFFF)
        elif offset == C_ENABLE:
            if value & 0xFFFF == 1:
                queue.ready = True
        elif offset == C_RESET:
            if value & 0xFFFF == 1 and self.accepted & RING_RESET:
                queue.reset()
                self._settle(queue)
        elif offset == C_DESC:
            queue.desc = queue.desc & ~low | value
        elif offset == C_DESC + 4:
            queue.desc = queue.desc & low | value << 32
        elif offset == C_AVAIL:
            queue.avail = queue.avail & ~low | value
        elif offset == C_AVAIL + 4:
            queue.avail = queue.avail & low | value << 32
        elif offset == C_USED:
            queue.used = queue.used & ~low | value
        elif offset == C_USED + 4:
            queue.used = queue.used & low | value << 32

    def _settle(self, queue):
        """What the accepted features mean for a queue."""
        queue.packed = bool(self.accepted & PACKED)
        queue.event_idx = bool(self.accepted & EVENT_IDX)
        queue.notify_on_empty = bool(self.accepted & NOTIFY_ON_EMPTY)

    # --- for the glue and for tests -----------------------------------------------------------------------

    def reset(self):
        with nogil:
            self.reset_all()

    def set_config(self, bytes data):
        """What the driver finds in the device's configuration."""
        if len(data) > CONFIG_ROOM:
            raise ValueError(f"{len(data)} bytes are more than {CONFIG_ROOM}")
        memset(self.config, 0, CONFIG_ROOM)
        memcpy(self.config, <const u8 *>data, len(data))
        self.config_size = len(data)

    def get_config(self):
        return bytes(self.config[:self.config_size])

    def tell_config_changed(self):
        with nogil:
            self.config_changed()

    def access(self, u32 offset, u32 size, value=None):
        """One access to the common registers, as the PCI configuration window makes it."""
        if value is None:
            return self.read_common(offset, size)
        self.write_common(offset, size, value)

    @property
    def config_bytes(self):
        return self.get_config()

    @config_bytes.setter
    def config_bytes(self, bytes data):
        self.set_config(data)

    def before_save(self):
        with nogil:
            self.pay()

    def check_state(self, values):
        if values["accepted"] & ~self.offered:
            raise StateError("a virtio device was given features that it does not offer")

    def settle(self):
        """A state was loaded. What a queue holds is served when the machine goes on: its kick may have been lost."""
        cdef bint runs = self.status & DRIVER_OK != 0
        with nogil:
            self.lock_queues(True)
            if self.running:
                vr_store(&self.running, 0)
                self.stopped()
            self.owed, self.faulty = 0, 0
        for queue in self.queues:
            self._settle(queue)
        with nogil:
            vr_store(&self.running, runs)
            if runs:
                self.started()
            self.lock_queues(False)
        if self.on_running is not None:
            self.on_running(runs)
        for kick in self.kicks if runs else ():
            kick.notifier.notify()
        self.intx.drive(int(self.isr != 0 and (self.msix is None or not self.msix.enabled())))


cdef class VirtioRegion(IoRegion):
    def __init__(self, VirtioChip chip):
        self.chip = chip


cdef class LegacyRegion(VirtioRegion):
    """The legacy registers, in a port BAR."""

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_legacy(<u32>offset, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.chip.write_legacy(<u32>offset, size, <u32>value)
        return 0


cdef class CommonRegion(VirtioRegion):
    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_common(<u32>offset, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.chip.write_common(<u32>offset, size, <u32>value)
        return 0


cdef class IsrRegion(VirtioRegion):
    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_isr() if offset == 0 else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return 0


cdef class ConfigRegion(VirtioRegion):
    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_config(<u32>offset, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.chip.write_config(<u32>offset, size, <u32>value)
        return 0


cdef class NotifyRegion(VirtioRegion):
    """A write at queue * multiplier, whatever the value."""

    def __init__(self, VirtioChip chip, u32 multiplier):
        self.chip = chip
        self.multiplier = multiplier

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.chip.kick(<u32>offset // self.multiplier)
        return 0


cdef class NotifyPort(VirtioRegion):
    """A port that takes the number of the queue."""

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.chip.kick(<u32>value)
        return 0
