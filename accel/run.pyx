"""Processors as threads: how they are created, resumed, stopped, and how they ask the main thread for something.

The course of a processor, whatever accelerator runs it:

1. the main thread starts the processor's thread and waits for `created`;
2. the thread creates and initialises the processor, says `created`, and waits to be resumed;
3. the main thread goes on building the machine and at last calls `RunControl.start()`;
4. the thread runs guest code until something calls it out (`kick`), waits again, and so on until `close()`.

Requests (reset, shutdown, …; the ACTION_ flags of accel.api) wait in a queue, each with the processor that asked and
the cause, and wake the main loop through `notifier`. The processor that asked for one of the stopping kind stays out
until it is answered: by answer(), when the machine goes on as if nothing had been, or by the next start().

Lock order: device lock, then GIL, or device lock, then RunControl.mutex; never the mutex and the GIL. `stop()` and `close()` are called without the device
lock, because a processor may be waiting for it on its way out.
"""

from libc.string cimport memcpy

from accel.api cimport Notifier, pthread_mutex_t, u32, u64
from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

import _thread

from accel.api import _report

cdef extern from *:
    """
    #include <unistd.h>
    #include <sys/syscall.h>
    #define vr_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define vr_gettid() ((int)syscall(SYS_gettid))
    """
    int vr_load(int *) nogil
    void vr_store(int *, int) nogil
    int vr_gettid() nogil

# A processor's thread runs the run loop and, at most, a device's Python callback.
THREAD_STACK = 256 * 1024


cdef class IntAck:
    """Whoever answers the processor's interrupt acknowledge cycle: the master 8259A of the board."""

    cdef int acknowledge(self) noexcept nogil:
        """The vector, as INTA# puts it on the bus; -1 when no interrupt is pending. The device lock is held."""
        return -1


cdef class PyIntAck(IntAck):
    """In Python: `callback() -> vector or -1`."""

    def __init__(self, callback):
        self.callback = callback

    cdef int acknowledge(self) noexcept nogil:
        return self.call()

    cdef int call(self) noexcept with gil:
        try:
            return self.callback()
        except Exception as exc:
            _report("interrupt acknowledge", exc)
            return -1


cdef class MsiSink:
    """Whoever takes message-signalled interrupts, with the device lock held unless it says that it needs none."""

    cdef int send(self, u64 addr, u32 data) noexcept nogil:
        """A device's write of `data` to `addr` in 0xfee00000…; 1 delivered, 0 masked, -1 refused."""
        return -1

    def signal(self, u64 addr, u32 data):
        cdef int result
        with nogil:
            result = self.send(addr, data)
        return result


