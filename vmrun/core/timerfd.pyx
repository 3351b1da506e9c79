"""A timer descriptor for the main loop: epoll rounds its time-out to milliseconds, a timerfd does not.

Not in Python's os module before 3.13.
"""

from posix.time cimport itimerspec
from posix.unistd cimport close, read as posix_read

from accel.api cimport i64, u64

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec *, itimerspec *)
    int TFD_NONBLOCK
    int TFD_CLOEXEC

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC


cdef class TimerFd:
    """Readable once `set(ns)` nanoseconds have passed. Raises OSError when descriptors run out."""

    cdef readonly int fd

    def __cinit__(self):
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError("timerfd: out of file descriptors")

    def __dealloc__(self):
        self.close()

    def fileno(self):
        return self.fd

    def set(self, i64 ns):
        """Fire once, `ns` from now; 0 or less disarms."""
        cdef itimerspec spec
        if ns < 0:
            ns = 0
        spec.it_interval.tv_sec = 0
        spec.it_interval.tv_nsec = 0
        spec.it_value.tv_sec = ns // 1000000000
        spec.it_value.tv_nsec = ns % 1000000000
        timerfd_settime(self.fd, 0, &spec, NULL)

    def clear(self):
        cdef u64 count
        posix_read(self.fd, &count, 8)

    def close(self):
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
