"""The I/O thread of a machine: descriptors, device timers and completions, without the GIL.

What a device waits for on the host's side arrives here: a kick of a queue (an eventfd that the kernel signals, ioeventfd),
a frame on a tap, a timer of the machine's clock, a transfer that a worker has finished. The Python loop keeps monitors,
terminals and control; a Python thread that is busy delays no guest timer.

Handlers (IoHandler) are compiled; `ready` is called while the descriptor is ready. There are two kinds:

- locked (the default): called with the device lock held. `remove` takes the device lock, so after it no call comes.
- unlocked: called without it; such a handler has a lock of its own for its queue, and never takes the device lock.
  `remove` waits for a call that is under way, which is therefore short.

Locks, in this order: device lock, lock of a queue, this thread's mutex (held for a few instructions), GIL for handlers in
Python only. Nothing here waits for anybody with the device lock held, except for the end of an unlocked call.

`pause` returns when no handler is being called and none will be before `resume`; descriptors that become ready meanwhile
stay so. Timers follow their clock, which stands still by itself; completions go on, so that transfers can be awaited.
With nothing to do the thread sleeps: no wake-up without cause.
"""

cimport cython
from libc.errno cimport EINTR, ENOMEM, errno
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, itimerspec
from posix.unistd cimport close, read as posix_read

import _thread
import os

from accel.api import _report

cimport accel.errands as errands
from accel.clock cimport clock_read
from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock, pthread_self,
)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        unsigned long long number "u64"
    struct epoll_event:
        u32 events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int EPOLL_CTL_DEL

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)
    int TFD_NONBLOCK
    int TFD_CLOEXEC
    int TFD_TIMER_ABSTIME
    int TFD_TIMER_CANCEL_ON_SET

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, const char *, int, int, int)
    int PR_SET_NAME

cdef extern from *:
    """
    #define vr_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_store(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    """
    int vr_load(int *) nogil
    void vr_store(int *, int) nogil

cdef extern from *:
    """
    #include <unistd.h>
    #include <sys/syscall.h>
    #define vr_gettid() ((int)syscall(SYS_gettid))
    """
    int vr_gettid() nogil

cdef enum:
    EVENTS = 64                 # taken from the kernel at once
    BATCH = 64                  # completions run before others get the device lock
    STACK = 256 * 1024
    # tags of what epoll reports: these, or a slot from FIRST_SLOT on with its generation in the upper half
    TAG_NOTIFIER = 0
    TAG_STEADY = 1
    TAG_WALL = 2
    FIRST_SLOT = 16
    MOST_SLOTS = 1 << 20

cdef i64 NEVER = 0x7FFFFFFFFFFFFFFF
cdef i64 SECOND = 1000000000


cdef void *following(void *completion) noexcept nogil:
    return (<Completion>completion).following


cdef void *unlink(Completion completion) noexcept nogil:
    """The next; this one may be posted again."""
    completion.posted = False
    return completion.following


cdef int handler_fd(void *handler) noexcept nogil:
    return (<IoHandler>handler).fd


cdef bint handler_locked(void *handler) noexcept nogil:
    return (<IoHandler>handler).locked


cdef u32 handler_slot(void *handler) noexcept nogil:
    return (<IoHandler>handler).slot


cdef u32 handler_events(void *handler) noexcept nogil:
    return (<IoHandler>handler).events


cdef void link(void *completion, void *following) noexcept nogil:
    (<Completion>completion).following = following


cdef i64 run_queue(TimerQueue queue) noexcept nogil:
    """Run what is due; ns until the next timer, NEVER when none comes by itself."""
    cdef i64 left
    queue.armed = 0                                         # nobody needs to wake us: we look again before we sleep
    if not queue.clock.ticks():
        return NEVER                                        # whoever starts the clock wakes us
    queue.run_expired(queue.clock.now())
    if queue.next_deadline() < 0:
        queue.armed = NEVER
        return NEVER
    queue.armed = queue.next_deadline()
    left = queue.armed - queue.clock.now()
    return left if left > 0 else 0


cdef bint is_wall(void *queue) noexcept nogil:
    return (<TimerQueue>queue).clock.wall()


