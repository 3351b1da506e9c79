"""A drive: what a device submits its requests to, on top of a block graph.

Reads that the host's page cache can answer are done at once, on the caller's thread, up to 256 KiB, and 1 MiB while it
has the device lock (more would keep others from it for long). So are small writes that the page cache takes: at once where the kernel says beforehand whether
it takes them or the request has a lock of its own, else by the same thread when it has let the device lock go
(accel/errands.pyx), as they may wait after all. Everything else goes to the shared workers (pool.pyx), which take the
request's lock only to call done().

A request that its device has given up (reset in mid-transfer, unplug) goes on to its end; those submitted after it are
held until then, so that the disk never sees them in another order.

Limits (bytes and requests per second, limits.pyx) delay a request on its way to the workers. Flushes always pass.

Errors: of requests that are no guest's (REQUEST_OWN) who made them is told; of others `report` tells the device, `ignore` does as if nothing was, `stop` parks the request and has the machine paused;
retry() starts what is parked again. `on_error` is told each time.

Locks, in this order: the request's lock (device lock), the drive's mutex. A worker holds neither while it does I/O.
"""

from libc.errno cimport EAGAIN, EINVAL, EIO, ENOSPC, EROFS

cdef extern from "<unistd.h>" nogil:
    int usleep(unsigned int)

cdef extern from *:
    """
    #define vr_count(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    #define vr_count32(p) __atomic_fetch_add((p), 1, __ATOMIC_SEQ_CST)
    #define vr_leave32(p) __atomic_fetch_sub((p), 1, __ATOMIC_SEQ_CST)
    #define vr_look32(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    """
    void vr_count(u64 *, u64) nogil
    void vr_enter "vr_count32"(u32 *) nogil
    void vr_leave "vr_leave32"(u32 *) nogil
    u32 vr_look "vr_look32"(u32 *) nogil

from accel.errands cimport ErrandLock
from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from vmrun.backends.block.engine cimport TRANSFER_READ, TRANSFER_WRITE
from vmrun.backends.block.limits cimport LimitGroup
from vmrun.backends.block.node cimport NODE_BRIEF, NODE_FUA, NODE_NOWAIT, NODE_UNMAP, Cursor, cursor_zero
from vmrun.backends.block.pool cimport Job, pool_now, pool_put, pool_take
from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_FUA, BLOCK_NO_MEDIUM, BLOCK_READ, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO,
)

cdef enum:
    HELD = 1
    QUEUED = 2
    RUNNING = 3
    PARKED = 4
    INLINE = 262144             # bytes that are read on the caller's thread when they are cached
    AT_ONCE = 1 << 20           # all such reads of whoever has the device lock
    SMALL = 65536               # and written, when they come into the cache without waiting


# Workers hold a drive as a borrowed pointer: `running` keeps close() waiting for them.
cdef bint call_begin(Drive drive, DriveRequest *request) noexcept nogil:
    """Whether the I/O is still wanted."""
    cdef bint wanted
    pthread_mutex_lock(&drive.mutex)
    wanted = not request.base.abandoned
    request.state = RUNNING
    pthread_mutex_unlock(&drive.mutex)
    return wanted


cdef void run(Job *job) noexcept nogil:
    """On a worker."""
    cdef DriveRequest *request = <DriveRequest *>(<char *>job - <size_t>&(<DriveRequest *>NULL).job)
    cdef int error = 0
    if call_begin(<Drive>request.drive, request):
        error = (<Drive>request.drive).perform(request)
    (<Drive>request.drive).finish(request, error)


cdef bint waits_for(Job *job, void *drive) noexcept nogil:
    """Whether a job is a request of this drive that its limits hold."""
    return job.run == run and job.due != 0 and (
        <DriveRequest *>(<char *>job - <size_t>&(<DriveRequest *>NULL).job)).drive == drive


cdef void run_errand(Errand *errand) noexcept nogil:
    """On the thread that submitted it, which has let the device lock go."""
    cdef DriveRequest *request = <DriveRequest *>(<char *>errand - <size_t>&(<DriveRequest *>NULL).errand)
    if (<Drive>request.drive).is_brief(&request.base) \
            and (<Drive>request.drive).perform_now(&request.base, NODE_BRIEF) == 0:
        (<Drive>request.drive).finish(request, 0)
    else:                                                           # somebody may have given it up meanwhile
        pool_put(&request.job)


