"""blkdebug: errors on demand, and requests that wait until they are let go; for tests of what is above.

A rule waits for an event (`read_aio`, `l2_update` …; `none`: at once) in a state (0: any); then it fails the next
requests of its kinds at its place, once, or until an event has other rules, whatever the state is then. A set-state
rule makes another state of the machine of states.
"""

from libc.errno cimport EAGAIN

from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_init, pthread_cond_wait, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_unlock,
)

from vmrun.backends.block.bounded cimport BoundedNode
from vmrun.backends.block.node cimport (
    EVENT_FLUSH_TO_DISK, EVENT_FLUSH_TO_OS, EVENT_NONE, EVENT_READ_AIO, EVENT_WRITE_AIO, NODE_NOWAIT, Extent, Filter,
)

EVENTS = (
    "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l2_load", "l2_update",
    "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write", "read_aio", "read_backing_aio",
    "read_compressed", "write_aio", "write_compressed", "vmstate_load", "vmstate_save", "cow_read", "cow_write",
    "reftable_load", "reftable_grow", "reftable_update", "refblock_load", "refblock_update", "refblock_update_part",
    "refblock_alloc", "refblock_alloc_hookup", "refblock_alloc_write", "refblock_alloc_write_blocks",
    "refblock_alloc_write_table", "refblock_alloc_switch_table", "cluster_alloc", "cluster_alloc_bytes",
    "cluster_free", "flush_to_os", "flush_to_disk", "pwritev_rmw_head", "pwritev_rmw_after_head",
    "pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_zero", "pwritev_done", "empty_image_prepare",
    "l1_shrink_write_table", "l1_shrink_free_l2_clusters", "cor_write", "cluster_alloc_space", "none",
)
KINDS = ("read", "write", "write-zeroes", "discard", "flush", "block-status")

cdef enum:
    READ = 1
    WRITE = 2
    ZERO = 4
    DISCARD = 8
    FLUSH = 16
    STATUS = 32


