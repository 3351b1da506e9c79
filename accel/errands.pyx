"""The device lock of a machine, and what its holder does when he has let it go.

Some work of a device may wait for the host, if only for moments, so that nobody may do it with the device lock held; handing it
to another thread costs more than the work. `put_off` keeps it until the same thread has released the lock. An
errand may take the lock again; what is put off meanwhile is refused, so that a guest whose errands lead to errands keeps
no thread for ever.

`watch()` has every hold and every wait measured (benchmarks/latency.py): what of a hold was work, what was waiting for something,
for how long the host had no core for its thread, and how many pages of memory the host had to give meanwhile, which it counts as
work. Unwatched it costs a look at a flag.
"""

import sys

from accel.api cimport i64, u64
from accel.threads cimport pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, pthread_self

cdef extern from "<Python.h>" nogil:
    int PyGILState_Check()

cdef extern from *:
    """
    static __thread int vr_on_errand;       /* this thread is running some just now */
    """
    int vr_on_errand

cdef extern from *:
    """
    #include <fcntl.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <time.h>
    #include <unistd.h>

    static int vr_watching;

    static long long vr_clock(int clock)
    {
        struct timespec t;
        clock_gettime(clock, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }

    /* ns that this thread has waited for a core so far */
    static long long vr_no_core(void)
    {
        static __thread int stat = -1;
        char text[96], *at;
        ssize_t n;
        if (stat < 0)
            stat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        n = stat < 0 ? 0 : pread(stat, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        at = strchr(text, ' ');
        return at == NULL ? 0 : atoll(at);
    }

    /* pages that the host has given this thread so far */
    static long long vr_faults(void)
    {
        struct rusage usage;
        return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_minflt + usage.ru_majflt : 0;
    }

    static void vr_name(char *name)
    {
        prctl(PR_GET_NAME, name, 0, 0, 0);
    }

    /* whether this thread is a processor */
    static int vr_is_cpu(void)
    {
        static __thread int is = -1;
        char name[16];
        if (is < 0) {
            vr_name(name);
            is = strncmp(name, "CPU ", 4) == 0;
        }
        return is;
    }
    """
    int vr_watching
    void vr_name(char *) nogil
    i64 vr_clock(int) nogil
    i64 vr_no_core() nogil
    i64 vr_faults() nogil
    bint vr_is_cpu() nogil
    int CLOCK_MONOTONIC
    int CLOCK_THREAD_CPUTIME_ID

cdef enum:
    MOST = 64                   # errands of one release
    BUCKETS = 24                # of waits: below 2 us, 4 us, …
    LONG_WAIT = 1000000         # ns: who was waited for is told of each

cdef i64 long_hold = 0          # ns: holds that are longer are told apart by who held
cdef i64 began_wall, began_work, began_no_core, began_faults    # of the hold just now
cdef i64 held                   # ns for which somebody had the lock, all holds together, less what he had no core for
cdef u64 takes, waits
cdef u64 waited[BUCKETS]        # of processors, while somebody else had it
cdef i64 longest_wait, longest_net
_holders = {}                   # who: [holds, longest work, longest waiting for something, longest without a core, most pages]
_last = []                      # the last 32 holds: (their end, who, work, waiting, without a core, pages)
_waits = []                     # the last 100 long waits


