"""virtio-gpu's chip, 2D: pictures of the guest's in resources of the host's, shown on its outputs.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.7.
Not modelled: 3D (VIRGL), blobs, the pointer in screenshots (it is the viewer's to draw).

Requests are few and large: each is answered in Python, what touches pixels is compiled. The memory of all resources,
their lists of guest memory included, is at most `room`; what is beyond is refused.

Locks: the device lock is held, but never for a whole large picture: a transfer moves a MiB at one go and the queue's thread
has the rest a moment later (in a saved machine it is over); what is shown is drawn without the lock.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.api cimport DeviceLock, u8, u32, u64
from accel.dma cimport Dma
from accel.ram cimport DirtyLog
from vmrun.bus.virtio.device cimport VirtioChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue
from vmrun.core.surface cimport Scanout, Surface

import struct

from vmrun.core.surface import MOST_PIXELS
from vmrun.core.edid import edid
from vmrun.errors import StateError

cdef enum:
    HEADER = 24
    ENTRY = 16                  # bytes, of a list of guest memory
    MOST_REQUEST = 32 + 16 * 16384
    MOST_ENTRIES = 16384
    SMALLEST = 4096             # bytes that a resource counts as, at least
    CURSOR_SIDE = 64
    BURST = 16                  # requests at one go, and bytes that they move, a line being ROW of them at least
    BURST_BYTES = 1 << 20
    ROW = 256

GET_DISPLAY_INFO, CREATE_2D, UNREF, SET_SCANOUT, FLUSH, TRANSFER, ATTACH, DETACH = range(0x100, 0x108)
GET_EDID = 0x10A
UPDATE_CURSOR, MOVE_CURSOR = 0x300, 0x301
OK, OK_DISPLAY_INFO, OK_EDID = 0x1100, 0x1101, 0x1104
UNSPECIFIED, NO_MEMORY, NO_SCANOUT, NO_RESOURCE, _, WRONG = range(0x1200, 0x1206)
FENCE = 1
EDID_ROOM = 1024                # bytes for it in an answer, all of which count, as with QEMU
EVENT_DISPLAY = 1
IDLE, ACTIVE = 1, 3             # at the beginning of saved content
SCREENS = 16                    # outputs at most, which an answer describes
OUTPUT = struct.Struct("<8I")   # of saved content: enabled, what is shown, which part of it, the monitor's size
# Where red, green and blue are in a pixel's bytes
FORMATS = {
    1: (2, 1, 0), 2: (2, 1, 0), 3: (1, 2, 3), 4: (1, 2, 3), 67: (0, 1, 2), 68: (3, 2, 1), 121: (3, 2, 1), 134: (0, 1, 2),
}


cdef struct Piece:
    u64 start, addr, length     # of the resource's backing; of guest memory


cdef class Resource:
    """A picture: `width` × `height` pixels of four bytes, in the guest's order."""

    cdef readonly u32 width, height, format
    cdef u8 *data
    cdef readonly u64 size
    cdef Piece *pieces
    cdef readonly u32 count
    cdef u32 near                       # the piece of the last look
    cdef u64 backed                     # bytes of all pieces
    def __cinit__(self, u32 width, u32 height, u32 format):
        self.width, self.height, self.format = width, height, format
        self.size = <u64>width * height * 4
        self.data = <u8 *>calloc(self.size, 1)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef u8 *data = self.data
        free(self.pieces)
        with nogil:                                             # a large one takes the host milliseconds
            free(data)

    @property
    def cost(self):
        return max(self.size, SMALLEST) + sizeof(Piece) * self.count

    def back(self, const u8[:] entries):
        """Guest memory, one piece behind the other: 64 bits of address, 32 of length, 32 of nothing each; none takes it away."""
        cdef u64 start = 0
        cdef u64 entry[2]
        cdef u32 n, count = <u32>(entries.shape[0] // ENTRY)
        free(self.pieces)
        self.pieces, self.count, self.near, self.backed = NULL, 0, 0, 0
        if not count:
            return
        self.pieces = <Piece *>calloc(count, sizeof(Piece))
        if self.pieces == NULL:
            raise MemoryError
        for n in range(count):
            memcpy(entry, &entries[n * ENTRY], ENTRY)
            self.pieces[n].start, self.pieces[n].addr, self.pieces[n].length = start, entry[0], <u32>entry[1]
            start += <u32>entry[1]
        self.count, self.backed = count, start

    def backing(self):
        """What back() was given."""
        return b"".join(struct.pack("<QQ", self.pieces[n].addr, self.pieces[n].length) for n in range(self.count))

    cdef void fetch(self, Dma dma, u64 offset, u8 *to, u64 count) noexcept nogil:
        """Bytes of the backing; what is behind its end, or no memory, stays as it is."""
        cdef u64 skip, part
        if offset >= self.backed:
            return
        if self.near == self.count or offset < self.pieces[self.near].start:
            self.near = 0
        while count:
            while self.near < self.count and offset >= self.pieces[self.near].start + self.pieces[self.near].length:
                self.near += 1
            if self.near == self.count:
                return
            skip = offset - self.pieces[self.near].start
            part = min(count, self.pieces[self.near].length - skip)
            dma.read_into(self.pieces[self.near].addr + skip, to, part)
            to += part
            offset += part
            count -= part

    def pixels(self):
        return self.data[:self.size]

    def load(self, bytes data):
        memcpy(self.data, <const u8 *>data, min(<u64>len(data), self.size))


cdef class Output:
    """A socket for a monitor, and what is shown on it."""

    cdef public bint enabled            # there is a monitor, as the driver is told
    cdef public tuple screen            # (width, height) of it; (0, 0) before a viewer has said any
    cdef public u32 shown               # the resource, 0 for none
    cdef public tuple part              # (x, y, width, height) of it
    cdef public object on_pointer       # on_pointer(moved only, picture, at) hears of the pointer
    cdef u32 top, bottom                # lines of the resource that were flushed since the last look

    def __init__(self, tuple screen):
        self.enabled, self.screen = screen != (0, 0), screen
        self.forget()

    cdef forget(self):
        self.shown, self.part = 0, (0, 0, 0, 0)
        self.top, self.bottom = 0, 0xFFFFFFFF

    cdef tuple flushed(self, bint full):
        """What is to be drawn: (where it begins, lines of what is shown). The device lock is held."""
        cdef u32 first, last
        left, top, width, height = self.part
        first = 0 if full or self.top <= top else self.top - top
        last = height if full or self.bottom >= top + height else self.bottom - top if self.bottom > top else 0
        self.top, self.bottom = 0xFFFFFFFF, 0
        return left, top, width, first, last


cdef struct Transfer:
    u64 start, first            # in the backing and in the resource, of the first line
    u64 pitch, line, lines      # bytes from line to line, of a line; lines
    u64 row, column             # where it is


cdef class GpuChip(VirtioChip):
    """`room`: bytes that resources may take; `outputs`: so many; the first one has a monitor from the beginning.
    `call_soon(callback)`: on a thread without the device lock.
    """

    cdef public dict resources
    cdef public u64 room, used
    cdef readonly list outputs
    cdef public tuple monitor
    cdef public bint active             # the driver has taken the screen, if only to show nothing on it
    cdef public object call_soon        # the main loop's
    cdef object parting                 # resources that are nobody's any more
    cdef Resource target                # of the transfer that is under way; None: there is none
    cdef Transfer move
    cdef Chain held                     # its request
    cdef bytes held_answer
    cdef VirtQueue control, pointer

    def __init__(self, dma, sizes, u64 room, tuple screen=(1280, 800), u32 outputs=1):
        super().__init__(dma, sizes)
        self.control, self.pointer = self.queues
        self.room = room
        self.outputs, self.monitor = [Output((0, 0) if n else screen) for n in range(outputs)], (0, 0, 0, 0, 0)
        self.set_config(struct.pack("<4I", 0, 0, outputs, 0))
        self.forget()

    def forget(self):
        """No resources, nothing shown, the screen left to whoever had it before."""
        cdef Output output
        self.active = False
        self.part_with(self.resources)
        self.resources, self.used = {}, 0
        for output in self.outputs:
            output.forget()
        self.target = self.held_answer = None

    def part_with(self, pictures):
        """To give their memory back takes the host milliseconds: somebody without the device lock is the last who has them. One
        such at a time, so that they do not become many.
        """
        if self.parting is None and self.call_soon is not None and pictures:
            self.parting = pictures
            self.call_soon(self.parted)

    def parted(self):
        self.parting = None

    cdef void stopped(self) noexcept nogil:
        with gil:
            self.forget()

    cdef void queue_stopped(self, u32 queue) noexcept nogil:
        if queue == 0:
            with gil:
                self.target = self.held_answer = None

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """events_clear: those bits of events_read."""
        if offset == 4:
            (<u32 *>self.config)[0] &= ~value
        (<u32 *>self.config)[1] = 0

    def set_screen(self, u32 width, u32 height, u32 number=0):
        """Another size of a monitor, or one where none was: the driver is told."""
        output = self.outputs[number]
        if (width, height) != output.screen:
            output.enabled, output.screen = True, (width, height)
            (<u32 *>self.config)[0] |= EVENT_DISPLAY
            with nogil:
                self.config_changed()

    cdef void kicked(self, u32 queue) noexcept nogil:
        with gil:
            self.serve_all(self.control if queue == 0 else self.pointer)

    cdef void serve_all(self, VirtQueue requests) noexcept:
        """What a queue holds, in its order; with a thread so much at a time."""
        cdef Chain chain
        cdef int result
        cdef u32 count = 0
        cdef u64 budget = BURST_BYTES if self.has_thread() else <u64>-1
        cdef bint some = False, control = requests.number == 0
        while True:
            if control and self.target is not None:
                if not self.go_on(&budget):
                    break
                self.finish_transfer(requests)
                some = True
            if count == BURST and self.has_thread():
                self.serve_later(requests.number)
                break
            result = requests.pop(&chain)
            if result <= 0:
                if result < 0:
                    self.fault()
                break
            count += 1
            answer = self.serve(requests, &chain)
            if control and self.target is not None:
                self.held, self.held_answer = chain, answer
                continue
            self.push_answer(requests, &chain, answer)
            some = True
        if some:
            self.interrupt(requests)
        if control and self.target is not None:
            self.serve_later(requests.number)

    cdef bint go_on(self, u64 *budget) noexcept:
        """With the transfer that is under way, for at most so many bytes. Whether it is over."""
        cdef Transfer *move = &self.move
        cdef u64 part
        cdef Resource target = self.target
        with nogil:
            while move.row < move.lines and budget[0]:
                part = min(move.line - move.column, budget[0])
                target.fetch(
                    self.dma, move.start + move.row * move.pitch + move.column,
                    target.data + move.first + move.row * move.pitch + move.column, part
                )
                budget[0] -= min(budget[0], max(part, <u64>ROW))
                move.column += part
                if move.column == move.line:
                    move.row, move.column = move.row + 1, 0
        return move.row == move.lines

    cdef void finish_transfer(self, VirtQueue queue) noexcept:
        """Its request is answered."""
        self.push_answer(queue, &self.held, self.held_answer)
        self.target = self.held_answer = None

    def before_save(self):
        cdef u64 all = <u64>-1
        if self.target is not None:
            self.go_on(&all)
            self.finish_transfer(self.control)
            self.interrupt(self.control)
        super().before_save()

    cdef bytes serve(self, VirtQueue queue, Chain *chain):
        """The answer; to a transfer, which goes on in `go_on`, the one that it gets at its end."""
        cdef u32 size = <u32>min(chain.read_size, <u64>MOST_REQUEST)
        cdef bytearray request = bytearray(size)
        try:
            if size:
                queue.copy_out(chain, 0, <u8 *>request, size)
            return self.answer(bytes(request), False)[:chain.write_size]
        except Exception:               # a fault of ours is the request's end, not the machine's
            return struct.pack("<IIQII", UNSPECIFIED, 0, 0, 0, 0)[:chain.write_size]

    cdef void push_answer(self, VirtQueue queue, Chain *chain, bytes answer) noexcept:
        cdef u32 size = <u32>len(answer)
        if size and queue.copy_in(chain, 0, <const u8 *>answer, size) != 0:
            size = 0
        queue.push(chain, size)

    def answer(self, bytes request, bint whole=True):
        """The answer to a request, both as they are in memory. Not `whole`: a transfer is begun."""
        cdef u64 all = <u64>-1
        if len(request) < HEADER:
            return struct.pack("<IIQII", UNSPECIFIED, 0, 0, 0, 0)
        kind, flags, fence, context, ring = struct.unpack_from("<IIQII", request)
        body = request[HEADER:]
        handler, form = COMMANDS.get(kind, (None, ""))
        code, data = UNSPECIFIED, b""
        if handler is not None:
            if len(body) < struct.calcsize(form):
                code = WRONG
            else:
                code, data = handler(self, body, *struct.unpack_from(form, body))
        if whole and self.target is not None:
            self.go_on(&all)
            self.target = None
        return struct.pack("<IIQII", code, flags & FENCE, fence if flags & FENCE else 0, context, ring) + data

    # --- the control queue ------------------------------------------------------------------------------------

    def _display_info(self, body):
        rows = [struct.pack("<6I", 0, 0, *output.screen, output.enabled, 0) for output in self.outputs]
        return OK_DISPLAY_INFO, b"".join(rows).ljust(24 * SCREENS, b"\0")

    def _edid(self, body, scanout, _pad):
        if scanout >= len(self.outputs):
            return WRONG, b""
        xres, yres, xmax, ymax, refresh = self.monitor
        data = edid(*self.outputs[scanout].screen, xmax, ymax, refresh)
        return OK_EDID, struct.pack("<II", EDID_ROOM, 0) + data.ljust(EDID_ROOM, b"\0")

    def _create(self, body, number, format, width, height):
        if not number or number in self.resources:
            return NO_RESOURCE, b""
        if format not in FORMATS or not width or not height:
            return WRONG, b""
        size = max(width * height * 4, SMALLEST)
        if width * height > MOST_PIXELS or self.used + size > self.room:
            return NO_MEMORY, b""
        try:
            self.resources[number] = Resource(width, height, format)
        except MemoryError:
            return NO_MEMORY, b""
        self.used += size
        return OK, b""

    def _unref(self, body, number, _pad):
        resource = self.resources.pop(number, None)
        if resource is None:
            return NO_RESOURCE, b""
        self.used -= resource.cost
        for output in self.outputs:
            if output.shown == number:
                output.shown = 0
        self.part_with(resource)
        return OK, b""

    def _set_scanout(self, body, x, y, width, height, scanout, number):
        cdef Output output
        if scanout >= len(self.outputs):
            return NO_SCANOUT, b""
        self.active = True
        output = self.outputs[scanout]
        if not number:
            output.shown = 0
            return OK, b""
        resource = self.resources.get(number)
        if resource is None:
            return NO_RESOURCE, b""
        if width < 16 or height < 16 or x + width > resource.width or y + height > resource.height:
            return WRONG, b""
        output.shown, output.part = number, (x, y, width, height)
        output.top, output.bottom = 0, 0xFFFFFFFF
        return OK, b""

    def _flush(self, body, x, y, width, height, number, _pad):
        cdef Output output
        resource = self.resources.get(number)
        if resource is None:
            return NO_RESOURCE, b""
        if x + width > resource.width or y + height > resource.height:
            return WRONG, b""
        for output in self.outputs:
            if output.shown == number and height:
                output.top = min(output.top, <u32>y)
                output.bottom = max(output.bottom, <u32>(y + height))
        return OK, b""

    def _transfer(self, body, x, y, width, height, offset, number, _pad):
        cdef Resource resource = self.resources.get(number)
        cdef u64 pitch, at
        cdef bint whole
        if resource is None or not resource.count:
            return NO_RESOURCE, b""
        if x + width > resource.width or y + height > resource.height:
            return WRONG, b""
        if offset >= 1 << 40:
            return WRONG, b""
        whole = width == resource.width                         # one line after the other is one long one
        pitch, at = resource.width * 4, x * 4
        self.move.start, self.move.first = offset, y * pitch + at
        self.move.pitch, self.move.line = pitch, <u64>width * 4 * (height if whole else 1)
        self.move.lines = 0 if not width or not height else 1 if whole else height
        self.move.row = self.move.column = 0
        self.target = resource
        return OK, b""

    def _attach(self, body, number, count):
        resource = self.resources.get(number)
        if resource is None:
            return NO_RESOURCE, b""
        if resource.count or count > MOST_ENTRIES or len(body) < 8 + ENTRY * count:
            return UNSPECIFIED, b""
        if self.used + sizeof(Piece) * count > self.room:
            return NO_MEMORY, b""
        resource.back(body[8 : 8 + ENTRY * count])
        self.used += sizeof(Piece) * count
        return OK, b""

    def _detach(self, body, number, _pad):
        resource = self.resources.get(number)
        if resource is None or not resource.count:
            return NO_RESOURCE, b""
        self.used -= sizeof(Piece) * resource.count
        resource.back(b"")
        return OK, b""

    # --- the pointer's queue ------------------------------------------------------------------------------------

    def _pointer(self, body, scanout, x, y, _pad, number, hot_x, hot_y, _pad2, move=False):
        """A new picture of the pointer, and where it is; without a resource it is hidden."""
        on_pointer = self.outputs[scanout].on_pointer if scanout < len(self.outputs) else None
        if on_pointer is None:
            return OK, b""
        picture = None
        resource = self.resources.get(number)
        if not move and resource is not None and resource.width == resource.height == CURSOR_SIDE:
            hot_x, hot_y = min(hot_x, CURSOR_SIDE - 1), min(hot_y, CURSOR_SIDE - 1)
            picture = (CURSOR_SIDE, CURSOR_SIDE, hot_x, hot_y, resource.pixels())
        on_pointer(move, picture, (x, y) if number or move else None)
        return OK, b""

    def _move(self, body, *values):
        return self._pointer(body, *values, move=True)

    # --- state --------------------------------------------------------------------------------------------------

    @property
    def content(self):
        """All resources and what is shown, as bytes: of the first output, the resources, the further outputs."""
        first, *further = self.outputs
        state = ACTIVE if self.active else IDLE
        parts = [struct.pack("<3I6I", state, first.shown, len(self.resources), *first.part, *first.screen)]
        for number, resource in self.resources.items():
            parts.append(struct.pack("<5I", number, resource.width, resource.height, resource.format, resource.count))
            parts += [resource.backing(), resource.pixels()]
        parts += [OUTPUT.pack(each.enabled, each.shown, *each.part, *each.screen) for each in further]
        return b"".join(parts)

    @content.setter
    def content(self, bytes data):
        resources, used, shown = self.read_content(data)
        self.forget()
        self.resources.update(resources)
        self.used = used
        for output, (enabled, number, part, screen) in zip(self.outputs, shown):
            output.enabled, output.shown, output.part, output.screen = enabled, number, part, screen
        if shown:
            self.active = any(row[1] for row in shown) or int.from_bytes(data[:4], "little") == ACTIVE

    def read_content(self, bytes data):
        """(resources, bytes that they take, [(enabled, which is shown, what of it, the screen)] of the outputs) of bytes
        that `content` gave; nothing for none. StateError.
        """
        if not data:
            return {}, 0, []
        resources, used = {}, 0
        try:
            active, shown, count, *rest = struct.unpack_from("<3I6I", data)
            if active not in (IDLE, ACTIVE):
                raise StateError("virtio-gpu: a screen that is neither its own nor another's")
            rows = [(True, shown, *rest)]
            at = 36
            for _ in range(count):
                number, width, height, format, pieces = struct.unpack_from("<5I", data, at)
                at += 20
                if not number or number in resources or format not in FORMATS or (
                    not 0 < width * height <= MOST_PIXELS
                ):
                    raise StateError("virtio-gpu: a resource that cannot be")
                entries = data[at : at + ENTRY * min(pieces, MOST_ENTRIES)]
                at += ENTRY * pieces
                resource = Resource(width, height, format)
                resource.load(data[at : at + resource.size])
                at += resource.size
                resource.back(entries)
                used += resource.cost
                if used > self.room + len(data):
                    raise StateError("virtio-gpu: more resources than there is room for")
                resources[number] = resource
            for _ in self.outputs[1:]:
                rows.append(OUTPUT.unpack_from(data, at))
                at += OUTPUT.size
        except (struct.error, MemoryError):
            raise StateError("virtio-gpu: resources that end too early") from None
        if at != len(data):
            raise StateError("virtio-gpu: resources that end too early or too late")
        outputs = []
        for enabled, shown, x, y, width, height, *screen in rows:
            resource = resources.get(shown)
            if shown and (
                resource is None or min(width, height) < 16 or x + width > resource.width or y + height > resource.height
            ):
                raise StateError("virtio-gpu: shows what is not there")
            outputs.append((bool(enabled), shown, (x, y, width, height), tuple(screen)))
        return resources, used, outputs


COMMANDS = {
    GET_DISPLAY_INFO: (GpuChip._display_info, ""), GET_EDID: (GpuChip._edid, "<II"), CREATE_2D: (GpuChip._create, "<4I"),
    UNREF: (GpuChip._unref, "<II"), SET_SCANOUT: (GpuChip._set_scanout, "<6I"), FLUSH: (GpuChip._flush, "<6I"),
    TRANSFER: (GpuChip._transfer, "<4IQII"), ATTACH: (GpuChip._attach, "<II"), DETACH: (GpuChip._detach, "<II"),
    UPDATE_CURSOR: (GpuChip._pointer, "<8I"), MOVE_CURSOR: (GpuChip._move, "<8I"),
}


cdef class GpuScanout(Scanout):
    """What the chip shows on one output; black while it shows nothing."""

    cdef GpuChip chip
    cdef DeviceLock lock
    cdef Output output
    cdef tuple shape

    def __init__(self, GpuChip chip, DeviceLock lock, u32 number=0):
        self.chip, self.lock, self.output = chip, lock, chip.outputs[number]

    @property
    def active(self):
        """Whether the driver has taken the screen."""
        return self.chip.active

    def update(self, Surface surface, bint full, DirtyLog log=None):
        cdef u32 *line
        cdef Output output = self.output
        with self.lock:
            shape = (output.shown, output.part) if output.shown else None
        if shape is None:
            if self.shape is not None or full:
                surface.fill(0, 0, surface.width, surface.height, 0)
            self.shape = None
            return
        if shape != self.shape:
            full = True
            surface.resize(shape[1][2], shape[1][3])
        with self.lock:
            if not output.shown or (output.shown, output.part) != shape:
                return                                          # the next look sees it
            resource, what = self.chip.resources[output.shown], output.flushed(full)
            self.shape = shape
        line = <u32 *>calloc(surface.width, 4)
        if line == NULL:
            raise MemoryError
        left, top, width, first, last = what
        draw(surface, line, resource, left, top, width, first, last)
        free(line)


cdef int draw(Surface surface, u32 *line, Resource resource, u32 left, u32 top, u32 width, u32 first, u32 last) except -1:
    """Lines of a resource, which a transfer may be changing. `line` has room for the widest."""
    cdef u32 x, y, red, green, blue
    cdef const u8 *data
    red, green, blue = FORMATS[resource.format]
    with nogil:
        for y in range(first, last):
            data = resource.data + (<u64>(top + y) * resource.width + left) * 4
            for x in range(width):
                line[x] = <u32>data[red] << 16 | <u32>data[green] << 8 | data[blue]
                data += 4
            surface.put_row(y, line)
    return 0
