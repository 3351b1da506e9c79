"""The blitter of Cirrus Logic's CL-GD5446: raster operations between areas of video memory and bytes of the processor.

Ref: as cirrus.pyx. Not modelled: blits from the screen to the processor.
Departures, all QEMU's: raster operation 90h is ~S|~D and DAh ~S&~D; a blit is over when its last byte has come; a
transparent copy compares what the operation gives with the key.

Blits are bounded by the sizes that the registers can say, and by video memory: what would lead outside is not done. The device
lock is held for TURN bytes at a time; to the processor that starts a blit it is over with the access, the others see it busy.
"""

from libc.string cimport memcpy

from accel.errands cimport Errand, ErrandLock
from vmrun.devices.display.vga cimport *

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    /* the sixteen operations of source and destination, GR32's code first */
    #define CIRRUS_OPERATIONS(X) \\
        X(0x00, 0) X(0x05, s & d) X(0x06, d) X(0x09, s & ~d) X(0x0b, ~d) X(0x0d, s) X(0x0e, ~0u) X(0x50, ~s & d) \\
        X(0x59, s ^ d) X(0x6d, s | d) X(0x90, ~s | ~d) X(0x95, ~(s ^ d)) X(0xad, s | ~d) X(0xd0, ~s) X(0xd6, ~s | d) \\
        X(0xda, ~s & ~d)
    static inline uint32_t cirrus_mix(uint8_t code, uint32_t s, uint32_t d) {
        switch (code) {
    #define X(value, expression) case value: return (expression);
        CIRRUS_OPERATIONS(X)
    #undef X
        }
        return d;
    }
    static void cirrus_mix_forward(uint8_t code, uint8_t *to, const uint8_t *from, size_t count) {
        switch (code) {
    #define X(value, expression) \\
        case value: \\
            for (size_t i = 0; i < count; i++) { \\
                uint32_t s = from[i], d = to[i]; (void)s; (void)d; \\
                to[i] = (uint8_t)(expression); \\
            } \\
            break;
        CIRRUS_OPERATIONS(X)
    #undef X
        }
    }
    static void cirrus_mix_backward(uint8_t code, uint8_t *to, const uint8_t *from, size_t count) {
        switch (code) {
    #define X(value, expression) \\
        case value: \\
            while (count--) { \\
                uint32_t s = *from--, d = *to; (void)s; (void)d; \\
                *to-- = (uint8_t)(expression); \\
            } \\
            break;
        CIRRUS_OPERATIONS(X)
    #undef X
        }
    }
    """
    u32 cirrus_mix(u8 code, u32 s, u32 d) noexcept nogil
    void cirrus_mix_forward(u8 code, u8 *to, const u8 *start, size_t count) noexcept nogil
    void cirrus_mix_backward(u8 code, u8 *to, const u8 *start, size_t count) noexcept nogil

cdef enum:
    TURN = 32768                # bytes

    # GR30
    BACKWARDS = 0x01
    TO_PROCESSOR = 0x02
    FROM_PROCESSOR = 0x04
    TRANSPARENT = 0x08
    PIXEL = 0x30
    PATTERN = 0x40
    EXPAND = 0x80
    # GR31
    BUSY = 0x01
    START = 0x02
    RESET = 0x04
    FIFO = 0x10
    # GR33
    DWORDS = 0x01
    INVERTED = 0x02
    SOLID = 0x04

    COPY = 0x0D                 # GR32: the source alone


cdef void go_on(Errand *errand) noexcept nogil:
    """The lines that are left, by the thread that started the blit; it does not hold the device lock."""
    cdef void *chip = <char *>errand - <size_t>&(<CirrusBlitter>NULL).errand
    cdef bint over = False
    while not over:
        over = (<CirrusBlitter>chip).another_turn()


cdef class CirrusBlitter(Vga):
    """`lock`: the machine's device lock, where its holder can put something off; None: a blit is done at one go."""

    def __cinit__(self, *args, lock=None, **keys):
        self.lock = <void *>lock if isinstance(lock, ErrandLock) else NULL
        self.errand.run = go_on

    cdef void access(self) noexcept nogil:
        """A blit waits for the processor's bytes, or no longer does: the chip's to override."""

    cdef bint another_turn(self) noexcept nogil:
        cdef bint over
        cdef void *lock = self.lock
        (<ErrandLock>lock).acquire()
        over = not self.left            # it was ended, or finished by a processor that wanted another
        if not over and self.turn():
            self.blit_end()
            over = True
        self.away = not over
        (<ErrandLock>lock).release()
        return over

    cdef bint fed(self) noexcept nogil:
        """A blit waits for the processor's bytes."""
        return self.wanted != 0

    cdef void blit_control(self, u8 value) noexcept nogil:
        """GR31: a falling reset bit ends a blit, a rising start bit begins one."""
        cdef u8 before = self.gfx[GR_BLT_START]
        self.gfx[GR_BLT_START] = value
        if before & RESET and not value & RESET:
            self.blit_end()
        elif value & START and not before & START:
            self.blit_start()

    cdef void blit_end(self) noexcept nogil:
        self.gfx[GR_BLT_START] &= <u8>~(START | BUSY | FIFO)
        self.filled = self.wanted = self.expected = self.left = 0
        self.access()

    cdef u32 colour(self, bint front) noexcept nogil:
        """A colour of colour expansion, as wide as a pixel."""
        cdef u32 found, first = 0x11 if front else 0x10
        found = (self.shadow1 if front else self.shadow0) | <u32>self.gfx[first] << 8
        found |= <u32>self.gfx[first + 2] << 16 | <u32>self.gfx[first + 4] << 24
        return found if self.pixel == 4 else found & ((<u32>1 << 8 * self.pixel) - 1)

    cdef void blit_start(self) noexcept nogil:
        cdef u8 *gr = self.gfx
        while self.left and not self.turn():    # another processor's, which waits for the lock
            pass
        gr[GR_BLT_START] |= BUSY
        self.width = (gr[0x20] | <u32>gr[0x21] << 8) + 1
        self.height = (gr[0x22] | <u32>gr[0x23] << 8) + 1
        self.destination_pitch = gr[0x24] | <i32>gr[0x25] << 8
        self.source_pitch = gr[0x26] | <i32>gr[0x27] << 8
        self.destination = (gr[0x28] | <u32>gr[0x29] << 8 | <u32>gr[0x2A] << 16) & self.mask
        self.source = (gr[0x2C] | <u32>gr[0x2D] << 8 | <u32>gr[0x2E] << 16) & self.mask
        self.pixel = (gr[0x30] >> 4 & 3) + 1
        self.mode = gr[0x30] & <u8>~PIXEL
        self.operation = gr[0x32]
        self.extension = gr[0x33]
        self.foreground, self.background = self.colour(True), self.colour(False)
        self.filled = self.wanted = self.expected = 0
        if self.blit_run():
            self.blit_end()

    cdef bint blit_run(self) noexcept nogil:
        """Do it. True when it is over, done or refused; False when the processor's bytes are waited for, or QEMU would
        leave it marked as busy.
        """
        if not self.blitter or self.mode & FROM_PROCESSOR and self.mode & TO_PROCESSOR:
            return True
        if self.extension & SOLID and self.mode & (TO_PROCESSOR | TRANSPARENT | PATTERN | EXPAND) == PATTERN | EXPAND:
            if self.width > LONGEST or self.outside(self.destination_pitch, self.destination):
                return False
            return self.lines()
        if not self.mode & (EXPAND | PATTERN):
            if self.mode & TRANSPARENT and self.pixel > 2:
                return True
            if self.mode & BACKWARDS:
                self.destination_pitch, self.source_pitch = -self.destination_pitch, -self.source_pitch
        if self.mode & TO_PROCESSOR or self.width > LONGEST:
            return True
        if self.outside(self.destination_pitch, self.destination):
            return True
        if self.mode & FROM_PROCESSOR:
            return not self.blit_from_processor()
        if self.mode & PATTERN:
            self.source &= ~(self.pattern_size() - 1)
        elif self.outside(self.source_pitch, self.source):
            return True
        return self.lines()

    cdef bint lines(self) noexcept nogil:
        """Draw from video memory. True when it is over; else the processor that asked goes on, a turn at a time, when it
        has let the device lock go.
        """
        if not self.mode & (EXPAND | PATTERN | BACKWARDS) and self.height > 1 and (
            self.destination_pitch < <i32>self.width or self.source_pitch < <i32>self.width
        ):
            return True
        self.to, self.start, self.row, self.left = self.destination, self.source, self.source & 7, self.height
        if self.turn():
            return True
        if self.lock != NULL and not self.away and (<ErrandLock>self.lock).put_off(&self.errand):
            self.away = True
            return False
        while not self.turn():
            pass
        return True

    cdef bint turn(self) noexcept nogil:
        """Some of the lines that are left; True when those were the last."""
        cdef u32 count = min(self.left, max(TURN // self.width, <u32>1))
        self.left -= count
        self.operate(count)
        return not self.left

    cdef u32 bits_a_pixel(self) noexcept nogil:
        """What is shown, by SR07: 8, 15, 16, 24, 32; 0 in the VGA's own modes."""
        cdef u32 depth = self.seq[SR_MODE] & 0x0E
        if not self.seq[SR_MODE] & 1:
            return 0
        if depth == 0x02 or depth == 0x06:
            return 16 if self.hidden_dac & 15 == 1 else 15
        if depth == 0x04:
            return 24
        return 32 if depth == 0x08 else 8

    cdef u32 pattern_size(self) noexcept nogil:
        """Bytes, by what is shown rather than by the pixels of the blit (QEMU's rule)."""
        cdef u32 bits = self.bits_a_pixel()
        return 64 if bits == 8 else 128 if bits == 15 or bits == 16 else 256

    cdef bint outside(self, i32 pitch, u32 address) noexcept nogil:
        """Whether lines of this pitch from there leave video memory."""
        cdef i64 last
        if pitch == 0:
            return True
        last = <i64>address + (<i64>self.height - 1) * pitch
        if pitch < 0:
            return last - <i64>self.width < -1 or address >= self.vram.size
        return last + <i64>self.width > <i64>self.vram.size

    cdef bint blit_from_processor(self) noexcept nogil:
        """Wait for its bytes; they come by any address of the window or of BAR 0."""
        cdef u32 pixels
        self.mode &= <u8>~FROM_PROCESSOR
        if self.mode & PATTERN:
            self.wanted = 8 if self.mode & EXPAND else 64 * self.pixel
            self.expected = self.wanted
        else:
            if self.mode & EXPAND:
                pixels = self.width // self.pixel
                self.wanted = (pixels + 31) >> 5 if self.extension & DWORDS else (pixels + 7) >> 3
            else:
                self.wanted = (self.width + 3) & ~<u32>3
            self.expected = self.wanted * self.height
        self.source_pitch = <i32>self.wanted
        if not self.wanted or self.wanted > LONGEST:
            return False
        self.filled = 0
        self.access()
        return True

    cdef void feed(self, u8 value) noexcept nogil:
        self.buffer[self.filled & (LONGEST - 1)] = value
        self.filled += 1
        if self.filled >= self.wanted:
            self.blit_line()

    cdef void blit_line(self) noexcept nogil:
        """A line has come, or a whole pattern."""
        self.filled = 0
        self.to, self.start, self.row = self.destination, 0, self.source & 7
        if self.mode & PATTERN:
            self.operate(self.height)
            self.blit_end()
            return
        self.operate(1)
        self.destination = self.destination + <u32>self.destination_pitch
        self.expected -= min(self.expected, self.wanted)
        if not self.expected:
            self.blit_end()

    cdef u8 fetch(self, u32 address) noexcept nogil:
        """A byte of the source: what the processor sent, or video memory."""
        return self.buffer[address & (LONGEST - 1)] if self.expected else self.vram.host[address & self.mask]

    cdef void operate(self, u32 height) noexcept nogil:
        """So many lines from `to` and `start` on, which then are those of the next one."""
        cdef u32 x, n, line
        if self.extension & SOLID and self.mode & (TO_PROCESSOR | TRANSPARENT | PATTERN | EXPAND) == PATTERN | EXPAND:
            n = (self.width + self.pixel - 1) // self.pixel * self.pixel
            for x in range(n):
                self.line[x] = <u8>(self.foreground >> 8 * (x % self.pixel))
            for line in range(height):
                self.put_line(self.to, n)
                self.to += <u32>self.destination_pitch
        elif self.mode & EXPAND:
            self.expand(height)
        elif self.mode & PATTERN:
            self.pattern(height)
        elif self.mode & TRANSPARENT:
            self.copy_seen_through(height)
        else:
            self.copy(height)

    cdef void put_line(self, u32 to, u32 count) noexcept nogil:
        """self.line over `count` bytes of memory, by the operation."""
        cdef u32 i, at
        to &= self.mask
        if self.pixel == 2 or self.pixel == 4:          # pixels are where memory has them
            to &= ~<u32>(self.pixel - 1)
        if to + count <= self.memory:
            cirrus_mix_forward(self.operation, self.vram.host + to, self.line, count)
            self.vram.mark_dirty(to, count)
            return
        for i in range(count):
            at = (to + i) & self.mask
            self.vram.host[at] = <u8>cirrus_mix(self.operation, self.line[i], self.vram.host[at])
        self.vram.mark_dirty(to, self.memory - to)
        self.vram.mark_dirty(0, count)

    cdef void copy(self, u32 height) noexcept nogil:
        """Byte by byte in the direction that the mode says: lines may overlap."""
        cdef u32 line, i, a, b, width = self.width
        cdef bint back = self.mode & BACKWARDS
        cdef u8 *memory = self.vram.host
        for line in range(height):
            a, b = self.to & self.mask, self.start & self.mask
            if self.expected:
                if back:
                    for i in range(width):
                        a = (self.to - i) & self.mask
                        memory[a] = <u8>cirrus_mix(self.operation, self.fetch(self.start - i), memory[a])
                    self.vram.mark_dirty(0, self.memory)
                else:
                    for i in range(width):
                        b = (a + i) & self.mask
                        memory[b] = <u8>cirrus_mix(self.operation, self.buffer[i], memory[b])
                    self.vram.mark_dirty(a, width)
                    if a + width > self.memory:
                        self.vram.mark_dirty(0, width)
            elif not back and a + width <= self.memory and b + width <= self.memory:
                if self.operation == COPY and (a + width <= b or b + width <= a):
                    memcpy(memory + a, memory + b, width)
                else:
                    cirrus_mix_forward(self.operation, memory + a, memory + b, width)
                self.vram.mark_dirty(a, width)
            elif back and a + 1 >= width and b + 1 >= width:
                cirrus_mix_backward(self.operation, memory + a, memory + b, width)
                self.vram.mark_dirty(a + 1 - width, width)
            else:
                for i in range(width):
                    a = (self.to - i if back else self.to + i) & self.mask
                    b = (self.start - i if back else self.start + i) & self.mask
                    memory[a] = <u8>cirrus_mix(self.operation, memory[b], memory[a])
                self.vram.mark_dirty(0, self.memory)
            self.to += <u32>self.destination_pitch
            self.start += <u32>self.source_pitch

    cdef void copy_seen_through(self, u32 height) noexcept nogil:
        """What the operation makes of a pixel stays away where it is the key."""
        cdef u32 line, x, a, b, value, old, key = self.gfx[GR_KEY], width = self.width
        cdef i32 step = -1 if self.mode & BACKWARDS else 1
        cdef u8 *memory = self.vram.host
        if self.pixel == 2:
            key |= <u32>self.gfx[GR_KEY + 1] << 8
        for line in range(height):
            a, b = self.to, self.start
            if self.pixel == 1:
                for x in range(width):
                    value = cirrus_mix(self.operation, self.fetch(b), memory[a & self.mask]) & 0xFF
                    if value != key:
                        memory[a & self.mask] = <u8>value
                        self.vram.mark_dirty(a & self.mask, 1)
                    a += <u32>step
                    b += <u32>step
            else:
                if step < 0:
                    a -= 1
                    b -= 1
                for x in range(0, width, 2):
                    old = a & self.mask & ~<u32>1
                    value = self.fetch(b & ~<u32>1) | <u32>self.fetch((b & ~<u32>1) + 1) << 8
                    value = cirrus_mix(self.operation, value, memory[old] | <u32>memory[old + 1] << 8) & 0xFFFF
                    if value != key:
                        memory[old], memory[old + 1] = <u8>value, <u8>(value >> 8)
                        self.vram.mark_dirty(old, 2)
                    a += <u32>(2 * step)
                    b += <u32>(2 * step)
            self.to += <u32>self.destination_pitch
            self.start += <u32>self.source_pitch

    cdef void expand(self, u32 height) noexcept nogil:
        """Bits become pixels of the foreground and background colour; transparent, those of one kind stay away."""
        cdef u32 line, x, n, bits, bit, skip, first, colour, at, i, step = self.pixel
        cdef u8 flip = 0
        cdef bint through = self.mode & TRANSPARENT, pattern = self.mode & PATTERN
        cdef u8 *memory = self.vram.host
        if through and step == 3:               # there GR2F counts bytes
            first = self.gfx[GR_SKIP] & 0x1F
            skip = first // 3
        else:
            skip = self.gfx[GR_SKIP] & 7
            first = skip * step
        colour = self.foreground
        if through and self.extension & INVERTED:
            flip = 0xFF
            colour = self.background
        for line in range(height):
            bits = self.fetch(self.start + self.row) if pattern else self.fetch(self.start)
            bits ^= flip
            if not pattern:
                self.start += 1
            bit = 7 - skip                      # beyond a byte when GR2F counts that far
            at = self.to + first
            n = 0
            x = first
            while x < self.width:
                if bit > 7 and not pattern:
                    bit = 7
                    bits = self.fetch(self.start) ^ flip
                    self.start += 1
                if through:
                    if bit <= 7 and bits >> bit & 1:
                        for i in range(step):
                            self.line[i] = <u8>(colour >> 8 * i)
                        self.put_line(at + n, step)
                else:
                    for i in range(step):
                        self.line[n + i] = <u8>((self.foreground if bits >> bit & 1 else self.background) >> 8 * i)
                n += step
                x += step
                bit = (bit - 1) & 7 if pattern else bit - 1
            if not through and n:
                self.put_line(at, n)
            self.row = (self.row + 1) & 7
            self.to += <u32>self.destination_pitch

    cdef void pattern(self, u32 height) noexcept nogil:
        """Eight lines of eight pixels, over and over."""
        cdef u32 line, x, n, i, column, step = self.pixel, span, first, base
        span = 8 if step == 1 else 16 if step == 2 else 32
        first = self.gfx[GR_SKIP] & 0x1F if step == 3 else (self.gfx[GR_SKIP] & 7) * step
        for line in range(height):
            base = self.start + self.row * span
            column = first
            n = 0
            x = first
            while x < self.width:
                for i in range(step):
                    if step == 3:
                        self.line[n + i] = self.fetch(base + column * 3 + i)
                    else:
                        self.line[n + i] = self.fetch(((base + column) & ~(step - 1)) + i)
                column = (column + 1) & 7 if step == 3 else (column + step) & (span - 1)
                n += step
                x += step
            if n:
                self.put_line(self.to + first, n)
            self.row = (self.row + 1) & 7
            self.to += <u32>self.destination_pitch