cdef class ErrandLock(DeviceLock):
    """A DeviceLock in all else."""

    cdef void acquire(self) noexcept nogil:
        if vr_watching:
            self.acquire_watched()
            return
        pthread_mutex_lock(&self.mutex)
        if self.depth == 0:
            self.owner = pthread_self()
            self.holds += 1
        self.depth += 1

    cdef void release(self) noexcept nogil:
        cdef Errand *errand = NULL
        if vr_watching and self.depth == 1 and began_wall:
            self.release_watched()
        self.depth -= 1
        if self.depth == 0:
            errand = self.first
            self.first = self.last = NULL
            self.count = 0
            self.owner = 0
        pthread_mutex_unlock(&self.mutex)
        if errand != NULL:
            if PyGILState_Check():
                with gil:                               # it is held: what follows lets it go
                    run_free(errand)
            else:
                run_all(errand)

    cdef void acquire_watched(self) noexcept nogil:
        global takes, waits, longest_wait, longest_net, began_wall, began_work, began_no_core, began_faults, noted
        cdef i64 since = 0, own, before, wait, net
        cdef int bucket
        if self.owner == pthread_self():
            pthread_mutex_lock(&self.mutex)
            self.depth += 1
            return
        if pthread_mutex_trylock(&self.mutex) == 0:
            wait = net = 0
        else:
            since, own, before = vr_clock(CLOCK_MONOTONIC), vr_no_core(), held
            pthread_mutex_lock(&self.mutex)
            wait = vr_clock(CLOCK_MONOTONIC) - since
            net = max(min(wait - (vr_no_core() - own), held - before), <i64>0)
        if vr_is_cpu():
            takes += 1
            waits += wait != 0
            longest_wait, longest_net = max(longest_wait, wait), max(longest_net, net)
            bucket = 0
            while net >= 2000 << bucket and bucket < BUCKETS - 1:
                bucket += 1
            waited[bucket] += 1
            if net >= LONG_WAIT:
                note_wait(since, wait, net)
        self.owner = pthread_self()
        self.holds += 1
        self.depth = 1
        noted = NULL
        began_no_core, began_faults, began_work = vr_no_core(), vr_faults(), vr_clock(CLOCK_THREAD_CPUTIME_ID)
        began_wall = vr_clock(CLOCK_MONOTONIC)

    cdef void release_watched(self) noexcept nogil:
        global held, began_wall
        cdef i64 wall = vr_clock(CLOCK_MONOTONIC) - began_wall
        cdef i64 work, no_core
        began_wall = 0
        if wall < long_hold:                                    # it may have lost its core for less than that: no matter
            held += wall
            return
        work, no_core = vr_clock(CLOCK_THREAD_CPUTIME_ID) - began_work, vr_no_core() - began_no_core
        held += wall - no_core
        note_hold(work, max(wall - work - no_core, <i64>0), no_core, vr_faults() - began_faults)

    cdef bint mine(self) noexcept nogil:
        """Whether this thread holds it."""
        return self.owner == pthread_self()

    cdef bint put_off(self, Errand *errand) noexcept nogil:
        """Have `errand.run(errand)` called by this thread when it has let the lock go. False: it is not called; the lock is
        not this thread's, or the thread has enough to do.
        """
        if self.owner != pthread_self() or vr_on_errand or self.count == MOST:
            return False
        errand.next = NULL
        if self.last == NULL:
            self.first = errand
        else:
            self.last.next = errand
        self.last = errand
        self.count += 1
        return True

    def __enter__(self):
        with nogil:
            self.acquire()
        return self

    def __exit__(self, *exc):
        with nogil:
            self.release()
        return False


cdef void note_hold(i64 work, i64 waiting, i64 no_core, i64 pages) noexcept with gil:
    """Somebody had the lock for long; he has it still."""
    cdef char name[16]
    cdef object what = <object>noted if noted != NULL else None
    if what is not None:
        who = f"{type(what).__module__}.{type(what).__name__} {getattr(what, 'name', '')}".strip()
    else:
        try:
            frame = sys._getframe()
            who = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        except ValueError:
            vr_name(name)
            who = f"thread {name.decode(errors='replace')}"
    row = _holders.setdefault(who, [0, 0, 0, 0, 0])
    row[:] = row[0] + 1, max(row[1], work), max(row[2], waiting), max(row[3], no_core), max(row[4], pages)
    _last.append((vr_clock(CLOCK_MONOTONIC), who, work, waiting, no_core, pages))
    del _last[:-32]


cdef void note_wait(i64 since, i64 wait, i64 net) noexcept with gil:
    """A processor has waited for long, and has the lock now."""
    _waits.append((wait, net, [hold[1:] for hold in _last if hold[0] > since]))
    del _waits[:-100]


def watch(i64 ns=100_000):
    """Measure from now on; who holds the lock for longer than `ns` is told apart."""
    global long_hold, vr_watching
    long_hold, vr_watching = ns, 1


def watched():
    """What was measured: {takes, waits, buckets: [how many processors waited less than 2 us, 4 us, … while somebody else had the
    lock and a core], longest: ns of any wait, longest-net: of these, holders: {who: (holds, longest ns of work, of
    waiting for something, without a core, most pages that the host gave)}, long-waits: of processors, 1 ms and more, the last 100:
    [(ns, ns while somebody had the lock and a core, [(who, work, waiting, no core, pages) of the holds that it waited for])]}.
    """
    return {
        "takes": takes, "waits": waits, "buckets": [waited[n] for n in range(BUCKETS)], "longest": longest_wait,
        "longest-net": longest_net, "holders": {who: tuple(row) for who, row in _holders.items()},
        "long-waits": list(_waits),
    }


cdef void run_all(Errand *errand) noexcept nogil:
    global vr_on_errand
    cdef Errand *next
    vr_on_errand = 1
    while errand != NULL:
        next = errand.next                              # its owner may take it again
        errand.run(errand)
        errand = next
    vr_on_errand = 0


cdef void run_free(Errand *errand) noexcept:
    with nogil:
        run_all(errand)


# A worker may still wait for the lock of a queue whose device is gone, to find its transfer given up: locks are not freed.
_spare = []


def spare_lock():
    """A lock for a queue, which nobody holds."""
    return _spare.pop() if _spare else DeviceLock()


def give_back(DeviceLock lock):
    """Its queue needs it no more."""
    _spare.append(lock)
