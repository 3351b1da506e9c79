"""The qtest protocol's lines: what is asked often is parsed and answered here, without the GIL; `rare` does the rest.

A line is a command and its words; the answer is a line that begins with OK or FAIL. Numbers are decimal, 0x hexadecimal
or octal with a leading 0. What a command makes interrupt pins do is told before its answer.
"""

from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from accel.api cimport ACTION_NONE, DeviceLock, IrqFan, IrqLine, IrqSink, Notifier, u8, u32, u64
from accel.clock cimport SteppedClock, TimerQueue
from accel.errands cimport ErrandLock
from accel.space cimport AddressSpace

ctypedef long long i64
cdef u64 MAX_LINE = 4 << 20
cdef i64 LAST = 0x7FFFFFFFFFFFFFFF


cdef const char *_word(const char *p, const char *end, const char **stop) noexcept nogil:
    """The next word before `end`; NULL when there is none."""
    while p < end and p[0] == 32:
        p += 1
    if p == end:
        return NULL
    stop[0] = p
    while stop[0] < end and stop[0][0] != 32:
        stop[0] += 1
    return p


cdef bint _number(const char *p, const char *end, u64 *value) noexcept nogil:
    cdef u64 base = 10, digit, result = 0
    if end - p > 2 and p[0] == 48 and (p[1] == 120 or p[1] == 88):
        base = 16
        p += 2
    elif end - p > 1 and p[0] == 48:
        base = 8
        p += 1
    if p == end:
        return False
    while p < end:
        digit = <u64>p[0]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= (digit | 32) <= 102:
            digit = (digit | 32) - 87
        else:
            return False
        if digit >= base or result > (<u64>-1 - digit) // base:
            return False
        result = result * base + digit
        p += 1
    value[0] = result
    return True


cdef u32 _size(char letter) noexcept nogil:
    return 1 if letter == 98 else 2 if letter == 119 else 4 if letter == 108 else 8 if letter == 113 else 0