cdef class RunControl:
    """The run state that a machine's processors share."""

    def __cinit__(self, Notifier notifier=None):
        self.notifier = notifier if notifier is not None else Notifier()
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.resumed, NULL)
        pthread_cond_init(&self.outside, NULL)
        self.cpus = []
        self.reports = []

    def __dealloc__(self):
        pthread_cond_destroy(&self.resumed)
        pthread_cond_destroy(&self.outside)
        pthread_mutex_destroy(&self.mutex)

    # --- the main thread's side -----------------------------------------------------------------------------

    @property
    def running(self):
        """True between start() and stop()."""
        return bool(vr_load(&self.going))

    def thread_ids(self):
        """{index of a processor: the host's number of its thread}."""
        cdef CpuThread cpu
        return {cpu.index: cpu.tid for cpu in self.cpus}

    def start(self):
        """Resume all processors."""
        cdef CpuThread cpu
        for cpu in self.cpus:
            vr_store(&cpu.held, 0)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.going, 1)
            pthread_cond_broadcast(&self.resumed)
            pthread_mutex_unlock(&self.mutex)

    def stop(self):
        """Return when every processor is out and waits. RuntimeError from a processor's own thread."""
        cdef CpuThread cpu
        cdef int me = vr_gettid()
        cdef u32 alive = 0
        for cpu in self.cpus:
            if cpu.alive and cpu.tid == me:
                raise RuntimeError("a processor cannot wait for itself; make a request instead")
        vr_store(&self.going, 0)
        for cpu in self.cpus:
            if cpu.alive:
                alive += 1
                with nogil:
                    cpu.kick()
                    self.wake(cpu)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.expected = alive
            while self.parked < alive:
                pthread_cond_wait(&self.outside, &self.mutex)
            pthread_mutex_unlock(&self.mutex)

    def close(self):
        """End the threads and wait for them."""
        cdef CpuThread cpu
        if self.cpus:
            self.stop()
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.quitting, 1)
            pthread_cond_broadcast(&self.resumed)
            pthread_mutex_unlock(&self.mutex)
        for cpu in self.cpus:
            with nogil:
                pthread_mutex_lock(&self.mutex)
                while cpu.alive:
                    pthread_cond_wait(&self.outside, &self.mutex)
                pthread_mutex_unlock(&self.mutex)
        self.cpus.clear()

    def requests(self):
        """Take what was asked since the last call, oldest first: [(ACTION_ and REQUEST_ flags, cpu or -1, cause)]."""
        cdef u32 n, count
        self.notifier.drain()
        with nogil:
            pthread_mutex_lock(&self.mutex)
            count, self.queued = self.queued, 0
            memcpy(self.taken, self.queue, count * sizeof(Request))
            pthread_mutex_unlock(&self.mutex)
        return [(self.taken[n].actions, self.taken[n].cpu, self.taken[n].cause) for n in range(count)]

    def take(self):
        """The same, for who has no use for more than which: all flags in one word."""
        asked = 0
        for actions, _, _ in self.requests():
            asked |= actions
        return asked

    def answer(self, int index):
        """What processor `index` asked for is done; it goes on if the machine runs. -1 is nobody."""
        cdef CpuThread cpu
        for cpu in self.cpus:
            if <int>cpu.index == index:
                with nogil:
                    pthread_mutex_lock(&self.mutex)
                    vr_store(&cpu.held, 0)
                    pthread_cond_broadcast(&self.resumed)
                    pthread_mutex_unlock(&self.mutex)

    def ask(self, u32 actions, u32 cause=0):
        """A request from anyone but a processor (monitor, timer, signal). `cause`: given back by requests()."""
        with nogil:
            self.enqueue(-1, actions, cause)

    def take_reports(self):
        """The reports (dicts) of processors that gave up, oldest first."""
        found, self.reports[:] = list(self.reports), []
        return found

    def report(self, CpuThread cpu, report):
        """A processor gives up: keep the report, stop that processor, wake the main loop."""
        if len(self.reports) < 64:
            self.reports.append(report)
        with nogil:
            self.request(cpu, REQUEST_FAILED)

    def inhibit(self):
        """Return when no processor but the calling thread's own executes guest code; none enters before allow()."""
        cdef CpuThread cpu
        cdef int me = vr_gettid()
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.inhibited, self.inhibited + 1)
            pthread_mutex_unlock(&self.mutex)
        waited = [cpu for cpu in self.cpus if cpu.alive and cpu.tid != me]
        for cpu in waited:
            if vr_load(&cpu.inside):
                cpu.kick()
        for cpu in waited:
            with nogil:
                pthread_mutex_lock(&self.mutex)
                while vr_load(&cpu.inside):
                    pthread_cond_wait(&self.outside, &self.mutex)
                pthread_mutex_unlock(&self.mutex)

    def allow(self):
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.inhibited, self.inhibited - 1)
            pthread_cond_broadcast(&self.resumed)
            pthread_mutex_unlock(&self.mutex)

    # --- for a device that answers in registers (vmport) ------------------------------------------------------

    cdef u64 get_register(self, u32 n) noexcept nogil:
        """General register `n` (0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi, 8 … 15) of the processor
        whose access is being dispatched; 0 when none is. The device lock is held."""
        return (<CpuThread>self.current).read_register(n) if self.current != NULL else 0

    cdef void set_register(self, u32 n, u64 value) noexcept nogil:
        if self.current != NULL:
            (<CpuThread>self.current).write_register(n, value)

    @property
    def accessing(self):
        """A processor's access is being dispatched: it has registers."""
        return self.current != NULL

    def register(self, u32 n):
        return self.get_register(n)

    def put_register(self, u32 n, u64 value):
        self.set_register(n, value)

    # --- the processors' side -------------------------------------------------------------------------------

    cdef void request(self, CpuThread cpu, u32 actions) noexcept nogil:
        """Put `actions` into the queue and wake the main loop. `cpu` is the processor that asks, or None."""
        if cpu is not None and actions & STOPPING:
            vr_store(&cpu.held, 1)
            cpu.kick()
        self.enqueue(-1 if cpu is None else <int>cpu.index, actions, 0)

    cdef void enqueue(self, int cpu, u32 actions, u32 cause) noexcept nogil:
        cdef u32 n
        if actions == 0:
            return
        pthread_mutex_lock(&self.mutex)
        for n in range(self.queued):
            if self.queue[n].cpu == cpu and self.queue[n].cause == cause and self.queue[n].actions & actions == actions:
                break
        else:
            if self.queued == QUEUE:        # nothing is lost, only who asked
                self.queue[QUEUE - 1].actions |= actions
            else:
                self.queue[self.queued] = Request(actions, cpu, cause)
                self.queued += 1
        pthread_mutex_unlock(&self.mutex)
        self.notifier.signal()

    cdef bint must_leave(self, CpuThread cpu) noexcept nogil:
        """True when `run` shall return."""
        return not vr_load(&self.going) or vr_load(&cpu.held) or cpu.frozen or vr_load(&self.quitting)

    cdef int wait_resumed(self, CpuThread cpu) noexcept nogil:
        """Wait for start(); 0 when the machine is being closed."""
        pthread_mutex_lock(&self.mutex)
        self.parked += 1
        if self.parked >= self.expected:            # one wake-up of stop(), not one for each processor
            pthread_cond_broadcast(&self.outside)
        while (not vr_load(&self.going) or vr_load(&cpu.held) or cpu.frozen) and not vr_load(&self.quitting):
            pthread_cond_wait(&self.resumed, &self.mutex)
        self.parked -= 1
        pthread_mutex_unlock(&self.mutex)
        return not vr_load(&self.quitting)

    cdef void halt(self, CpuThread cpu) noexcept nogil:
        """HLT without a kernel to wait in: return at the next wake() or when the processor must leave."""
        pthread_mutex_lock(&self.mutex)
        cpu.halting = 1
        while not vr_load(&cpu.woken) and not self.must_leave(cpu):
            pthread_cond_wait(&self.resumed, &self.mutex)
        cpu.halting = 0
        vr_store(&cpu.woken, 0)
        pthread_mutex_unlock(&self.mutex)

    cdef void wake(self, CpuThread cpu) noexcept nogil:
        """End a halt, or the next one."""
        pthread_mutex_lock(&self.mutex)
        vr_store(&cpu.woken, 1)
        if cpu.halting:
            pthread_cond_broadcast(&self.resumed)
        pthread_mutex_unlock(&self.mutex)

    cdef void enter_guest(self, CpuThread cpu) noexcept nogil:
        """Called just before guest code runs; waits while the layout changes."""
        while True:
            vr_store(&cpu.inside, 1)
            if not vr_load(&self.inhibited):
                return
            pthread_mutex_lock(&self.mutex)
            vr_store(&cpu.inside, 0)
            pthread_cond_broadcast(&self.outside)
            while vr_load(&self.inhibited):
                pthread_cond_wait(&self.resumed, &self.mutex)
            pthread_mutex_unlock(&self.mutex)

    cdef void leave_guest(self, CpuThread cpu) noexcept nogil:
        vr_store(&cpu.inside, 0)
        if vr_load(&self.inhibited):
            pthread_mutex_lock(&self.mutex)
            pthread_cond_broadcast(&self.outside)
            pthread_mutex_unlock(&self.mutex)


