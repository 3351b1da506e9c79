"""All that a device may see of the machine around it.

Regions answer accesses, lines carry interrupts, rings carry bytes to a back end, a notifier wakes a thread.
Every method that a vCPU thread can reach is `nogil`; the classes named Py… call Python and take the GIL.

Locks: one DeviceLock per machine. Dispatch, timers and back-end completions hold it. A thread never waits for
it while it holds the GIL (acquire from Python drops the GIL first), so the order is always lock, then GIL.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.unistd cimport close, read as posix_read, write as posix_write

import sys

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int EFD_NONBLOCK
    int EFD_CLOEXEC

from accel.threads cimport (
    PTHREAD_MUTEX_RECURSIVE, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    pthread_mutexattr_init, pthread_mutexattr_settype, pthread_mutexattr_t,
)


class Action:
    """What an access asks of the machine; flags, or-ed. Performed after the device lock is dropped."""

    NONE = ACTION_NONE
    RESET = ACTION_RESET          # system reset
    SHUTDOWN = ACTION_SHUTDOWN    # the guest switched its power off
    POWERDOWN = ACTION_POWERDOWN
    SUSPEND = ACTION_SUSPEND      # ACPI S3
    PANIC = ACTION_PANIC          # the guest told us that it crashed
    EXIT = ACTION_EXIT            # isa-debug-exit: the code is the device's
    INIT = ACTION_INIT            # INIT# to the processors (keyboard controller, port 92)
    WAKEUP = ACTION_WAKEUP        # out of S3, if the machine is in it
    WATCHDOG = ACTION_WATCHDOG    # a watchdog timer ran out
    IO_ERROR = ACTION_IO_ERROR    # stop: a disk request failed, and its drive's policy says so


on_callback_error = None
# (who, type of exception, file, line) → how often
_reported = {}
MOST_REPORTED = 256


def _report(where, exc):
    """A device's Python callback raised: a bug of ours. The guest sees all ones; the developer sees this.

    Once: a guest that does it again and again fills no log. `where` begins with who it was, up to a colon.
    """
    at = exc.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = ("", 0) if at is None else (at.tb_frame.f_code.co_filename, at.tb_lineno)
    key = (where.partition(":")[0], type(exc), *place)
    if key in _reported:
        _reported[key] += 1
        return
    if len(_reported) == MOST_REPORTED:
        return
    _reported[key] = 1
    handler = on_callback_error
    if handler is not None:
        handler(where, exc)
    else:
        print(f"vmrun: internal error in {where}: {exc!r}", file=sys.stderr)


def set_callback_error_handler(handler):
    """handler(where: str, exc: BaseException), or None for standard error. What was reported before is new again."""
    global on_callback_error
    on_callback_error = handler
    _reported.clear()


def callback_errors():
    """How many callbacks have raised, those that were not reported included."""
    return sum(_reported.values())


cdef class Notifier:
    """An eventfd: `signal` from any thread without the GIL, `fileno` for the main loop. Raises OSError when fds run out."""

    def __cinit__(self):
        self.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.fd < 0:
            raise OSError("eventfd: out of file descriptors")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self):
        return self.fd

    cdef void signal(self) noexcept nogil:
        cdef u64 one = 1
        posix_write(self.fd, &one, 8)

    cdef void clear(self) noexcept nogil:
        cdef u64 count
        posix_read(self.fd, &count, 8)

    def notify(self):
        self.signal()

    def drain(self):
        self.clear()


cdef class DeviceLock:
    """Recursive; a context manager in Python. Taken before the GIL, never while holding it."""

    def __cinit__(self):
        cdef pthread_mutexattr_t attr
        pthread_mutexattr_init(&attr)
        pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE)
        pthread_mutex_init(&self.mutex, &attr)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    cdef void acquire(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)

    cdef void release(self) noexcept nogil:
        pthread_mutex_unlock(&self.mutex)

    def __enter__(self):
        with nogil:
            pthread_mutex_lock(&self.mutex)
        return self

    def __exit__(self, *exc):
        pthread_mutex_unlock(&self.mutex)
        return False


cdef class IoRegion:
    """What answers a range of addresses. Subclasses override `read` and `write`; `write` returns an Action.

    Offsets are within the region, sizes 1, 2, 4 or 8 and never above `max_access`; a smaller access than
    `min_access` arrives widened on reads (the dispatcher masks the answer) and as it is on writes. One that is wider
    than `widest` is not split: nobody answers it, as on qemu-kvm's boards for devices that decode words at most;
    accel.space.ALONE there takes accesses beyond the region's end too.
    """

    def __cinit__(self, *args, **kwargs):
        self.min_access = 1
        self.max_access = 4
        self.widest = 8
        self.name = type(self).__name__

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return <u64>-1

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return ACTION_NONE

    cdef u32 read_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        """`rep ins`: `count` items of `size` bytes from one offset. Returns an Action."""
        cdef u32 i
        cdef u64 value
        for i in range(count):
            value = self.read(offset, size)
            memcpy(data + i * size, &value, size)
        return ACTION_NONE

    cdef u32 write_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef u32 i, action = ACTION_NONE
        cdef u64 value
        for i in range(count):
            value = 0
            memcpy(&value, data + i * size, size)
            action |= self.write(offset, size, value)
        return action

    def load(self, u64 offset, u32 size):
        """One read as the dispatcher would make it, from Python (tests, monitor)."""
        cdef u64 value
        with nogil:
            value = self.read(offset, size)
        return value if size >= 8 else value & ((<u64>1 << (8 * size)) - 1)

    def store(self, u64 offset, u32 size, u64 value):
        """One write; returns the Action."""
        cdef u32 action
        with nogil:
            action = self.write(offset, size, value)
        return action


cdef class PyIoRegion(IoRegion):
    """A region in plain Python: `read(offset, size) -> int`, `write(offset, size, value) -> Action | None`."""

    def __init__(self, str name, read=None, write=None, u32 min_access=1, u32 max_access=4, u32 widest=8):
        self.name = name
        self.widest = widest
        self.on_read = read
        self.on_write = write
        self.min_access = min_access
        self.max_access = max_access

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.call_read(offset, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return self.call_write(offset, size, value)

    cdef u64 call_read(self, u64 offset, u32 size) noexcept with gil:
        if self.on_read is None:
            return <u64>-1
        try:
            return <u64>(self.on_read(offset, size) & 0xFFFFFFFFFFFFFFFF)
        except Exception as exc:
            _report(f"{self.name}: read of {size} at {offset:#x}", exc)
            return <u64>-1

    cdef u32 call_write(self, u64 offset, u32 size, u64 value) noexcept with gil:
        if self.on_write is None:
            return ACTION_NONE
        try:
            action = self.on_write(offset, size, value)
            return 0 if action is None else <u32>action
        except Exception as exc:
            _report(f"{self.name}: write of {size} at {offset:#x}", exc)
            return ACTION_NONE


cdef class IrqSink:
    """Where lines end: something with numbered inputs."""

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        pass

    def drive(self, u32 n, int level):
        with nogil:
            self.set_irq(n, level)


cdef class PyIrqSink(IrqSink):
    """An input in Python: `callback(n, level)`."""

    def __init__(self, callback):
        self.callback = callback

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.call(n, level)

    cdef void call(self, u32 n, int level) noexcept with gil:
        try:
            self.callback(n, level)
        except Exception as exc:
            _report(f"interrupt input {n}", exc)


cdef class IrqLine:
    """One wire from an output to input `n` of a sink. Only changes of the level travel; none is lost."""

    def __init__(self, IrqSink sink=None, u32 n=0):
        self.sink = sink if sink is not None else IrqSink()
        self.n = n
        self.level = 0

    cdef void set(self, int level) noexcept nogil:
        level = level != 0
        if level != self.level:
            self.level = level
            self.sink.set_irq(self.n, level)

    def drive(self, int level):
        with nogil:
            self.set(level)

    def pulse(self):
        with nogil:
            self.set(1)
            self.set(0)

    def connect(self, IrqSink sink, u32 n):
        """Plug the wire in somewhere else: the old input sees it go low, the new one the present level."""
        if self.level:
            with nogil:
                self.sink.set_irq(self.n, 0)
        self.sink = sink
        self.n = n
        if self.level:
            self.drive_sink()

    def drive_sink(self):
        with nogil:
            self.sink.set_irq(self.n, self.level)


cdef class IrqFan(IrqSink):
    """`count` inputs, each wired-OR of all the lines that end there, each driving any number of targets.

    This is the interrupt wiring of a board: shared ISA interrupts, PIRQs, GSIs.
    """

    def __cinit__(self, str name, u32 count):
        self.name = name
        self.count = count
        self.asserted = <u32 *>calloc(count, sizeof(u32))
        self.line_start = <u32 *>calloc(count + 1, sizeof(u32))
        self.lines = NULL
        self.targets = [[] for _ in range(count)]
        if self.asserted == NULL or self.line_start == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.asserted)
        free(self.line_start)
        free(self.lines)

    def connect(self, u32 n, IrqSink sink, u32 sink_n):
        """Input `n` also drives input `sink_n` of `sink`. IndexError when there is no such input."""
        cdef u32 i, k = 0
        if n >= self.count:
            raise IndexError(f"{self.name} has inputs 0 to {self.count - 1}, not {n}")
        line = IrqLine(sink, sink_n)
        self.targets[n].append(line)
        line.drive(self.asserted[n] != 0)
        total = sum(len(t) for t in self.targets)
        free(self.lines)
        self.lines = <void **>malloc(total * sizeof(void *))
        for i in range(self.count):
            self.line_start[i] = k
            for line in self.targets[i]:
                self.lines[k] = <void *>line
                k += 1
        self.line_start[self.count] = k
        return line

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        cdef u32 i
        cdef int was
        if n >= self.count:
            return
        was = self.asserted[n] != 0
        if level:
            self.asserted[n] += 1
        elif self.asserted[n] > 0:
            self.asserted[n] -= 1
        level = self.asserted[n] != 0
        if level != was and self.lines != NULL:
            for i in range(self.line_start[n], self.line_start[n + 1]):
                (<IrqLine>self.lines[i]).set(level)

    def level(self, u32 n):
        """The level of input `n`, 0 or 1."""
        if n >= self.count:
            raise IndexError(n)
        return 1 if self.asserted[n] else 0

    def wires(self, u32 n):
        """[(sink, input)] that input `n` drives."""
        return [(line.sink, line.n) for line in self.targets[n]]


cdef class ByteRing:
    """A bounded byte queue between a device and the main loop. The device lock guards it.

    A push into an empty ring signals the notifier, so a thread that drains it wakes once per burst.
    """

    def __cinit__(self, u32 capacity=65536, Notifier notifier=None):
        self.data = <u8 *>malloc(capacity)
        if self.data == NULL:
            raise MemoryError
        self.capacity = capacity
        self.head = self.tail = 0
        self.notifier = notifier

    def __dealloc__(self):
        free(self.data)

    cdef u32 used(self) noexcept nogil:
        return self.tail - self.head

    cdef int push(self, u8 byte) noexcept nogil:
        """1 when the byte went in, 0 when the ring is full."""
        if self.tail - self.head >= self.capacity:
            return 0
        self.data[self.tail % self.capacity] = byte
        self.tail += 1
        if self.tail - self.head == 1 and self.notifier is not None:
            self.notifier.signal()
        return 1

    cdef int pop(self) noexcept nogil:
        """The oldest byte, or -1."""
        cdef int byte
        if self.tail == self.head:
            return -1
        byte = self.data[self.head % self.capacity]
        self.head += 1
        return byte

    def __len__(self):
        return self.used()

    def peek(self, u32 n):
        """Up to `n` oldest bytes, left in place."""
        cdef u32 i
        n = min(n, self.used())
        out = bytearray(n)
        for i in range(n):
            out[i] = self.data[(self.head + i) % self.capacity]
        return bytes(out)

    def take(self, u32 n=0xFFFFFFFF):
        """Remove and return up to `n` bytes."""
        out = self.peek(n)
        self.head += <u32>len(out)
        return out

    def put(self, bytes data):
        """Append what fits; the number of bytes that did."""
        cdef u32 count = 0
        for byte in data:
            if not self.push(byte):
                break
            count += 1
        return count

    def clear(self):
        self.head = self.tail
