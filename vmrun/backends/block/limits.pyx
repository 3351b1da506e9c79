"""Bytes and requests per second, a budget of all that belong to a group: drives, and nodes of the driver throttle.

What is within a burst passes at once: a tenth of a second's worth, or what `-max` per second for `-max-length` seconds
comes to.
"""

from accel.threads cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock
from vmrun.backends.block.pool cimport pool_now

from vmrun.core.iolimits import RATES, checked


cdef class LimitGroup:
    """Without limits at first."""

    def __cinit__(self, str name=""):
        self.name, self.limits, self.members = name, {}, []
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    def set(self, dict limits):
        """Other limits, from now on: vmrun.core.iolimits has their names. ValueError."""
        cdef int n
        cdef double rates[BUDGETS]
        cdef double bursts[BUDGETS]
        cdef u64 unit
        found = checked(limits)
        for n, name in enumerate(RATES):
            rates[n] = rate = found.get(name, 0)
            bursts[n] = max(found.get(name + "-max", 0) * found.get(name + "-max-length", 1), rate / 10)
        unit = found.get("iops-size", 0)
        self.limits, self.limited = found, any(found.get(name) for name in RATES)
        pthread_mutex_lock(&self.mutex)                     # nothing of Python's meanwhile: it may let the GIL go
        for n in range(BUDGETS):
            self.rates[n], self.bursts[n], self.free_at[n] = rates[n], bursts[n], 0
        self.unit = unit
        self.changes += 1
        pthread_mutex_unlock(&self.mutex)
        for member in self.members:
            member.weigh()

    cdef double cost(self, int n, bint write, u64 bytes) noexcept nogil:
        """Of a transfer, in ns of a budget; less than 0 where that does not count it."""
        if self.rates[n] == 0 or n % 3 != 0 and n % 3 != (2 if write else 1):
            return -1
        if n < 3:
            return <double>bytes / self.rates[n] * 1e9
        return (<double>bytes / self.unit if self.unit and bytes > self.unit else 1) / self.rates[n] * 1e9

    cdef u64 admit(self, bint write, u64 bytes) noexcept nogil:
        """When a transfer may go, in ns of the pool's clock; 0: at once. It is paid for by what comes after it."""
        cdef u64 now = pool_now(), due = 0, start, burst
        cdef int n
        cdef double cost
        pthread_mutex_lock(&self.mutex)
        for n in range(BUDGETS):
            cost = self.cost(n, write, bytes)
            if cost < 0:
                continue
            start = max(now, self.free_at[n])
            self.free_at[n] = start + <u64>cost
            burst = <u64>(self.bursts[n] / self.rates[n] * 1e9)
            if start > now + burst:
                due = max(due, start - burst)
        pthread_mutex_unlock(&self.mutex)
        return due

    cdef void give_back(self, bint write, u64 bytes) noexcept nogil:
        """What was admitted and waits does not go, or is admitted anew: it has cost nothing."""
        cdef int n
        cdef double cost
        pthread_mutex_lock(&self.mutex)
        for n in range(BUDGETS):
            cost = self.cost(n, write, bytes)
            if cost > 0:
                self.free_at[n] -= min(<u64>cost, self.free_at[n])
        pthread_mutex_unlock(&self.mutex)