cdef class IoHandler:
    """Watches `fd`, which stays its owner's and open until after `remove`. Subclass and override `ready`."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    def __init__(self, int fd, u32 events=IO_READ, bint locked=True):
        self.fd = fd
        self.events = events
        self.locked = locked

    cdef void ready(self, u32 events) noexcept nogil:
        """`events`: the IO_ bits that are so. IO_ERROR and IO_HANGUP come unasked, until `want(0)` or remove."""

    cdef void want(self, u32 events) noexcept nogil:
        """Other events from now on; 0: none (back-pressure). From any thread."""
        cdef void *thread = <void *>self.thread             # once: it may be removed just now
        self.events = events
        if thread != <void *>None:
            (<IoThread>thread).update(<void *>self)

    def set_events(self, u32 events):
        self.want(events)


cdef class PyIoHandler(IoHandler):
    """In Python, for tests and rare things: `callback(events)`."""

    def __init__(self, int fd, callback, u32 events=IO_READ, bint locked=True):
        self.callback = callback
        self.fd = fd
        self.events = events
        self.locked = locked

    cdef void ready(self, u32 events) noexcept nogil:
        self.call(events)

    cdef void call(self, u32 events) noexcept with gil:
        try:
            self.callback(events)
        except Exception as exc:
            _report(f"descriptor {self.fd}", exc)


cdef class EventHandler(IoHandler):
    """Watches a Notifier, clears it and calls `kicked`: for queue kicks by ioeventfd, or by `notifier.signal()`."""

    def __cinit__(self, *args, **kwargs):
        self.notifier = Notifier()
        self.fd = self.notifier.fd
        self.events = IO_READ

    def __init__(self, bint locked=True):
        self.locked = locked

    cdef void ready(self, u32 events) noexcept nogil:
        self.notifier.clear()
        self.kicked()

    cdef void kicked(self) noexcept nogil:
        pass


cdef class Completion:
    """Something that is over: `post` it from any thread, `complete` is called once, with the device lock held.

    The owner keeps it alive until then, or calls `forget`. Posting what is posted already is once.
    """

    cdef void complete(self) noexcept nogil:
        pass


cdef class PyCompletion(Completion):
    """In Python: `callback()`."""

    def __init__(self, callback):
        self.callback = callback

    cdef void complete(self) noexcept nogil:
        self.call()

    cdef void call(self) noexcept with gil:
        try:
            self.callback()
        except Exception as exc:
            _report("completion", exc)


@cython.no_gc_clear  # __dealloc__ needs the notifier
cdef class IoThread:
    """One a machine. `start` it once there is a machine; `close` ends it. Raises OSError when descriptors run out."""

    def __cinit__(self, DeviceLock lock, str name="io"):
        self.watched = self.control = self.steady = self.wall = -1
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.changed, NULL)
        self.lock = lock
        self.name = name
        self.notifier = Notifier()
        self.handlers, self.queue_objects = [], []
        self.steady_armed = self.wall_armed = NEVER
        self.watched = epoll_create1(EPOLL_CLOEXEC)
        self.control = epoll_create1(EPOLL_CLOEXEC)
        self.steady = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        self.wall = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC)
        if min(self.watched, self.control, self.steady, self.wall) < 0:
            raise OSError("I/O thread: out of file descriptors")
        for fd, tag in ((self.notifier.fd, TAG_NOTIFIER), (self.steady, TAG_STEADY), (self.wall, TAG_WALL)):
            self._watch(fd, tag)

    cdef _watch(self, int fd, u64 tag):
        cdef epoll_event event
        event.events, event.data.number = IO_READ, tag
        if epoll_ctl(self.watched, EPOLL_CTL_ADD, fd, &event) or epoll_ctl(self.control, EPOLL_CTL_ADD, fd, &event):
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        for fd in (self.watched, self.control, self.steady, self.wall):
            if fd >= 0:
                close(fd)
        free(self.slots)
        pthread_cond_destroy(&self.changed)
        pthread_mutex_destroy(&self.mutex)

    # --- life ---------------------------------------------------------------------------------------------

    def start(self):
        """Begin. Harmless when it has begun."""
        if self.running or self.closing:
            return
        self.running = True
        before = _thread.stack_size(STACK)
        try:
            _thread.start_new_thread(self._thread, ())
        except RuntimeError as exc:
            self.running = False
            raise OSError(f"I/O thread: {exc}") from None
        finally:
            _thread.stack_size(before)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while not self.tid:
                pthread_cond_wait(&self.changed, &self.mutex)
            pthread_mutex_unlock(&self.mutex)

    def _thread(self):
        cdef bytes title = self.name.encode()
        cdef const char *text = title
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.own, self.tid = pthread_self(), vr_gettid()
            pthread_cond_broadcast(&self.changed)
            pthread_mutex_unlock(&self.mutex)
            prctl(PR_SET_NAME, text, 0, 0, 0)
            self.main()
            pthread_mutex_lock(&self.mutex)
            self.running = False
            pthread_cond_broadcast(&self.changed)
            pthread_mutex_unlock(&self.mutex)

    def pause(self):
        """Hold the handlers: none is being called when this returns. Without the device lock."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.held, 1)
            self.notifier.signal()
            while self.running and not self.parked and self.own != pthread_self():
                pthread_cond_wait(&self.changed, &self.mutex)
            pthread_mutex_unlock(&self.mutex)

    def resume(self):
        """Let the handlers go on; the first time, begin."""
        self.start()
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.held, 0)
            vr_store(&self.parked, 0)
            pthread_mutex_unlock(&self.mutex)
            self.notifier.signal()

    def wake(self):
        """Look at the timers again: a clock was started or set. From any thread."""
        self.notifier.signal()

    def close(self):
        """End the thread and forget everything. Without the device lock; safe to call twice."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_store(&self.closing, 1)
            self.notifier.signal()
            while self.running:
                pthread_cond_wait(&self.changed, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
        for handler in [handler for handler in self.handlers if handler is not None]:
            self.remove(handler)
        for queue in list(self.queue_objects):
            self.remove_timers(queue)
        self.retired = None

    # --- handlers -----------------------------------------------------------------------------------------

    def add(self, IoHandler handler):
        """Watch its descriptor from now on. OSError when the kernel cannot (a regular file); ValueError: it is watched.
        From any thread: its place in `handlers` is its alone before the GIL is given up.
        """
        cdef u32 n
        cdef int error
        if handler.thread is not None:
            raise ValueError(f"descriptor {handler.fd} is watched already")
        for n in range(len(self.handlers)):
            if self.handlers[n] is None:
                self.handlers[n] = handler
                break
        else:
            n = len(self.handlers)
            if n == MOST_SLOTS:
                raise OSError("I/O thread: too many descriptors")
            self.handlers.append(handler)
        handler.thread, handler.slot, handler.active = self, n, True
        with nogil:
            error = self.take_slot(n, <void *>handler)
            if not error:
                error = self.update(<void *>handler)
        if error:
            self.remove(handler)
            raise OSError(error, os.strerror(error))

    cdef int take_slot(self, u32 n, void *handler) noexcept nogil:
        """0, or ENOMEM. Without the GIL: who holds it may wait for the mutex."""
        cdef Slot *grown
        pthread_mutex_lock(&self.mutex)
        if n >= self.slot_count:
            grown = <Slot *>realloc(self.slots, (n + 1) * sizeof(Slot))
            if grown == NULL:
                pthread_mutex_unlock(&self.mutex)
                return ENOMEM
            memset(grown + self.slot_count, 0, (n + 1 - self.slot_count) * sizeof(Slot))
            self.slots, self.slot_count = grown, n + 1
        self.slots[n].handler, self.slots[n].mask = handler, 0
        pthread_mutex_unlock(&self.mutex)
        return 0

    def remove(self, IoHandler handler):
        """When this returns `ready` is not being called and never will be (from within `ready`: again). From any thread."""
        if handler.thread is not self:
            return
        if handler.locked:
            with self.lock:
                self._drop(handler)
        else:
            self._drop(handler)

    cdef _drop(self, IoHandler handler):
        cdef void *gone = <void *>handler
        cdef u32 n = handler.slot
        cdef bint mine
        with nogil:
            pthread_mutex_lock(&self.mutex)
            mine = handler.active                           # or somebody was faster
            handler.active = False
            if mine:
                if n < self.slot_count:                         # or there was no memory for it
                    if self.slots[n].mask:
                        epoll_ctl(self.watched, EPOLL_CTL_DEL, handler.fd, NULL)
                    self.slots[n].mask = 0
                    self.slots[n].handler = NULL
                    self.slots[n].generation += 1
            while self.current == gone and self.own != pthread_self():
                pthread_cond_wait(&self.changed, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
        if mine:
            if self.own == pthread_self():                  # what calls this may be among those that it removes
                if self.retired is None or self.retired_at != self.wakeups:
                    self.retired, self.retired_at = [], self.wakeups
                self.retired.append(handler)
            self.handlers[n] = None
            handler.thread = None

    cdef int update(self, void *handler) noexcept nogil:
        """0, or why the kernel does not watch for what it wants: of several who say that at once, the last is heard. A place
        that is another's by now stays as it is.
        """
        cdef epoll_event event
        cdef Slot *s
        cdef u32 slot, mask
        cdef int fd, operation, error = 0
        pthread_mutex_lock(&self.mutex)
        slot, mask = handler_slot(handler), handler_events(handler)
        s = &self.slots[slot] if slot < self.slot_count else NULL
        if s != NULL and s.handler == handler and s.mask != mask:
            fd = handler_fd(handler)
            event.events = mask
            event.data.number = <u64>s.generation << 32 | (FIRST_SLOT + slot)
            operation = EPOLL_CTL_DEL if not mask else EPOLL_CTL_MOD if s.mask else EPOLL_CTL_ADD
            if epoll_ctl(self.watched, operation, fd, &event) == 0:
                s.mask = mask
            else:
                error = errno
                self.errors += 1
        pthread_mutex_unlock(&self.mutex)
        return error

    # --- timers -------------------------------------------------------------------------------------------

    def add_timers(self, TimerQueue queue):
        """Run the timers of a clock that moves by itself."""
        with self.lock:
            if self.queue_count == MOST_QUEUES:
                raise ValueError(f"{self.name}: too many clocks")
            queue.drive(self.notifier)
            self.queue_objects.append(queue)
            self.queues[self.queue_count] = <void *>queue
            self.queue_count += 1
        self.notifier.signal()

    def remove_timers(self, TimerQueue queue):
        cdef u32 n
        with self.lock:
            if queue not in self.queue_objects:
                return
            self.queue_objects.remove(queue)
            self.queue_count = 0
            for other in self.queue_objects:
                self.queues[self.queue_count] = <void *>other
                self.queue_count += 1
            queue.drive(None)

    # --- completions --------------------------------------------------------------------------------------

    cdef void post(self, Completion completion) noexcept nogil:
        cdef bint first
        pthread_mutex_lock(&self.mutex)
        first = self.first == NULL
        if not completion.posted:
            completion.posted = True
            completion.following = NULL
            if first:
                self.first = <void *>completion
            else:
                link(self.last, <void *>completion)
            self.last = <void *>completion
        pthread_mutex_unlock(&self.mutex)
        if first and self.own != pthread_self():            # a handler's: looked at when it has returned
            self.notifier.signal()

    cdef void forget(self, Completion completion) noexcept nogil:
        """It will not be completed. With the device lock held."""
        cdef void *before = NULL
        cdef void *at
        pthread_mutex_lock(&self.mutex)
        at = self.first
        while at != NULL and at != <void *>completion:
            before, at = at, following(at)
        if at != NULL:
            if before == NULL:
                self.first = following(at)
            else:
                link(before, following(at))
            if self.last == at:
                self.last = before
            completion.posted = False
        pthread_mutex_unlock(&self.mutex)

    def submit(self, Completion completion):
        """`post`, from Python."""
        with nogil:
            self.post(completion)

    def withdraw(self, Completion completion):
        """`forget`, from Python; the device lock is held."""
        self.forget(completion)

    # --- the thread ---------------------------------------------------------------------------------------

    cdef void main(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int n, count
        cdef u64 tag, number
        cdef bint look = True                               # at timers and completions
        while not vr_load(&self.closing):
            if look:
                self.settle()
            count = epoll_wait(self.control if vr_load(&self.parked) else self.watched, events, EVENTS, -1)
            self.wakeups += 1
            look = False
            if count < 0:
                if errno != EINTR:
                    self.errors += 1
                continue
            for n in range(count):
                tag = events[n].data.number
                if tag == TAG_NOTIFIER:
                    self.notifier.clear()
                    look = True
                elif tag == TAG_STEADY:
                    posix_read(self.steady, &number, 8)
                    self.steady_armed = NEVER
                    look = True
                elif tag == TAG_WALL:
                    posix_read(self.wall, &number, 8)       # fails when the wall clock was set: look all the same
                    self.wall_armed = NEVER
                    look = True
                elif not vr_load(&self.held):
                    self.dispatch(tag, events[n].events)
                    look = look or self.first != NULL

    cdef void settle(self) noexcept nogil:
        """Timers that are due, what was completed, and whether the handlers are held."""
        if vr_load(&self.held) and not self.parked:
            pthread_mutex_lock(&self.mutex)
            if self.held:
                vr_store(&self.parked, 1)
                pthread_cond_broadcast(&self.changed)
            pthread_mutex_unlock(&self.mutex)
        self.run_completions()
        self.run_queues()
        while self.first != NULL:                           # a timer's: nobody wakes this thread for what it posts itself
            self.run_completions()
            self.run_queues()

    cdef void run_queues(self) noexcept nogil:
        cdef i64 left, steady = NEVER, wall = NEVER
        cdef u32 n
        if not self.queue_count:                            # an iothread's: whoever adds some wakes us
            return
        self.lock.acquire()
        for n in range(self.queue_count):
            errands.noted = self.queues[n]
            left = run_queue(<TimerQueue>self.queues[n])
            if left == NEVER:
                continue
            if is_wall(self.queues[n]):
                left += wall_now()
                wall = min(wall, left)
            else:
                left += steady_now()
                steady = min(steady, left)
        self.lock.release()
        # One that is set for before then is left alone: a wake-up too many is cheaper than a call each time.
        if steady < self.steady_armed:
            set_timer(self.steady, steady, 0)
            self.steady_armed = steady
        if wall < self.wall_armed:
            set_timer(self.wall, wall, TFD_TIMER_CANCEL_ON_SET)
            self.wall_armed = wall

    cdef void run_completions(self) noexcept nogil:
        cdef void *completion
        cdef u32 n
        cdef bint more = self.first != NULL
        while more:
            self.lock.acquire()
            for n in range(BATCH):
                pthread_mutex_lock(&self.mutex)
                completion = self.first
                if completion != NULL:
                    self.first = unlink(<Completion>completion)
                pthread_mutex_unlock(&self.mutex)
                if completion == NULL:
                    break
                errands.noted = completion
                (<Completion>completion).complete()
            more = self.first != NULL
            self.lock.release()

    cdef void dispatch(self, u64 tag, u32 events) noexcept nogil:
        """Call the handler of a slot, unless it is gone by now."""
        cdef u32 n = <u32>tag - FIRST_SLOT, generation = <u32>(tag >> 32)
        cdef void *handler
        cdef bint locked = False
        pthread_mutex_lock(&self.mutex)
        handler = self.slots[n].handler if self.slots[n].generation == generation else NULL
        if handler != NULL:
            locked = handler_locked(handler)
            if not locked:
                self.current = handler
        pthread_mutex_unlock(&self.mutex)
        if handler == NULL:
            return
        if not locked:
            (<IoHandler>handler).ready(events)
            pthread_mutex_lock(&self.mutex)
            self.current = NULL
            pthread_cond_broadcast(&self.changed)
            pthread_mutex_unlock(&self.mutex)
            return
        self.lock.acquire()
        # Removing a locked handler needs this lock: what is there now stays for the call.
        pthread_mutex_lock(&self.mutex)
        handler = self.slots[n].handler if self.slots[n].generation == generation else NULL
        pthread_mutex_unlock(&self.mutex)
        if handler != NULL:
            errands.noted = handler
            (<IoHandler>handler).ready(events)
        self.lock.release()


cdef void set_timer(int fd, i64 when, int flags) noexcept nogil:
    """At an absolute time of its clock."""
    cdef itimerspec spec
    memset(&spec, 0, sizeof(spec))
    if when < 1:
        when = 1
    spec.it_value.tv_sec = when // SECOND
    spec.it_value.tv_nsec = when % SECOND
    timerfd_settime(fd, TFD_TIMER_ABSTIME | flags, &spec, NULL)


cdef i64 steady_now() noexcept nogil:
    return clock_read(CLOCK_MONOTONIC)


cdef i64 wall_now() noexcept nogil:
    return clock_read(CLOCK_REALTIME)
