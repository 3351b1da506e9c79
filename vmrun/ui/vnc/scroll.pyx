"""What a client's picture can be made of by copying within it: rows that only moved up or down.

A viewer's picture is what it was last sent, so a number for each row of it is enough to find rows again; nothing of the
picture is kept. Whole rows alone: text that scrolls, consoles on frame buffers. Windows that move would need the old
pixels, three megabytes for each client. Where much changes and nothing of it was moved, not every update is looked at.
"""

from libc.stdlib cimport calloc, free

from accel.api cimport u8, u32, u64
from vmrun.core.pixels cimport pixels_number
from vmrun.core.surface cimport Surface

cdef enum:
    SAMPLES = 24                # rows that are looked for where they came from
    SHORTEST = 8                # rows that are worth a copy
    MUCH = 8                    # an eighth of all rows: a look at so many in vain is not repeated at once
    MOST_REST = 3               # updates that are left out at most
    UNKNOWN = 0                 # the number of a row that was not looked at


cdef class Rows:
    """The rows that a client has. `note` what was sent, then `moves` finds what of it can be copied."""

    cdef u64 *seen              # numbers of the rows that it has
    cdef u64 *now
    cdef readonly u32 width, height
    cdef bint whole             # it has the whole picture
    cdef bint counted           # `now` is of what is to be noted
    cdef bint resting           # what is to be noted is not looked at
    cdef u32 rest, pause        # updates that are still left out; how many after the next look in vain

    def __dealloc__(self):
        free(self.seen)
        free(self.now)

    def forget(self):
        """The client may have lost its picture."""
        self.whole = False

    def _fit(self, Surface surface):
        """Another size: nothing is known of it."""
        if self.seen != NULL and (self.width, self.height) == (surface.width, surface.height):
            return
        free(self.seen)
        free(self.now)
        self.seen, self.now = <u64 *>calloc(surface.height, 8), <u64 *>calloc(surface.height, 8)
        if self.seen == NULL or self.now == NULL:
            raise MemoryError
        self.width, self.height, self.whole = surface.width, surface.height, False

    def note(self, Surface surface, rectangles):
        """The client has been sent these parts, (x, y, width, height) each, and has all the others as they are."""
        cdef u32 y
        cdef bint counted = self.counted, resting = self.resting
        self._fit(surface)
        self.counted = self.resting = False
        if not self.whole:
            counted = resting = False
            rectangles = [(0, 0, surface.width, surface.height)]
            self.whole = True
        for _, top, _, height in rectangles:
            for y in range(top, min(<u32>(top + height), self.height)):
                if resting:
                    self.seen[y] = UNKNOWN
                else:
                    self.seen[y] = self.now[y] if counted else pixels_number(surface.row(y), self.width)

    def moves(self, Surface surface, rectangles):
        """[(to, from, rows)], in an order in which none spoils another's source, of what is in the rectangles; [] when less
        than half of the rows that changed came from elsewhere. `note` of the same rectangles is next.
        """
        cdef u32 y, top = surface.height, behind = 0, sample, start, step, changed = 0, found, best_found = 0, at
        cdef u32 most = 0
        cdef long move, best = 0, other
        cdef u8 *dirty
        self._fit(surface)
        self.counted = False
        if not self.whole:
            return []
        for _, _, _, height in rectangles:
            most += height
        if most >= self.height // MUCH and self.rest:
            self.rest -= 1
            self.resting = self.rest > 0         # what the last of them notes is what the next look needs
            return []
        dirty = <u8 *>calloc(self.height + 1, 1)
        if dirty == NULL:
            raise MemoryError
        try:
            for _, first, _, height in rectangles:
                for y in range(first, min(<u32>(first + height), self.height)):
                    dirty[y] = 1
            for y in range(self.height):
                if not dirty[y] and self.seen[y] == UNKNOWN:    # the client has what is there
                    self.seen[y] = pixels_number(surface.row(y), self.width)
                self.now[y] = pixels_number(surface.row(y), self.width) if dirty[y] else self.seen[y]
                if self.now[y] != self.seen[y]:
                    changed += 1
                    top, behind = min(top, y), y + 1
            self.counted = True
            if changed < 2 * SHORTEST:
                return []
            step = max(changed // SAMPLES, <u32>1)
            sample = 0
            for y in range(top, behind):
                # a row that differs from what is above it, so that it can be told from its neighbours
                if self.now[y] == self.seen[y] or y and self.now[y] == self.now[y - 1]:
                    continue
                sample += 1
                if sample % step and step > 1:
                    continue
                for at in range(self.height):
                    move = <long>at - <long>y
                    if self.seen[at] != self.now[y] or not move or move == best:
                        continue
                    found = self._count(move)
                    if found > best_found:
                        best, best_found = move, found
                    break
            if 2 * best_found < changed:
                if most >= self.height // MUCH:
                    self.rest = self.pause = min(2 * self.pause + 1, <u32>MOST_REST)
                return []
            self.pause = 0
            runs = []
            start = self.height
            for y in range(self.height + 1):
                other = <long>y + best
                if y < self.height and 0 <= other < <long>self.height and self.now[y] == self.seen[other] and (
                    self.now[y] != self.seen[y] or start < self.height
                ):
                    start = min(start, y)
                    continue
                if start < self.height and y - start >= SHORTEST:
                    runs.append((start, start + best, y - start))
                start = self.height
        finally:
            free(dirty)
        return runs if best > 0 else runs[::-1]

    cdef u32 _count(self, long move):
        """Changed rows that are `move` further down in what the client has."""
        cdef u32 y, count = 0
        cdef long other
        for y in range(self.height):
            other = <long>y + move
            if 0 <= other < <long>self.height and self.now[y] != self.seen[y] and self.now[y] == self.seen[other]:
                count += 1
        return count