cdef void transferred(Transfer *transfer, int error) noexcept nogil:
    """On an engine's thread. What is not there as a whole a worker does again."""
    cdef DriveRequest *request = <DriveRequest *>(<char *>transfer - <size_t>&(<DriveRequest *>NULL).transfer)
    if error:
        pool_put(&request.job)
    else:
        (<Drive>request.drive).finish(request, 0)


cdef class Drive(BlockBackend):
    """`node` is the root of its graph, None without a medium. `lock` is what done() is called with."""

    def __cinit__(self, *args, **kwargs):
        self.request_size = sizeof(DriveRequest)
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.settled, NULL)

    def __init__(self, str name, Node node or None, DeviceLock lock):
        self.name, self.lock = name, lock
        self.errands = <void *>lock if isinstance(lock, ErrandLock) else NULL
        self.write_cache = self.discards = True
        self.on_read_error, self.on_write_error = ERROR_REPORT, ERROR_ENOSPC
        self.options = {}
        self._insert(node)

    def __dealloc__(self):
        with nogil:
            self._wait_for_all()
        pthread_mutex_destroy(&self.mutex)
        pthread_cond_destroy(&self.settled)

    def _insert(self, Node node, Node top=None):
        self.node, self.top = node, node if top is None else top
        self.size = 0 if node is None else (node.size + 511) & ~<u64>511
        self.readonly = node is not None and node.readonly

    # --- the device's side ----------------------------------------------------------------------------------

    cdef int submit(self, BlockRequest *request) noexcept nogil:
        cdef DriveRequest *mine = <DriveRequest *>request
        cdef int op = request.op, error = 0
        cdef bint held = False
        request.error = 0
        mine.since = pool_now()
        if self.node is None or self.closing:
            request.error = BLOCK_NO_MEDIUM
            return 1
        if op != BLOCK_FLUSH and (request.offset > self.size or request.length > self.size - request.offset):
            request.error = EINVAL
            return 1
        if op != BLOCK_READ and op != BLOCK_FLUSH and self.readonly:
            request.error = EROFS
            return 1
        if op == BLOCK_FLUSH and self.ignore_flush or op == BLOCK_DISCARD and not self.discards:
            return 1
        if self.is_brief(request):
            held = self.errands != NULL and (<ErrandLock>self.errands).mine()
            error = EAGAIN if held and self.is_much(request) else self.perform_now(request, 0 if held or request.lock == NULL else NODE_BRIEF)
            if error == 0:
                self.count(mine)
                return 1
        request.in_flight = True
        mine.drive = <void *>self
        mine.job.run, mine.job.due = run, 0
        pthread_mutex_lock(&self.mutex)
        self.running += 1
        if not (held and op == BLOCK_WRITE and error == EAGAIN and self.put_off(mine)):
            self.start(mine)
        pthread_mutex_unlock(&self.mutex)
        return 0

    cdef bint is_brief(self, BlockRequest *request) noexcept nogil:
        """Whether it may be over as soon as the host's page cache is asked."""
        if self.settling or self.limited or request.abandoned:
            return False
        if request.op == BLOCK_READ:
            return request.length <= INLINE
        return (request.op == BLOCK_WRITE and request.length <= SMALL and not self.detect_zeroes
                and (self.ignore_flush or self.write_cache and not request.flags & BLOCK_FUA))

    cdef bint is_much(self, BlockRequest *request) noexcept nogil:
        """Whether whoever has the device lock has read enough of this drive without letting it go."""
        if self.hold != (<ErrandLock>self.errands).holds:
            self.hold, self.at_once = (<ErrandLock>self.errands).holds, 0
        if request.op == BLOCK_READ:
            self.at_once += request.length
        return self.at_once > AT_ONCE

    cdef bint put_off(self, DriveRequest *request) noexcept nogil:
        """Until this thread has let the device lock go. With the mutex."""
        if self.quiet or not (<ErrandLock>self.errands).put_off(&request.errand):
            return False
        request.errand.run = run_errand
        request.state = QUEUED
        self.busy += 1
        return True

    cdef int perform_now(self, BlockRequest *request, u32 flags) noexcept nogil:
        cdef Cursor cursor
        cdef int error = EAGAIN
        cursor.at, cursor.left, cursor.skip = request.vectors, request.count, 0
        vr_enter(&self.inside)
        if vr_look(&self.quiet) == 0 and self.top is not None:
            if request.op == BLOCK_READ:
                error = self.top.readv(request.offset, request.length, &cursor, NODE_NOWAIT)
            else:
                error = self.top.write_now(request.offset, request.length, &cursor, flags)
        vr_leave(&self.inside)
        return error

    cdef void start(self, DriveRequest *request) noexcept nogil:
        """Hand it to the workers, or hold it. With the mutex."""
        cdef DriveRequest **at = &self.held
        if self.settling or self.quiet:
            request.state, request.after = HELD, NULL
            while at[0] != NULL:
                at = &at[0].after
            at[0] = request
        else:
            self.put(request)

    cdef void put(self, DriveRequest *request) noexcept nogil:
        """To the workers, now or when the limits let it. With the mutex."""
        request.state = QUEUED
        self.busy += 1
        self.weigh_one(request)
        if request.job.due or not self.begin(request):
            pool_put(&request.job)

    cdef bint begin(self, DriveRequest *request) noexcept nogil:
        """By the kernel, where the graph has an engine (engine.pyx): it may be over when this returns. With the mutex."""
        cdef BlockRequest *r = &request.base
        cdef Transfer *transfer = &request.transfer
        if r.op == BLOCK_WRITE:
            if self.detect_zeroes or (r.flags & BLOCK_FUA or not self.write_cache) and not self.ignore_flush:
                return False
        elif r.op != BLOCK_READ:
            return False
        if self.top is None:
            return False
        transfer.kind = TRANSFER_WRITE if r.op == BLOCK_WRITE else TRANSFER_READ
        transfer.offset, transfer.bytes, transfer.vectors, transfer.count = r.offset, r.length, r.vectors, r.count
        transfer.then = transferred
        request.state = RUNNING
        if self.top.begin(transfer):
            return True
        request.state = QUEUED
        return False

    cdef void abandon(self, BlockRequest *request) noexcept nogil:
        cdef DriveRequest *mine = <DriveRequest *>request
        cdef DriveRequest **at
        cdef bint over = False, waits
        pthread_mutex_lock(&self.mutex)
        request.abandoned = True
        waits = mine.state == QUEUED and mine.job.due != 0      # for the limits: whoever comes after it does not
        if mine.state == HELD or mine.state == PARKED:
            at = &self.held if mine.state == HELD else &self.parked
            while at[0] != mine:
                at = &at[0].after
            at[0] = mine.after
            over = True
            if mine.state == HELD:
                self.running -= 1
                pthread_cond_broadcast(&self.settled)
        else:
            self.settling += 1
        pthread_mutex_unlock(&self.mutex)
        if waits:
            self.weigh_again(True)
        if over:
            request.in_flight = False
            self.recycle(request)

    # --- the workers' side ----------------------------------------------------------------------------------

    cdef int perform(self, DriveRequest *request) noexcept nogil:
        cdef BlockRequest *r = &request.base
        cdef Cursor cursor
        cdef u32 flags = 0
        cdef int error
        cursor.at, cursor.left, cursor.skip = r.vectors, r.count, 0
        if self.top is None:
            return BLOCK_NO_MEDIUM
        if r.op == BLOCK_READ:
            return self.top.readv(r.offset, r.length, &cursor, 0)
        if r.op == BLOCK_FLUSH:
            return self.top.flush()
        if r.op == BLOCK_DISCARD:
            return self.top.discard(r.offset, r.length)
        if (r.flags & BLOCK_FUA or not self.write_cache) and not self.ignore_flush:
            flags = NODE_FUA
        if r.op == BLOCK_ZERO:
            if r.flags & BLOCK_UNMAP and self.discards:
                flags |= NODE_UNMAP
            return self.top.zero(r.offset, r.length, flags)
        if self.detect_zeroes and cursor_zero(&cursor, r.length):
            if self.detect_zeroes == 2:
                flags |= NODE_UNMAP
            return self.top.zero(r.offset, r.length, flags)
        return self.top.writev(r.offset, r.length, &cursor, flags)

    cdef int policy(self, int op, int error) noexcept nogil:
        """What this error leads to: ERROR_REPORT, ERROR_IGNORE or ERROR_STOP."""
        cdef int wanted = self.on_read_error if op == BLOCK_READ else self.on_write_error
        if wanted == ERROR_ENOSPC:
            return ERROR_STOP if error == ENOSPC else ERROR_REPORT
        return wanted

    cdef void finish(self, DriveRequest *request, int error) noexcept nogil:
        cdef BlockRequest *r = &request.base
        cdef int op = r.op, policy
        cdef void *lock = r.lock if r.lock != NULL else <void *>self.lock
        cdef bint abandoned
        if error:
            vr_count(&self.failures[op], 1)
            policy = ERROR_OWN if r.flags & REQUEST_OWN else self.policy(op, error)
            pthread_mutex_lock(&self.mutex)
            abandoned = r.abandoned
            if policy == ERROR_STOP and not abandoned:
                request.state, request.after = PARKED, self.parked
                self.parked = request
                pthread_mutex_unlock(&self.mutex)
                self.tell(op, error, policy)
                self.settle_one()
                return
            pthread_mutex_unlock(&self.mutex)
            if not abandoned:
                self.tell(op, error, policy)
            if policy == ERROR_IGNORE:
                error = 0
        else:
            self.count(request)
        (<DeviceLock>lock).acquire()
        # A device gives a request up with this lock held, so that it either was in time or finds it over.
        abandoned = r.abandoned
        r.in_flight = False
        if not abandoned:
            r.error = error
            r.done(r)
        (<DeviceLock>lock).release()
        if abandoned:
            self.recycle(r)
            pthread_mutex_lock(&self.mutex)
            self.settling -= 1
            self.let_go()
            pthread_mutex_unlock(&self.mutex)
        self.settle_one()

    cdef void count(self, DriveRequest *request) noexcept nogil:
        """It is over, and went well."""
        cdef int op = request.base.op
        cdef u32 n = 0
        cdef u64 spent = pool_now() - request.since
        cdef Histogram *histogram
        vr_count(&self.counts[op], 1)
        vr_count(&self.amounts[op], request.base.length)
        vr_count(&self.times[op], spent)
        if op < HISTOGRAMS:
            histogram = &self.histograms[op]
            if histogram.bins:
                while n < histogram.bins - 1 and spent >= histogram.boundaries[n]:
                    n += 1
                vr_count(&histogram.counts[n], 1)

    cdef void let_go(self) noexcept nogil:
        """What was held, when nothing holds it any more. With the mutex."""
        cdef DriveRequest *request
        while self.settling == 0 and self.quiet == 0 and self.held != NULL:
            request = self.held
            self.held = request.after
            self.put(request)

    cdef void settle_one(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        self.running -= 1
        self.busy -= 1
        pthread_cond_broadcast(&self.settled)
        pthread_mutex_unlock(&self.mutex)

    cdef void tell(self, int op, int error, int policy) noexcept with gil:
        if self.on_error is not None:
            self.on_error(self, op, error, policy)

    # --- the machine's side ---------------------------------------------------------------------------------

    def set_errors(self, str on_read, str on_write):
        policies = {"report": ERROR_REPORT, "ignore": ERROR_IGNORE, "stop": ERROR_STOP, "enospc": ERROR_ENOSPC}
        self.on_read_error = policies.get(on_read, self.on_read_error)
        self.on_write_error = policies.get(on_write, self.on_write_error)

    def join(self, LimitGroup limits):
        """The group that its requests are counted in from now on, None for none."""
        cdef LimitGroup old = self.limits           # until nobody looks at it any more
        pthread_mutex_lock(&self.mutex)
        self.limits, self.limited = limits, limits is not None
        pthread_mutex_unlock(&self.mutex)
        if old is not None:
            old.members.remove(self)
        if limits is not None:
            limits.members.append(self)
        self.weigh()

    def weigh(self):
        """The limits are others now, for what waits already, too."""
        with nogil:
            self.weigh_again(False)

    cdef void weigh_again(self, bint given_up) noexcept nogil:
        """Those that wait for the limits; when one was given up, the others move up."""
        cdef DriveRequest *request
        cdef Job *job
        cdef Job *next
        job = pool_take(waits_for, <void *>self)
        next = job if given_up else NULL
        while next != NULL:
            request = <DriveRequest *>(<char *>next - <size_t>&(<DriveRequest *>NULL).job)
            pthread_mutex_lock(&self.mutex)                     # it may leave its group just now
            if self.limited:
                self.limits.give_back(request.base.op != BLOCK_READ, request.base.length)
            pthread_mutex_unlock(&self.mutex)
            next = next.next
        while job != NULL:
            next = job.next
            pthread_mutex_lock(&self.mutex)
            self.weigh_one(<DriveRequest *>(<char *>job - <size_t>&(<DriveRequest *>NULL).job))
            pthread_mutex_unlock(&self.mutex)
            pool_put(job)
            job = next

    cdef void weigh_one(self, DriveRequest *request) noexcept nogil:
        """When the limits let it pass. With the mutex."""
        request.job.due = 0
        if self.limited and not self.hurried and request.base.op != BLOCK_FLUSH and not request.base.abandoned:
            request.job.due = self.limits.admit(request.base.op != BLOCK_READ, request.base.length)

    def _hurry(self, bint begin):
        """Limits are for the guest: who waits for all that is under way does not wait for them."""
        pthread_mutex_lock(&self.mutex)
        self.hurried += 1 if begin else -1
        pthread_mutex_unlock(&self.mutex)
        if self.top is not None:
            self.top.hurry(begin)
        if begin:
            self.weigh()

    def retry(self):
        """Start again what an error has parked. True when there was something."""
        cdef DriveRequest *request
        cdef bint some = False
        pthread_mutex_lock(&self.mutex)
        while self.parked != NULL:
            request = self.parked
            self.parked = request.after
            self.running += 1
            some = True
            self.start(request)
        pthread_mutex_unlock(&self.mutex)
        return some

    @property
    def has_parked(self):
        return self.parked != NULL

    def drain(self):
        """Wait until nothing is queued or under way and every done() has returned. Without the device lock."""
        self._wait()

    def pause(self):
        """When it returns nothing is under way, and what is submitted waits for go_on(). Without the device lock."""
        self._hurry(True)
        with nogil:
            pthread_mutex_lock(&self.mutex)
            vr_enter(&self.quiet)
            while self.busy:
                pthread_cond_wait(&self.settled, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
            while vr_look(&self.inside):
                usleep(10)
        self._hurry(False)

    def go_on(self):
        """The end of a pause()."""
        pthread_mutex_lock(&self.mutex)
        vr_leave(&self.quiet)
        self.let_go()
        pthread_mutex_unlock(&self.mutex)

    def replace(self, Node node not None, Node top=None):
        """Another node, with nothing under way; `top`: what watches it. The caller closes the old one."""
        self._insert(node, top)

    cdef void _wait(self):
        self._hurry(True)
        with nogil:
            self._wait_for_all()
        self._hurry(False)

    cdef void _wait_for_all(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        while self.running:
            pthread_cond_wait(&self.settled, &self.mutex)
        pthread_mutex_unlock(&self.mutex)

    def change(self, Node node or None):
        """Another medium, or none; the old one is flushed and closed. Without the device lock."""
        with self.lock:
            old, self.node = self.node, None
        self._wait()
        self.pause()
        self._insert(node)
        self.go_on()
        if old is not None:
            old.close()

    def resized(self):
        """The node's size has changed."""
        self._insert(self.node, self.top)

    def close(self):
        """Finish what is queued, flush, release the image. Safe to call twice; OSError: the flush failed."""
        cdef DriveRequest *request
        if self.closing:
            return
        self._wait()                                        # what a device still writes behind its guest's back, too
        self.closing = True
        self._wait()
        self.join(None)
        while self.parked != NULL:
            request = self.parked
            self.parked = request.after
            request.base.in_flight = False
            if request.base.abandoned:
                self.recycle(&request.base)
        if self.node is not None:
            try:
                if not self.readonly and not self.ignore_flush:
                    self.node.sync_now()
            finally:
                self.node.close()

    def read_bytes(self, u64 offset, u64 count):
        """Read now, for geometry and views; short at the end of the image."""
        if self.node is None or offset >= self.size:
            return b""
        return self.node.read(offset, min(count, self.size - offset))

    def set_histogram(self, int op, list boundaries or None):
        """Have the latencies of an operation (BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH) counted anew, by `boundaries` in
        ns, which grow; None: no more. ValueError.
        """
        cdef Histogram *histogram = &self.histograms[op]
        cdef u32 n
        if boundaries is None:
            histogram.bins = 0
            return
        if len(boundaries) >= MOST_BINS:
            raise ValueError(f"at most {MOST_BINS - 1} boundaries")
        if any(low >= high for low, high in zip([0, *boundaries], boundaries, strict=False)):
            raise ValueError("boundaries grow, and are above 0")
        histogram.bins = 0                          # a request that is over just now may be in none of them
        for n in range(MOST_BINS):
            histogram.counts[n] = 0
            if n < <u32>len(boundaries):
                histogram.boundaries[n] = boundaries[n]
        histogram.bins = len(boundaries) + 1

    def histogram(self, int op):
        """(boundaries in ns, how many were below each and at or above the last), None when they are not counted."""
        cdef Histogram *histogram = &self.histograms[op]
        cdef u32 n
        if not histogram.bins:
            return None
        return [histogram.boundaries[n] for n in range(histogram.bins - 1)], [histogram.counts[n] for n in range(histogram.bins)]

    def statistics(self):
        """{op: (requests, bytes, failures, nanoseconds)} with op as in protocols: read, write, flush, discard, zero."""
        return {
            name: (self.counts[n], self.amounts[n], self.failures[n], self.times[n])
            for n, name in enumerate(("read", "write", "flush", "discard", "zero"))
        }
