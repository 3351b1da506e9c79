from accel.api cimport u32, u64
from accel.threads cimport pthread_cond_t, pthread_mutex_t
from vmrun.backends.block.bounded cimport BoundedNode
from vmrun.backends.block.node cimport Cursor, Filter

cdef enum:
    RULES = 64

cdef struct Rule:
    bint used, active, once, sets_state
    int event, state, new_state
    int error
    u32 kinds                       # bits of KIND_…
    bint anywhere
    u64 offset                      # bytes


# Of a breakpoint: the next that comes to `event` waits under this tag.
cdef struct Break:
    int event                       # -1: none
    u32 tag

# Of one that waits, on its own stack.
cdef struct Held:
    u32 tag
    bint resumed
    Held *next


cdef class DebugNode(BoundedNode):
    cdef Break breaks[RULES]
    cdef Held *waiting
    cdef dict tags                  # name → number
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t resumed
    cdef Rule rules[RULES]
    cdef int state
    cdef int stops_at               # event that suspends, -1: none
    cdef readonly u32 suspended     # threads that wait
    cdef object tell                # of who listens
    cdef bint tells
    cdef void say(self, const char *what, u32 number) noexcept nogil
    cdef void deactivate(self) noexcept nogil
    cdef int check(self, u32 kind, u64 offset, u64 bytes) noexcept nogil


cdef class HeardNode(Filter):
    pass
