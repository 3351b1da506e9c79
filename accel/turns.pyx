"""What a guest makes long goes in turns: others want the device lock.

    self.rest = turn_of(self, go_on)                # cdef void go_on(void *owner) noexcept nogil
    iothread.add(self.rest)
    self.rest.notifier.signal()                     # the next turn: go_on(self) on the I/O thread, with the device lock
"""


cdef class Turn(EventHandler):
    """One owner's next turn. `name`: whose it is, for who looks at holders of the lock (accel.errands)."""

    cdef void kicked(self) noexcept nogil:
        self.go(self.owner)


cdef Turn turn_of(object owner, turn_fn go):
    turn = Turn()
    turn.owner, turn.go = <void *>owner, go
    turn.name = type(owner).__name__
    return turn
