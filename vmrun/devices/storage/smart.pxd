from accel.api cimport u8, u32

cdef enum:
    TESTS = 21                      # that the log remembers

ctypedef struct Health:
    bint enabled, saves             # SMART as a whole; that attributes save themselves
    u32 tests                       # in the log

cdef void smart_values(Health *health, u8 *data) noexcept nogil
cdef void smart_thresholds(u8 *data) noexcept nogil
cdef void smart_errors(u8 *data) noexcept nogil
cdef void smart_tests(Health *health, u8 *kinds, u8 *data) noexcept nogil
cdef bint smart_test(Health *health, u8 *kinds, u8 kind) noexcept nogil