cdef class QtestLines:
    """`feed(bytes)` → bytes. `rare(words)` gives the answer to other commands, without its newline; `on_action(actions)`
    hears what writes ask of the machine. `notifier` is signalled when a pin changes outside of a command; take() gives
    the lines then. `clock` None: this machine's time moves by itself.
    """

    cdef AddressSpace memory, io
    cdef DeviceLock lock
    cdef bint puts_off
    cdef TimerQueue timers
    cdef SteppedClock clock
    cdef readonly Notifier notifier
    cdef object rare, on_action
    cdef char *out
    cdef size_t used, room
    cdef u32 actions
    cdef bint inside, broken, dropping
    cdef bytes tail
    cdef list probes

    def __init__(self, AddressSpace memory, AddressSpace io, DeviceLock lock, TimerQueue timers,
                 SteppedClock clock or None, rare, on_action):
        self.memory, self.io, self.lock, self.timers, self.clock = memory, io, lock, timers, clock
        self.puts_off = isinstance(lock, ErrandLock)
        self.rare, self.on_action = rare, on_action
        self.notifier = Notifier()
        self.tail = b""
        self.probes = []

    def __dealloc__(self):
        free(self.out)

    # --- output; all with the device lock held ----------------------------------------------------------------

    cdef void put(self, const char *data, size_t count) noexcept nogil:
        cdef char *grown
        if self.used + count > self.room:
            grown = <char *>realloc(self.out, 2 * (self.used + count) + 4096)
            if grown == NULL:
                return
            self.out = grown
            self.room = 2 * (self.used + count) + 4096
        memcpy(self.out + self.used, data, count)
        self.used += count

    cdef void tell(self, u32 n, int level) noexcept nogil:
        cdef char text[40]
        cdef int count
        if self.used > MAX_LINE:  # nobody takes what is told
            return
        count = snprintf(text, 40, b"IRQ raise %u\n" if level else b"IRQ lower %u\n", n)
        self.put(text, count)
        if not self.inside:
            self.notifier.signal()

    def take(self):
        """What waits to be sent."""
        with self.lock:
            data = self.out[:self.used] if self.used else b""
            self.used = 0
        return data

    # --- input --------------------------------------------------------------------------------------------------

    def feed(self, bytes data):
        cdef const char *p
        cdef const char *end
        cdef const char *stop
        if self.dropping:
            place = data.find(b"\n")
            if place < 0:
                return b""
            data = data[place + 1:]
            self.dropping = False
        if self.tail:
            data = self.tail + data
            self.tail = b""
        p = data
        end = p + len(data)
        while p < end:
            with nogil:
                self.lock.acquire()
                self.inside = True
                p = self.often(p, end)
                self.inside = False
                self.lock.release()
            if self.actions:
                actions, self.actions = self.actions, ACTION_NONE
                self.on_action(actions)
                continue
            if p == end:
                break
            stop = <const char *>memchr(p, 10, end - p)
            if stop == NULL:
                self.tail = p[:end - p]
                if len(self.tail) > <Py_ssize_t>MAX_LINE:
                    self.tail = b""
                    self.dropping = True
                    self.answer(b"FAIL the line is too long")
                break
            line = p[:stop - p]
            p = stop + 1
            self.inside = True
            try:
                answer = self.rare(line)
            finally:
                self.inside = False
            if answer:
                self.answer(answer)
        return self.take()

    cdef answer(self, bytes text):
        with self.lock:
            self.put(text, len(text))
            self.put(b"\n", 1)

    cdef const char *often(self, const char *p, const char *end) noexcept nogil:
        """Lines that are dealt with here, up to one that is not or asks something of the machine. Where it stopped. What an
        access puts off is done before the next one, as when a processor lets the lock go.
        """
        cdef const char *stop
        while p < end and not self.actions:
            stop = <const char *>memchr(p, 10, end - p)
            if stop == NULL or not self.one(p, stop if stop == p or (stop - 1)[0] != 13 else stop - 1):
                break
            p = stop + 1
            if self.puts_off and (<ErrandLock>self.lock).count:
                self.lock.release()
                self.lock.acquire()
        return p

    cdef bint one(self, const char *p, const char *end) noexcept nogil:
        """in, out, read and write of a size. False: another command, or something is wrong with it."""
        cdef const char *stop
        cdef const char *word = _word(p, end, &stop)
        cdef u64 addr, value = 0
        cdef u32 size
        cdef bint ports, write
        cdef char text[40]
        if word == NULL:
            return False
        if stop - word == 3 and memcmp(word, b"in", 2) == 0:
            ports, write = True, False
        elif stop - word == 4 and memcmp(word, b"out", 3) == 0:
            ports, write = True, True
        elif stop - word == 5 and memcmp(word, b"read", 4) == 0:
            ports, write = False, False
        elif stop - word == 6 and memcmp(word, b"write", 5) == 0:
            ports, write = False, True
        else:
            return False
        size = _size((stop - 1)[0])
        if not size or (ports and size == 8):
            return False
        word = _word(stop, end, &stop)
        if word == NULL or not _number(word, stop, &addr):
            return False
        if addr > (<u64>0xFFFF if ports else <u64>0 - size):
            return False
        if write:
            word = _word(stop, end, &stop)
            if word == NULL or not _number(word, stop, &value):
                return False
        if _word(stop, end, &stop) != NULL:
            return False
        if write:
            if size < 8:
                value &= (<u64>1 << 8 * size) - 1
            self.actions |= self.io.store(addr, size, value) if ports else self.memory.store(addr, size, value)
            self.due()
            self.put(b"OK\n", 3)
        elif ports:
            value = self.io.load(addr, size)
            self.due()
            self.put(text, snprintf(text, 40, b"OK 0x%04llx\n", value))
        else:
            value = self.memory.load(addr, size)
            self.due()
            self.put(text, snprintf(text, 40, b"OK 0x%016llx\n", value))
        return True

    # --- time -------------------------------------------------------------------------------------------------

    cdef void due(self) noexcept nogil:
        """Timers that an access has armed for now."""
        cdef i64 first
        if self.clock is not None:
            first = self.timers.next_deadline()
            if 0 <= first <= self.clock.value:
                self.timers.run_expired(self.clock.value)

    def settle(self):
        """The same, after an access from outside."""
        with self.lock:
            self.due()

    def now(self):
        return self.clock.value

    def step(self, ns=None):
        """Let time pass: `ns`, or up to the next timer; each timer runs at its own moment. The new time.

        ValueError: there is no next timer, or time would end.
        """
        cdef i64 target, first, ran = 0
        with self.lock:
            if ns is None:
                first = self.timers.next_deadline()
                target = first if first > self.clock.value else self.clock.value
            else:
                if not 0 <= ns <= LAST - self.clock.value:
                    raise ValueError("time does not go so far")
                target = self.clock.value + <i64>ns
            with nogil:
                while True:
                    first = self.timers.next_deadline()
                    if first < 0 or first > target:
                        break
                    if first > self.clock.value:
                        self.clock.value = first
                        ran = 0
                    ran += self.timers.run_expired(self.clock.value)
                    if ran > 1000000:  # timers that arm themselves for the same moment, for ever
                        break
                self.clock.value = target
        return target

    # --- interrupts -------------------------------------------------------------------------------------------

    def listen(self, list lines, list numbers):
        """From now on changes of these lines are told, each under its number. They lead where they led."""
        cdef IrqLine line
        with self.lock:
            for line, number in zip(lines, numbers):
                line.sink = _Probe(self, line.sink, number)

    @staticmethod
    def lines_to(roots, IrqSink sink):
        """[(line, input)]: every line that ends in `sink`, of those that start at `roots` (lines and fans)."""
        found, seen, todo = [], set(), list(roots)
        cdef IrqLine line
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, IrqFan):
                for targets in (<IrqFan>node).targets:
                    todo += targets
                continue
            line = node
            if line.sink is sink:
                found.append((line, line.n))
            elif isinstance(line.sink, IrqFan):
                todo.append(line.sink)
        return found


cdef class _Probe(IrqSink):
    """Stands where a line ended, tells and passes on."""

    cdef QtestLines owner
    cdef IrqSink sink
    cdef u32 number

    def __init__(self, QtestLines owner, IrqSink sink, u32 number):
        self.owner, self.sink, self.number = owner, sink, number

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.sink.set_irq(n, level)
        self.owner.tell(self.number, level)
