"""The device lock of a machine, and what its holder does when he has let it go.

Some work of a device may wait for the host, if only for moments, so that nobody may do it with the device lock held; handing it
to another thread costs more than the work. `put_off` keeps it until the same thread has released the lock. An
errand may take the lock again; what is put off meanwhile is refused, so that a guest whose errands lead to errands keeps
no thread for ever.
"""

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    unsigned long pthread_self()

cdef extern from "<Python.h>" nogil:
    int PyGILState_Check()

cdef extern from *:
    """
    static __thread int vr_on_errand;       /* this thread is running some just now */
    """
    int vr_on_errand

cdef enum:
    MOST = 64                   # errands of one release


cdef class ErrandLock(DeviceLock):
    """A DeviceLock in all else."""

    cdef void acquire(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        if self.depth == 0:
            self.owner = pthread_self()
        self.depth += 1

    cdef void release(self) noexcept nogil:
        cdef Errand *errand = NULL
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