cdef class CpuThread:
    """One processor. An accelerator overrides `init` (in the thread, may raise), `run`, `kick` and `fini`."""

    def __init__(self, RunControl control, u32 index):
        self.control = control
        self.index = index

    def init(self):
        """Create and initialise the processor; called in its thread, before `created`."""

    def fini(self):
        """Give back what init took; called in its thread when the machine is closed."""

    cdef void run(self) noexcept nogil:
        """Execute until control.must_leave()."""

    cdef u64 read_register(self, u32 n) noexcept nogil:
        """General register `n` while this processor's access is dispatched."""
        return 0

    cdef void write_register(self, u32 n, u64 value) noexcept nogil:
        pass

    cdef void kick(self) noexcept nogil:
        """Make `run` look at control.must_leave() soon; from any thread."""

    def launch(self):
        """Start the thread and wait until the processor is created. Raises what `init` raised."""
        self.control.cpus.append(self)
        self.alive = True
        before = _thread.stack_size(THREAD_STACK)
        try:
            _thread.start_new_thread(self._thread, ())
        except BaseException:
            self.alive = False
            self.control.cpus.remove(self)
            raise
        finally:
            _thread.stack_size(before)
        with nogil:
            pthread_mutex_lock(&self.control.mutex)
            while not self.created and self.alive:
                pthread_cond_wait(&self.control.outside, &self.control.mutex)
            pthread_mutex_unlock(&self.control.mutex)
        if self.failure is not None:
            self.control.cpus.remove(self)
            raise self.failure

    def _thread(self):
        self.tid = vr_gettid()
        try:
            self.init()
        except BaseException as exc:
            self.failure = exc
            with nogil:
                self._ended()
            return
        with nogil:
            pthread_mutex_lock(&self.control.mutex)
            self.created = True
            pthread_cond_broadcast(&self.control.outside)
            pthread_mutex_unlock(&self.control.mutex)
            while self.control.wait_resumed(self):
                self.run()
        try:
            self.fini()
        finally:
            with nogil:
                self._ended()

    cdef void _ended(self) noexcept nogil:
        pthread_mutex_lock(&self.control.mutex)
        self.alive = False
        pthread_cond_broadcast(&self.control.outside)
        pthread_mutex_unlock(&self.control.mutex)
