"""Queues of an NVM Express controller: doorbells, commands fetched, answers posted, interrupts, and who guards what.

Ref: NVM Express 1.4, 4.1 (queues), 7.5 (interrupts); command 7Ch for shadow doorbells.

A doorbell is served at once, on the processor that rings it, with the device lock held; or, when the driver has given the
addresses of shadow doorbells (command 7Ch) and the accelerator makes signals of them, on the I/O thread, which finds in
the shadow how far the queue goes: the value that was written is nobody's then. A command is fetched when its
completion queue has room for the answer. So many are served at one go; the I/O thread has the rest a moment later.

Locks, in this order: device lock; lock of a completion queue, which guards the submission queues that lead to it too (all in
the order of the queues); `pool` and the MSI-X table's mutex. Registers, the admin queue, reset, saving and loading have the device
lock, and take those of all queues for what all of them see: which queues there are, formats, sizes, features. Doorbells
of the I/O thread and the drive's completions have a queue's alone and never wait for the device lock: a pin or a
message that needs it is owed, and paid by whoever comes with it (`pay`). Where no thread serves doorbells the queues have no locks
of their own, and the device lock is held for everything.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from accel.turns cimport turn_of
from accel.api cimport DeviceLock
from accel.threads cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from vmrun.backends.protocols cimport block_release

from accel.dma import Scatter as _Scatter
from accel.errands import give_back, spare_lock

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
    u64 vr_or64 "vr_or"(u64 *, u64) nogil
    u64 vr_take64 "vr_take"(u64 *) nogil

cdef enum:
    MOST_PIECES = 1040
    BURST = 64                  # commands served at one go, and bytes that they move
    BURST_BYTES = 1 << 20


cdef class NvmeDoorbell(EventHandler):
    """A doorbell that is rung without an exit, on the I/O thread without the device lock."""

    def __init__(self, NvmeQueues chip, u32 number):
        EventHandler.__init__(self, locked=False)
        self.chip, self.number = <void *>chip, number

    cdef void kicked(self) noexcept nogil:
        (<NvmeQueues>self.chip).ring(self.number)


cdef void _go_on(void *chip) noexcept nogil:
    """What a burst left over."""
    (<NvmeQueues>chip).serve_rest()


cdef class NvmeDebt(Completion):
    def __init__(self, NvmeQueues chip):
        self.chip = <void *>chip

    cdef void complete(self) noexcept nogil:
        (<NvmeQueues>self.chip).pay()


cdef class NvmeQueues(IoRegion):
    """A controller derives from it: `execute` a command, `over` with what the drive has done."""

    def __cinit__(self, *args, **kwargs):
        cdef u32 n
        pthread_mutex_init(&self.pool, NULL)
        self.places = <Place *>calloc(PLACES, sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        for n in range(PLACES):
            self.places[n].next = self.free
            self.free = &self.places[n]

    def __init__(self, Dma dma, IrqLine intx, u32 queues):
        cdef u32 n
        self.dma, self.intx = dma, intx
        self.queue_count = queues
        self.locks, self.scatters = [], [_Scatter(dma, MOST_PIECES)]
        for n in range(QUEUES):
            self.side[n].scatter = <void *>self.scatters[0]

    def __dealloc__(self):
        cdef u32 n
        if self.places != NULL:
            for n in range(PLACES):
                free(self.places[n].ranges)
        free(self.places)
        pthread_mutex_destroy(&self.pool)

    def serve_on(self, IoThread thread, on_bells=None):
        """The rest of a long queue is `thread`'s. With `on_bells`, doorbells of queues for I/O may be rung by signals of
        `bells` there, once the driver has shadows of them: on_bells([(offset, notifier)]) hears which. Before the machine runs.
        """
        self.thread, self.on_bells = thread, on_bells
        self.later, self.debt = turn_of(self, _go_on), NvmeDebt(self)
        thread.add(self.later)
        if on_bells is None:
            return
        self.own_locks = True
        self.bells = [NvmeDoorbell(self, number) for number in range(2 * self.queue_count)]
        for number, bell in enumerate(self.bells):
            self.bell_of[number] = <void *>bell
            thread.add(bell)
        for number in range(1, self.queue_count):               # the admin queue is the device lock's
            self.locks.append(spare_lock())
            self.scatters.append(_Scatter(self.dma, MOST_PIECES))
            self.side[number].lock = <void *>self.locks[number - 1]
            self.side[number].scatter = <void *>self.scatters[number]

    def detach_thread(self):
        """Nothing comes from the I/O thread any more; nothing is under way. The device lock is held."""
        cdef u32 n
        for bell in self.bells or ():
            self.thread.remove(bell)
        if self.thread is not None:
            self.thread.remove(self.later)
            self.thread.withdraw(self.debt)
        for n in range(QUEUES):
            self.side[n].lock = NULL
        for lock in self.locks:
            give_back(lock)
        self.locks, self.bells, self.own_locks, self.thread = [], None, False, None

    # --- locks ------------------------------------------------------------------------------------------------

    cdef void enter(self, u32 completion) noexcept nogil:
        """Take a queue's lock, if it has one, and look memory up without the device lock."""
        if self.side[completion].lock != NULL:
            (<DeviceLock>self.side[completion].lock).acquire()
            self.dma.space.enter()

    cdef void leave(self, u32 completion) noexcept nogil:
        if self.side[completion].lock != NULL:
            self.dma.space.leave()
            (<DeviceLock>self.side[completion].lock).release()

    cdef void enter_all(self) noexcept nogil:
        """No layout may change until leave_all()."""
        cdef u32 n
        for n in range(self.queue_count):
            self.enter(n)

    cdef void leave_all(self) noexcept nogil:
        cdef u32 n
        for n in range(self.queue_count):
            self.leave(n)
        if self.moved_bells:
            self.moved_bells = False
            self.hang_bells()

    cdef bint has_thread(self) noexcept nogil:
        """Whether serve_later() leads anywhere: a test may do without."""
        return self.thread is not None and self.thread.running

    # --- doorbells --------------------------------------------------------------------------------------------

    cdef void doorbell(self, u64 offset, u32 value) noexcept nogil:
        """A register is written."""
        cdef u32 queue = <u32>(offset >> 3), side
        if offset & 3 or not self.csts & CSTS_READY:
            return
        if queue >= self.queue_count or not (self.completion[queue].used if offset & 4 else self.submission[queue].used):
            self.event(0, 0, 1)                                 # error: a doorbell of no queue
            return
        if value >= (self.completion[queue].size if offset & 4 else self.submission[queue].size):
            self.event(0, 1, 1)
            return
        side = queue if offset & 4 else self.submission[queue].completion
        self.enter(side)
        self.side[side].attended = True
        if offset & 4:
            self.completion[queue].head = value
            self.head_moved(queue)
        else:
            self.submission[queue].tail = value
            self.serve(queue)
        self.side[side].attended = False
        self.leave(side)
        if self.owed:
            self.pay()

    cdef void head_moved(self, u32 queue) noexcept nogil:
        """The driver has taken answers."""
        cdef CompletionQueue *cq = &self.completion[queue]
        if cq.head == cq.tail and cq.interrupts and not self.msix.enabled():
            self.owe(queue)
        elif cq.head != cq.tail:
            self.side[queue].told = True
        self.serve_all(queue)
        if self.side[queue].told and cq.head != cq.tail:
            self.tell(queue)

    cdef void ring(self, u32 number) noexcept nogil:
        """On the I/O thread; the queue may be gone by now, or another."""
        cdef u32 queue = number >> 1
        cdef u32 side = queue if number & 1 else self.submission[queue].completion
        self.enter(side)
        if self.csts & CSTS_READY and (self.shadow or self.rest[queue]):
            self.rung += 1
            if number & 1:
                if self.completion[queue].used:
                    self.shadow_head(queue)
                    self.head_moved(queue)
            elif self.submission[queue].used and self.submission[queue].completion == side:
                self.serve(queue)
        self.leave(side)

    cdef void serve_rest(self) noexcept nogil:
        """On the I/O thread, with the device lock."""
        cdef u32 n, side
        for n in range(self.queue_count):
            if vr_load(&self.rest[n]) and self.submission[n].used:
                side = self.submission[n].completion
                self.enter(side)
                self.side[side].attended = True
                self.serve(n)
                self.side[side].attended = False
                self.leave(side)
        if self.owed:
            self.pay()

    cdef void hang_bells(self) noexcept nogil:
        """Other doorbells than before need no exit."""
        if self.bells is not None:
            with gil:
                self._tell_bells()

    def _tell_bells(self):
        used = [number for number in range(2, 2 * self.queue_count) if
                (self.completion[number >> 1].used if number & 1 else self.submission[number >> 1].used)]
        self.on_bells([(DOORBELLS + 4 * number, self.bells[number].notifier) for number in used if self.shadow])

    # --- queues -----------------------------------------------------------------------------------------------

    cdef u32 room(self, u32 queue) noexcept nogil:
        """Answers that a completion queue can take beside those that are still to come."""
        cdef CompletionQueue *cq = &self.completion[queue]
        cdef u32 used = cq.tail - cq.head if cq.tail >= cq.head else cq.tail + cq.size - cq.head
        used += self.side[queue].waiting
        return cq.size - 1 - used if used < cq.size else 0

    cdef u32 shadow_tail(self, u32 queue) noexcept nogil:
        """With shadow doorbells: the driver's tail, after it was told up to where we have looked."""
        cdef SubmissionQueue *sq = &self.submission[queue]
        cdef u32 tail = sq.tail
        self.dma.write_from(self.at(self.event_index + 8 * queue), <u8 *>&tail, 4)
        if self.dma.read_into(self.at(self.shadow + 8 * queue), <u8 *>&tail, 4) == 0 and tail < sq.size:
            sq.tail = tail
        return sq.tail

    cdef void shadow_head(self, u32 queue) noexcept nogil:
        cdef CompletionQueue *cq = &self.completion[queue]
        cdef u32 head = cq.head
        self.dma.write_from(self.at(self.event_index + 8 * queue + 4), <u8 *>&head, 4)
        if self.dma.read_into(self.at(self.shadow + 8 * queue + 4), <u8 *>&head, 4) == 0 and head < cq.size:
            cq.head = head

    cdef void serve_all(self, u32 completion) noexcept nogil:
        """A completion queue has room again: its submission queues go on."""
        cdef u32 n
        for n in range(self.queue_count):
            if self.submission[n].used and self.submission[n].completion == completion:
                self.serve(n)

    cdef void serve(self, u32 queue) noexcept nogil:
        """What a submission queue holds, as far as there is room for answers."""
        cdef SubmissionQueue *sq = &self.submission[queue]
        cdef Command command
        cdef u32 rounds = 0, completion = sq.completion
        cdef Side *side = &self.side[completion]
        if self.shadow and queue:
            self.shadow_tail(queue)
            self.shadow_head(completion)
        if side.serving:
            return
        side.serving = True
        side.moved = 0
        vr_store(&self.rest[queue], 0)
        while sq.used and sq.head != sq.tail and rounds < MOST_ENTRIES:
            if (rounds >= BURST or side.moved >= BURST_BYTES) and self.has_thread():
                self.serve_later(queue)
                break
            rounds += 1
            if not self.room(completion):
                break
            if side.place == NULL:
                side.place = self.take_place(queue)
                if side.place == NULL:                          # put_back() has it said by now
                    break
            at = self.at(sq.addr + <u64>sq.head * sizeof(Command))
            if self.dma.read_into(at, <u8 *>&command, sizeof(Command)) != 0:
                vr_or(&self.csts, CSTS_FATAL)
                break
            sq.head = 0 if sq.head + 1 == sq.size else sq.head + 1
            self.execute(queue, &command)
            if self.shadow and queue and sq.head == sq.tail:
                self.shadow_tail(queue)
        side.serving = False
        if side.place != NULL:
            self.put_back(side.place)
            side.place = NULL
        if queue == 0:
            self.send_events()
        if self.completion[completion].used and side.told:
            self.tell(completion)

    cdef void serve_later(self, u32 queue) noexcept nogil:
        """Go on with it after whatever else waits for the I/O thread."""
        vr_store(&self.rest[queue], 1)
        if self.side[self.submission[queue].completion].lock != NULL:
            (<NvmeDoorbell>self.bell_of[2 * queue]).notifier.signal()
        else:
            self.later.notifier.signal()

    cdef u64 at(self, u64 address) noexcept nogil:
        """Where on the bus a guest's address is: it may be in the controller's own memory."""
        return address if self.memory is None else self.memory.place(address)

    cdef int execute(self, u32 queue, Command *c) noexcept nogil:
        return OK

    cdef void over(self, Place *place) noexcept nogil:
        pass

    cdef void event(self, u32 kind, u32 info, u32 page) noexcept nogil:
        pass

    cdef void send_events(self) noexcept nogil:
        pass

    cdef void post(self, u32 queue, u16 id, u32 status, u32 result) noexcept nogil:
        """A completion, for which there is room."""
        cdef SubmissionQueue *sq = &self.submission[queue]
        cdef CompletionQueue *cq = &self.completion[sq.completion]
        cdef u32 entry[4]
        cdef u64 at = self.at(cq.addr + <u64>cq.tail * 16)
        entry[0], entry[1], entry[2] = result, 0, sq.head | queue << 16
        entry[3] = id | (status << 1 | (1 if cq.phase else 0)) << 16
        self.dma.write_from(at, <u8 *>entry, 12)
        self.dma.write_from(at + 12, <u8 *>&entry[3], 4)        # the phase last: a driver may be looking
        cq.tail += 1
        if cq.tail == cq.size:
            cq.tail = 0
            cq.phase = not cq.phase
        self.side[sq.completion].told = True

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef void tell(self, u32 number) noexcept nogil:
        """A completion queue has answers."""
        cdef CompletionQueue *cq = &self.completion[number]
        cdef bint held = self.side[number].lock == NULL or self.side[number].attended
        self.side[number].told = False
        if not cq.interrupts:
            return
        if self.msix.enabled() and (held or self.msix.anywhere()):
            self.msix.notify(cq.vector)
        elif held and not self.msix.enabled():
            self.raised |= <u32>1 << (cq.vector & 31)
            self.check_pin()
        else:
            self.owe(number)

    cdef void owe(self, u32 number) noexcept nogil:
        """The pin, or a message, of a completion queue is to be seen to with the device lock."""
        if self.side[number].lock == NULL:
            self.raised &= ~(<u32>1 << (self.completion[number].vector & 31))
            self.check_pin()
            return
        vr_or64(&self.owed, <u64>1 << (number - 1))
        if not self.side[number].attended:
            self.thread.post(self.debt)

    cdef void pay(self) noexcept nogil:
        """What was owed, with the device lock held: a message, or the pin as the queue is now."""
        cdef u64 owed = vr_take64(&self.owed)
        cdef CompletionQueue *cq
        cdef u32 n
        for n in range(1, self.queue_count):
            if not owed >> (n - 1) & 1:
                continue
            self.enter(n)
            cq = &self.completion[n]
            if cq.used and cq.interrupts:
                if self.msix.enabled():
                    self.msix.notify(cq.vector)
                elif cq.head != cq.tail:
                    self.raised |= <u32>1 << (cq.vector & 31)
                else:
                    self.raised &= ~(<u32>1 << (cq.vector & 31))
            self.leave(n)
        if owed:
            self.check_pin()

    cdef void check_pin(self) noexcept nogil:
        if self.msix is None or not self.msix.enabled():
            self.intx.set(1 if self.raised & ~self.mask else 0)

    # --- commands under way -----------------------------------------------------------------------------------

    cdef Place *take_place(self, u32 queue) noexcept nogil:
        """For the next command of this queue; NULL: there is none, and the queue is served when one comes back."""
        cdef Place *place
        pthread_mutex_lock(&self.pool)
        place = self.free
        if place != NULL:
            self.free = place.next
            self.in_flight += 1
        else:
            self.short = True
            vr_store(&self.rest[queue], 1)
        pthread_mutex_unlock(&self.pool)
        return place

    cdef void put_back(self, Place *place) noexcept nogil:
        cdef bint short
        free(place.ranges)
        place.ranges = NULL
        pthread_mutex_lock(&self.pool)
        place.request, place.queue = NULL, QUEUES
        place.next = self.free
        self.free = place
        self.in_flight -= 1
        short, self.short = self.short, False
        pthread_mutex_unlock(&self.pool)
        if short and self.later is not None:
            self.later.notifier.signal()

    cdef void drop(self, u32 queue) noexcept nogil:
        """Give up what a submission queue has under way."""
        cdef u32 n
        if not self.in_flight:
            return
        for n in range(PLACES):
            if self.places[n].queue == queue and self.places[n].request != NULL:
                self.forget(&self.places[n])

    cdef void drop_space(self, void *space) noexcept nogil:
        """Give up what a namespace has under way."""
        cdef u32 n
        for n in range(PLACES):
            if self.places[n].space == space and self.places[n].request != NULL:
                self.forget(&self.places[n])

    cdef void forget(self, Place *place) noexcept nogil:
        cdef BlockRequest *request = place.request
        cdef void *drive = place.drive
        self.side[self.submission[place.queue].completion].waiting -= 1
        self.put_back(place)
        block_release(drive, request)

    cdef void drop_all(self) noexcept nogil:
        cdef u32 n
        for n in range(QUEUES):
            self.drop(n)
            self.side[n].waiting, self.side[n].told = 0, False
            vr_store(&self.rest[n], 0)