cdef class DebugNode(BoundedNode):

    def __init__(self, file):
        Filter.__init__(self, file)
        self.driver = "blkdebug"
        self.stops_at = -1
        self.state = 1
        self.tags = {}
        for n in range(RULES):
            self.breaks[n].event = -1
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.resumed, NULL)

    def _free(self):
        for n in range(RULES):
            if not self.rules[n].used:
                return n
        raise ValueError("too many rules")

    def inject(self, str event="none", int error=5, *, kinds=None, sector=None, bint once=False, int state=0):
        """Fail requests of `kinds` (all but block-status) that touch `sector` (512 bytes; None: any)."""
        n = self._free()
        cdef Rule *rule = &self.rules[n]
        rule.event, rule.state, rule.error = EVENTS.index(event), state, error
        rule.once, rule.sets_state = once, False
        rule.kinds = sum(1 << KINDS.index(kind) for kind in (kinds or KINDS[:5]))
        rule.anywhere = sector is None
        rule.offset = 0 if sector is None else sector * 512
        rule.active = rule.event == EVENT_NONE
        rule.used = True

    def set_state(self, str event, int new_state, int state=0):
        n = self._free()
        cdef Rule *rule = &self.rules[n]
        rule.event, rule.state, rule.new_state = EVENTS.index(event), state, new_state
        rule.sets_state, rule.active, rule.kinds = True, False, 0
        rule.used = True

    def clear(self):
        """No rules any more."""
        pthread_mutex_lock(&self.mutex)
        for n in range(RULES):
            self.rules[n].used = False
        pthread_mutex_unlock(&self.mutex)

    def suspend(self, str event):
        """Whoever comes to `event` waits until resume()."""
        self.stops_at = EVENTS.index(event)

    def resume(self):
        pthread_mutex_lock(&self.mutex)
        self.stops_at = -1
        pthread_cond_broadcast(&self.resumed)
        pthread_mutex_unlock(&self.mutex)

    def add_break(self, str event, str tag):
        """The next request that comes to `event` waits until resume_tag(). ValueError: there is no such event."""
        number = self.tags.setdefault(tag, len(self.tags) + 1)
        what = EVENTS.index(event)
        for n in range(RULES):
            if self.breaks[n].event < 0:
                self.breaks[n].tag, self.breaks[n].event = number, what
                return
        raise ValueError("too many breakpoints")

    def waits(self, str tag):
        """Whether a request waits under the tag."""
        cdef Held *held
        cdef bint found = False
        cdef u32 number = self.tags.get(tag, 0)
        pthread_mutex_lock(&self.mutex)
        held = self.waiting
        while held != NULL:
            found = found or held.tag == number and not held.resumed
            held = held.next
        pthread_mutex_unlock(&self.mutex)
        return found

    def resume_tag(self, str tag, bint drop=False):
        """Let go who waits under the tag; `drop`: the breakpoints of that tag are gone, too. False: there was neither."""
        cdef Held *held
        cdef bint found = False
        cdef u32 number = self.tags.get(tag, 0)
        pthread_mutex_lock(&self.mutex)
        for n in range(RULES):
            if drop and self.breaks[n].event >= 0 and self.breaks[n].tag == number:
                self.breaks[n].event, found = -1, True
        held = self.waiting
        while held != NULL:
            if held.tag == number and not held.resumed and (drop or not found):
                held.resumed = found = True
            held = held.next
        pthread_cond_broadcast(&self.resumed)
        pthread_mutex_unlock(&self.mutex)
        return found

    def let_all_go(self):
        """No breakpoint any more, and nobody waits."""
        for tag in self.tags:
            self.resume_tag(tag, True)
        self.resume()

    cdef void say(self, const char *what, u32 number) noexcept nogil:
        """Whom it may concern; without the mutex."""
        with gil:
            for tag, known in list(self.tags.items()):
                if known == number:
                    self.tell(f"blkdebug: {(<bytes>what).decode()} request '{tag}'\n")

    def listen(self, tell):
        """tell(text) is called when a request waits at a breakpoint, and when it goes on."""
        self.tell, self.tells = tell, True

    cdef void deactivate(self) noexcept nogil:
        cdef int n
        for n in range(RULES):
            self.rules[n].active = False

    cdef void event(self, int what) noexcept nogil:
        cdef int n, state
        cdef bint first = True
        cdef Held me
        cdef Held **at
        pthread_mutex_lock(&self.mutex)
        state = self.state
        for n in range(RULES):
            if self.rules[n].used and self.rules[n].event == what and self.rules[n].state in (0, state):
                if self.rules[n].sets_state:
                    self.state = self.rules[n].new_state
                else:
                    if first:  # those that other events made active have had their turn
                        self.deactivate()
                        first = False
                    self.rules[n].active = True
        for n in range(RULES):
            if self.breaks[n].event == what:
                self.breaks[n].event = -1
                me.tag, me.resumed, me.next = self.breaks[n].tag, False, self.waiting
                self.waiting = &me  # before it is told: who hears of it may let it go at once
                if self.tells:
                    pthread_mutex_unlock(&self.mutex)
                    self.say(b"Suspended", me.tag)
                    pthread_mutex_lock(&self.mutex)
                while not me.resumed:
                    pthread_cond_wait(&self.resumed, &self.mutex)
                at = &self.waiting
                while at[0] != &me:
                    at = &at[0].next
                at[0] = me.next
                if self.tells:
                    pthread_mutex_unlock(&self.mutex)
                    self.say(b"Resuming", me.tag)
                    pthread_mutex_lock(&self.mutex)
                break
        while self.stops_at == what:
            self.suspended += 1
            pthread_cond_wait(&self.resumed, &self.mutex)
            self.suspended -= 1
        pthread_mutex_unlock(&self.mutex)
        self.file.event(what)

    cdef int check(self, u32 kind, u64 offset, u64 bytes) noexcept nogil:
        """The error that a rule has for this request, or 0."""
        cdef int n, error = 0
        cdef Rule *rule
        pthread_mutex_lock(&self.mutex)
        for n in range(RULES):
            rule = &self.rules[n]
            if rule.used and rule.active and rule.kinds & kind:
                if rule.anywhere or offset <= rule.offset < offset + bytes:
                    error = rule.error
                    if rule.once:
                        rule.used = False
                    break
        pthread_mutex_unlock(&self.mutex)
        return error

    cdef int part_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error = self.check(READ, offset, bytes)
        return error if error else self.file.readv(offset, bytes, to, flags)

    cdef int part_write(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef int error = self.check(WRITE, offset, bytes)
        return error if error else self.file.writev(offset, bytes, source, flags)

    cdef int part_zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef int error = self.check(ZERO, offset, bytes)
        return error if error else self.file.zero(offset, bytes, flags)

    cdef int part_discard(self, u64 offset, u64 bytes) noexcept nogil:
        cdef int error = self.check(DISCARD, offset, bytes)
        return error if error else self.file.discard(offset, bytes)

    cdef int flush(self) noexcept nogil:
        cdef int error
        self.event(EVENT_FLUSH_TO_OS)
        self.event(EVENT_FLUSH_TO_DISK)
        error = self.check(FLUSH, 0, 0)
        return error if error else self.file.flush()

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef int error = self.check(STATUS, offset, bytes)
        return error if error else BoundedNode.status(self, offset, bytes, found)


cdef class HeardNode(Filter):
    """The raw format on a node that wants to hear what it does."""

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        if flags & NODE_NOWAIT:
            return EAGAIN
        self.file.event(EVENT_READ_AIO)
        return self.file.readv(offset, bytes, to, flags)

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        self.file.event(EVENT_WRITE_AIO)
        return self.file.writev(offset, bytes, source, flags)
