"""Threads that wait for the host's disks, shared by all drives of the process.

`pool_put(job)` has `job.run(job)` called on one of them, without the GIL and without any lock, at once or when `due` has
come. A thread is started when a job finds all others busy, up to MOST, and when one takes a job and leaves another that
nobody waits for: jobs may wait for each other, or for a host that does not answer. A thread that had nothing to do for ten
seconds ends.
A job's memory is its owner's; the pool does not touch it once it runs.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from accel.threads cimport (
    PTHREAD_CREATE_DETACHED, pthread_atfork, pthread_attr_destroy, pthread_attr_init, pthread_attr_setdetachstate,
    pthread_attr_setstacksize, pthread_attr_t, pthread_cond_init, pthread_cond_signal, pthread_cond_t,
    pthread_cond_timedwait, pthread_condattr_init, pthread_condattr_setclock, pthread_condattr_t, pthread_create,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, pthread_t,
)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *)
    int pthread_sigmask(int, sigset_t *, sigset_t *)
    int SIG_SETMASK

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, const char *, int, int, int)
    int PR_SET_NAME

cdef enum:
    MOST = 64
    STACK = 1 << 20
cdef u64 PATIENCE = 10_000_000_000

cdef pthread_mutex_t mutex
cdef pthread_cond_t work
cdef Job *head = NULL           # in the order of `due`
cdef Job *tail = NULL
cdef int threads = 0, idle = 0


cdef void prepare() noexcept nogil:
    """A pool without threads or jobs; in the child of a fork too, which has none of the threads."""
    global head, tail, threads, idle
    cdef pthread_condattr_t attr
    pthread_mutex_init(&mutex, NULL)
    pthread_condattr_init(&attr)
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC)
    pthread_cond_init(&work, &attr)
    head = tail = NULL
    threads = idle = 0


prepare()
pthread_atfork(NULL, NULL, prepare)


cdef u64 pool_now() noexcept nogil:
    """CLOCK_MONOTONIC in ns."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <u64>now.tv_sec * 1_000_000_000 + <u64>now.tv_nsec


cdef void pool_put(Job *job) noexcept nogil:
    global head, tail, threads
    cdef Job **at
    cdef bint grow = False, wake = False
    pthread_mutex_lock(&mutex)
    if tail == NULL or tail.due <= job.due or job.due == 0 and tail.due == 0:
        job.next = NULL
        if tail == NULL:
            head = job
        else:
            tail.next = job
        tail = job
    else:
        at = &head
        while at[0] != NULL and at[0].due <= job.due:
            at = &at[0].next
        job.next = at[0]
        at[0] = job
        if job.next == NULL:
            tail = job
    if idle:
        wake = True
    elif threads < MOST:
        threads += 1
        grow = True
    pthread_mutex_unlock(&mutex)
    if wake:
        pthread_cond_signal(&work)                  # without the mutex, which is what a woken thread wants first
    if grow and not start_thread():
        pthread_mutex_lock(&mutex)
        threads -= 1
        grow = threads == 0
        pthread_mutex_unlock(&mutex)
        if grow:
            run_one()                               # a host without threads: better slow than never


cdef Job *pool_take(bint (*wanted)(Job *, void *) noexcept nogil, void *owner) noexcept nogil:
    """Those of the waiting jobs that wanted(job, owner) picks, chained by `next` in their order: the caller's again."""
    global head, tail
    cdef Job *taken = NULL
    cdef Job **end = &taken
    cdef Job **at = &head
    pthread_mutex_lock(&mutex)
    tail = NULL
    while at[0] != NULL:
        if wanted(at[0], owner):
            end[0] = at[0]
            end = &at[0].next
            at[0] = at[0].next
        else:
            tail = at[0]
            at = &at[0].next
    end[0] = NULL
    pthread_mutex_unlock(&mutex)
    return taken


cdef bint start_thread() noexcept nogil:
    cdef pthread_attr_t attr
    cdef pthread_t thread
    cdef sigset_t every, before
    cdef int error
    pthread_attr_init(&attr)
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED)
    pthread_attr_setstacksize(&attr, STACK)
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, &before)   # signals are for the main thread
    error = pthread_create(&thread, &attr, loop, NULL)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    pthread_attr_destroy(&attr)
    return error == 0


cdef void run_one() noexcept nogil:
    global head, tail
    cdef Job *job
    pthread_mutex_lock(&mutex)
    job = head
    if job != NULL:
        head = job.next
        if head == NULL:
            tail = NULL
    pthread_mutex_unlock(&mutex)
    if job != NULL:
        job.run(job)


cdef void *loop(void *nothing) noexcept nogil:
    global head, tail, threads, idle
    cdef Job *job
    cdef u64 now, until, rested
    cdef timespec when
    cdef bint grow
    prctl(PR_SET_NAME, "block", 0, 0, 0)
    pthread_mutex_lock(&mutex)
    rested = pool_now() + PATIENCE
    while True:
        job = head
        if job != NULL and (job.due == 0 or job.due <= pool_now()):
            head = job.next
            if head == NULL:
                tail = NULL
            # Two that came at once have found the same thread idle: the other shall not wait for this one.
            grow = head != NULL and idle == 0 and threads < MOST
            threads += grow
            pthread_mutex_unlock(&mutex)
            if grow and not start_thread():
                pthread_mutex_lock(&mutex)
                threads -= 1
                pthread_mutex_unlock(&mutex)
            job.run(job)
            pthread_mutex_lock(&mutex)
            rested = pool_now() + PATIENCE
            continue
        now = pool_now()
        if job == NULL and now >= rested:
            break
        until = rested
        if job != NULL:
            until = job.due
        when.tv_sec, when.tv_nsec = until // 1_000_000_000, until % 1_000_000_000
        idle += 1
        pthread_cond_timedwait(&work, &mutex, &when)
        idle -= 1
    threads -= 1
    pthread_mutex_unlock(&mutex)
    return NULL
