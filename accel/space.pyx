"""Address spaces: who answers an address.

Regions form a tree: a container has children at addresses, with priorities where they overlap (the higher wins,
among equals the later); an alias shows a part of another region; ram, rom, io and rom-device are leaves. A space
renders its tree into a FlatView, a sorted list of ranges that do not overlap, each time the tree changes
(once per transaction), tells listeners the difference, and keeps two C tables for dispatch without the GIL:
one index for 65,536 ports, one sorted array with a last-hit cache for memory.

The device lock is held for dispatch and for changes alike; a table that a running access may still be using
is kept until the next change. Who only looks memory up (a bus master's ring, accel/dma.pyx) may do without the lock,
between `enter` and `leave`: what it may have found stays until a change that finds nobody there. Nobody waits.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from accel.access cimport (
    ALONE as _ALONE, ANYHOW as _ANYHOW, alone, mask_of, region_load, region_load_string, region_store,
    region_store_string, region_takes,
)
from accel.api cimport ACTION_NONE

cdef extern from *:
    """
    #include <sched.h>
    #define vr_add(p, n) __atomic_add_fetch((p), (n), __ATOMIC_SEQ_CST)
    #define vr_load(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_publish(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    """
    int vr_add(int *, int) nogil
    int vr_load(int *) nogil
    View *vr_view "vr_load"(View **) nogil
    void vr_publish(View **, View *) nogil
    int sched_yield() nogil

cdef u64 FULL = <u64>-1
cdef int MOST_RETIRED = 64          # views kept for who looks without the lock, which is never long


# How wide a device of few ports takes an access, see access.pxd.
ALONE, ANYHOW = <int>_ALONE, <int>_ANYHOW


cdef void mark_dirty(void *block, u8 *host, u64 count) noexcept nogil:
    if (<RamBlock>block).logging or (<RamBlock>block).code != NULL:
        (<RamBlock>block).mark_dirty(<u64>(host - (<RamBlock>block).host), count)


cdef class Region:
    """A node of the tree. Build with Region.container, .ram, .rom, .device, .alias, .rom_device.

    `size` in bytes; 0 stands for 2**64. `owner` is whoever made it, for messages and views.
    """

    def __cinit__(self, str name, u64 size, int kind):
        self.name = name
        self.size = size
        self.kind = kind
        self.enabled = True
        self.children = []
        self.spaces = []
        self.doorbells = []

    @staticmethod
    def container(str name, u64 size) -> Region:
        return Region(name, size, KIND_CONTAINER)

    @staticmethod
    def ram(str name, RamBlock block, u64 offset=0, size=None, bint readonly=False) -> Region:
        """Memory of `block` from `offset`."""
        cdef Region region = Region(name, block.size - offset if size is None else size, KIND_ROM if readonly else KIND_RAM)
        if offset + region.size > block.size:
            raise ValueError(f"{name} reaches past the end of {block.name}")
        region.block = block
        region.offset = offset
        return region

    @staticmethod
    def rom(str name, RamBlock block, u64 offset=0, size=None) -> Region:
        return Region.ram(name, block, offset, size, True)

    @staticmethod
    def device(str name, IoRegion io, u64 size) -> Region:
        """A range that `io` answers."""
        cdef Region region = Region(name, size, KIND_IO)
        region.io = io
        return region

    @staticmethod
    def rom_device(str name, RamBlock block, IoRegion io, u64 size) -> Region:
        """Reads are memory, writes are calls."""
        cdef Region region = Region(name, size, KIND_ROM_DEVICE)
        region.block = block
        region.io = io
        return region

    @staticmethod
    def alias(str name, Region target, u64 offset, u64 size) -> Region:
        """`size` bytes of `target` from `offset`, to be shown elsewhere."""
        cdef Region region = Region(name, size, KIND_ALIAS)
        region.target = target
        region.offset = offset
        target.spaces.append(region)
        return region

    @property
    def last(self):
        """Offset of the last byte."""
        return self.size - 1 if self.size else FULL

    def add(self, Region child, u64 addr, int priority=0) -> Region:
        """Put `child` at `addr` of this container."""
        if child.parent is not None:
            raise ValueError(f"region {child.name} is already part of {child.parent.name}")
        child.parent = self
        child.addr = addr
        child.priority = priority
        self._place(child)
        self._changed()
        return child

    cdef _place(self, Region child):
        """Before all of its priority: of equals the one that came later wins."""
        cdef int n = 0
        while n < len(self.children) and (<Region>self.children[n]).priority > child.priority:
            n += 1
        self.children.insert(n, child)

    def remove(self, Region child):
        self.children.remove(child)
        child.parent = None
        self._changed()

    def set_enabled(self, bint enabled):
        if self.enabled != enabled:
            self.enabled = enabled
            self._changed()

    def set_address(self, u64 addr):
        if self.addr != addr:
            self.addr = addr
            if self.parent is not None:                     # as if it came anew
                self.parent.children.remove(self)
                self.parent._place(self)
            self._changed()

    def set_readonly(self, bint readonly):
        """Turn memory into ROM and back; of an alias: writes through it vanish."""
        if self.kind == KIND_ALIAS and self.readonly != readonly:
            self.readonly = readonly
            self._changed()
        kind = KIND_ROM if readonly else KIND_RAM
        if self.kind in (KIND_RAM, KIND_ROM) and self.kind != kind:
            self.kind = kind
            self._changed()

    def set_alias(self, Region target, u64 offset, size=None):
        """Point an alias elsewhere; `size`: and show so many bytes of it."""
        cdef u64 wanted = self.size if size is None else size
        if self.target is not target or self.offset != offset or self.size != wanted:
            self.target.spaces.remove(self)
            target.spaces.append(self)
            self.target, self.offset, self.size = target, offset, wanted
            self._changed()

    def add_doorbell(self, u64 offset, u32 size, notifier, match=None):
        """Of an I/O region: a write of `size` bytes (0: any) at `offset`, of the value `match` if one is given, need only
        signal `notifier`. An accelerator that can spare the guest the way out does so (AddressSpace.on_doorbells);
        otherwise the region is written to.
        """
        self.doorbells.append((offset, size, match, notifier))
        self._changed()

    def remove_doorbells(self):
        if self.doorbells:
            self.doorbells = []
            self._changed()

    def _changed(self):
        """Tell every space that this region is part of, directly or through aliases."""
        seen = set()
        todo = [self]
        while todo:
            node = todo.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, AddressSpace):
                (<AddressSpace>node).invalidate()
            else:
                todo.append((<Region>node).parent)
                todo.extend((<Region>node).spaces)

    def __repr__(self):
        return f"<{_KINDS[self.kind]} {self.name}>"

    @property
    def kind_name(self):
        return _KINDS[self.kind]


_KINDS = ("container", "ram", "rom", "i/o", "alias", "rom-device")


cdef class FlatRange:
    """A piece of a FlatView: [start, start + size) shows `region` (a leaf) from `offset`."""

    def __cinit__(self, u64 start, u64 size, Region region, u64 offset, bint readonly):
        self.start = start
        self.size = size
        self.region = region
        self.offset = offset
        self.readonly = readonly

    @property
    def is_ram(self):
        """True where reads can be served straight from host memory."""
        return self.region.block is not None

    @property
    def host_address(self):
        return self.region.block.address + self.region.offset + self.offset

    def key(self):
        return (self.start, self.size, id(self.region), self.offset, self.readonly)

    def __repr__(self):
        return f"<{self.start:#x}-{self.start + self.size - 1:#x} {self.region.name}+{self.offset:#x}>"


cdef class AddressSpace:
    """A tree rendered. `ports=True` makes it a 64 KiB I/O space with an index by port.

    Listeners have methods region_add(FlatRange), region_del(FlatRange), commit(); a new listener is told all there is.
    `on_doorbells(gone, new)` hears of the doorbells that are to be seen: [(address, size, value or None, Notifier)].
    `with space.transaction():` joins changes into one. Missing addresses read all ones and count in `unassigned`.
    """

    def __cinit__(self, str name, Region root, bint ports=False):
        self.name = name
        self.root = root
        self.ports = ports
        self.flat = []
        self.retired_flats = []
        self.kept = []
        self.doorbells = {}
        self.listeners = []
        if ports:
            self.port_index = <unsigned short *>calloc(65536, sizeof(unsigned short))
            if self.port_index == NULL:
                raise MemoryError
        root.spaces.append(self)
        self.stale = True
        self.commit()

    def __dealloc__(self):
        cdef View *view
        if self.view != NULL:
            self.view.older, self.retired = self.retired, self.view
        while self.retired != NULL:
            view, self.retired = self.retired, self.retired.older
            free(view)
        free(self.port_index)

    # --- layout -------------------------------------------------------------------------------------------

    def add_listener(self, listener):
        self.listeners.append(listener)
        for piece in self.flat:
            listener.region_add(piece)
        listener.commit()

    def remove_listener(self, listener):
        self.listeners.remove(listener)
        for piece in self.flat:
            listener.region_del(piece)
        listener.commit()

    def transaction(self):
        return _Transaction(self)

    cpdef invalidate(self):
        self.stale = True
        if self.transactions == 0:
            self.commit()

    def begin(self):
        self.transactions += 1

    def end(self):
        self.transactions -= 1
        if self.transactions == 0:
            self.commit()

    cpdef commit(self):
        """Render, tell the listeners the difference, swap the tables."""
        if not self.stale:
            return
        self.stale = False
        flat = []
        _render(flat, self.root, 0, 0, self.root.last, 0, False)
        flat.sort(key=_by_start)
        flat = _join(flat)
        old = self.flat
        self._build(flat)
        self.flat = flat
        if self.listeners:
            had = {piece.key(): piece for piece in old}
            have = {piece.key() for piece in flat}
            gone = [piece for piece in old if piece.key() not in have]
            new = [piece for piece in flat if piece.key() not in had]
            for listener in self.listeners:
                for piece in gone:
                    listener.region_del(piece)
                for piece in new:
                    listener.region_add(piece)
                listener.commit()
        self._hang_doorbells(flat)

    cdef _hang_doorbells(self, list flat):
        """Tell of the doorbells that have come and gone."""
        cdef FlatRange piece
        if self.on_doorbells is None:
            return
        found = {}
        for piece in flat:
            for offset, size, match, notifier in piece.region.doorbells:
                if piece.offset <= offset < piece.offset + piece.size:
                    found[piece.start + offset - piece.offset, size, match, notifier.fd] = notifier
        if found or self.doorbells:
            before, self.doorbells = self.doorbells, found
            gone = [(*key[:3], before[key]) for key in before if key not in found]
            new = [(*key[:3], found[key]) for key in found if key not in before]
            if gone or new:
                self.on_doorbells(gone, new)

    cdef void enter(self) noexcept nogil:
        """Look memory up without the device lock until `leave`, for a few microseconds and without waiting for anybody."""
        vr_add(&self.readers, 1)

    cdef void leave(self) noexcept nogil:
        vr_add(&self.readers, -1)

    cdef _retire(self):
        """Let go of earlier views that nobody can be looking at: whoever enters after this sees the newest."""
        cdef View *view
        if len(self.retired_flats) >= MOST_RETIRED:
            with nogil:
                while vr_load(&self.readers):
                    sched_yield()
        if vr_load(&self.readers):
            return
        while self.retired != NULL:
            view, self.retired = self.retired, self.retired.older
            free(view)
        self.retired_flats = []

    cdef _keep(self, list flat, set shown):
        """Memory of `flat` that a transfer works on."""
        cdef Region region
        for piece in flat:
            region = (<FlatRange>piece).region
            if region.block is not None and region.block.pin_count and id(region.block) not in shown:
                shown.add(id(region.block))
                self.kept.append(region.block)

    cdef _build(self, list flat):
        cdef u32 i, count = <u32>len(flat)
        cdef u64 port
        cdef View *view = <View *>calloc(1, sizeof(View) + count * sizeof(Entry))
        cdef Entry *table
        cdef Entry *entry
        cdef FlatRange piece
        cdef Region region
        if view == NULL:
            raise MemoryError
        view.count, table = count, view.entries
        for i in range(count):
            piece = flat[i]
            region = piece.region
            entry = &table[i]
            entry.start = piece.start
            entry.last = piece.start + piece.size - 1
            entry.offset = piece.offset
            entry.room = (region.size if region.size else FULL) - piece.offset
            entry.writable = region.kind == KIND_RAM and not piece.readonly
            if region.block is not None:
                entry.host = region.block.host + region.offset + piece.offset
                entry.block = <void *>region.block
            entry.widest = 8
            if region.io is not None:
                entry.region = <void *>region.io
                entry.widest = region.io.widest
        # Memory that a transfer works on is kept when it leaves the view, until a later change finds the transfer over.
        shown = {id((<FlatRange>piece).region.block) for piece in flat}
        self.kept = [block for block in self.kept if (<RamBlock>block).pin_count]
        shown.update(map(id, self.kept))
        before = self.retired_flats
        self._retire()
        if before is not self.retired_flats:
            for gone in before:
                self._keep(gone, shown)
        self._keep(self.flat, shown)
        # A running access may sit between two look-ups: the old view lives until the next change at least.
        if self.view != NULL:
            self.view.older, self.retired = self.retired, self.view
            self.retired_flats.append(self.flat)
        vr_publish(&self.view, view)
        self.table, self.entries = table, count
        if self.ports:
            memset(self.port_index, 0, 65536 * sizeof(unsigned short))
            for i in range(count):
                for port in range(table[i].start, min(table[i].last, <u64>0xFFFF) + 1):
                    self.port_index[port] = <unsigned short>(i + 1)

    # --- dispatch -----------------------------------------------------------------------------------------

    cdef Entry *find(self, u64 addr) noexcept nogil:
        cdef u32 low, high, middle
        cdef View *view
        cdef Entry *entry
        if self.ports:
            if addr > 0xFFFF or self.port_index[addr] == 0:
                return NULL
            return &self.table[self.port_index[addr] - 1]
        view = vr_view(&self.view)
        middle = view.near
        if middle < view.count:
            entry = &view.entries[middle]
            if entry.start <= addr <= entry.last:
                return entry
        low, high = 0, view.count
        while low < high:
            middle = (low + high) // 2
            entry = &view.entries[middle]
            if addr < entry.start:
                high = middle
            elif addr > entry.last:
                low = middle + 1
            else:
                view.near = middle
                return entry
        return NULL

    cdef u64 load(self, u64 addr, u32 size) noexcept nogil:
        cdef Entry *entry = self.find(addr)
        cdef u64 value = 0
        cdef u32 i = 0, part
        if entry == NULL and (not self.ports or size == 1 or not addr & (size - 1)) or (
            entry != NULL and size > entry.widest
        ):
            self.unassigned += 1
            return mask_of(size)
        if entry != NULL and entry.region != NULL and entry.host == NULL and (
            addr - entry.start + size <= entry.room and region_takes(entry.region, size) or size - 1 <= entry.last - addr
            or alone(entry.widest, entry.offset + (addr - entry.start), size)
        ):
            # A device that takes accesses of this size takes the whole of it, even where another overlays a part:
            # the first byte's owner answers, as on qemu-kvm's bus (0xcf8 as a dword, 0xcf9 being another's).
            return region_load(<IoRegion>entry.region, entry.offset + (addr - entry.start), size)
        if entry != NULL and size - 1 <= entry.last - addr and entry.host != NULL:
            memcpy(&value, entry.host + (addr - entry.start), size)
            return value
        if size == 1:
            return 0xFF
        # Over the end of memory, of a device that would get it in pieces, or of ports that nobody has.
        while i < size:
            if i > FULL - addr:
                return value | (FULL << (8 * i) & mask_of(size))
            part = self.piece(addr + i, size - i, size)
            value |= (self.load(addr + i, part) & mask_of(part)) << (8 * i)
            i += part
        return value

    cdef u32 piece(self, u64 addr, u32 left, u32 whole) noexcept nogil:
        """How much of an access that cannot be one goes at once: as the offset in the region is aligned."""
        cdef Entry *entry = self.find(addr)
        cdef u64 offset = entry.offset + (addr - entry.start) if entry != NULL else addr
        cdef u32 part = whole // 2
        while part > left or offset & (part - 1):
            part //= 2
        return part

    cdef u32 store(self, u64 addr, u32 size, u64 value) noexcept nogil:
        cdef Entry *entry = self.find(addr)
        cdef u32 i = 0, part, action = ACTION_NONE
        if entry == NULL and (not self.ports or size == 1 or not addr & (size - 1)) or (
            entry != NULL and size > entry.widest
        ):
            self.unassigned += 1
            return ACTION_NONE
        if entry != NULL and entry.region != NULL and (
            addr - entry.start + size <= entry.room and region_takes(entry.region, size) or size - 1 <= entry.last - addr
            or alone(entry.widest, entry.offset + (addr - entry.start), size)
        ):
            return region_store(<IoRegion>entry.region, entry.offset + (addr - entry.start), size, value)
        if entry != NULL and size - 1 <= entry.last - addr:
            if entry.writable:
                memcpy(entry.host + (addr - entry.start), &value, size)
                mark_dirty(entry.block, entry.host + (addr - entry.start), size)
            return ACTION_NONE
        if size == 1:
            return ACTION_NONE
        while i < size and i <= FULL - addr:
            part = self.piece(addr + i, size - i, size)
            action |= self.store(addr + i, part, (value >> (8 * i)) & mask_of(part))
            i += part
        return action

    cdef u32 load_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil:
        """`rep ins`: `count` items from one address."""
        cdef Entry *entry = self.find(addr)
        cdef u32 i
        cdef u64 value
        if entry != NULL and entry.region != NULL and region_takes(entry.region, size) and (
            size - 1 <= entry.last - addr
        ):
            return region_load_string(<IoRegion>entry.region, entry.offset + (addr - entry.start), size, data, count)
        for i in range(count):
            value = self.load(addr, size)
            memcpy(data + i * size, &value, size)
        return ACTION_NONE

    cdef u32 store_string(self, u64 addr, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef Entry *entry = self.find(addr)
        cdef u32 i, action = ACTION_NONE
        cdef u64 value
        if entry != NULL and entry.region != NULL and region_takes(entry.region, size) and (
            size - 1 <= entry.last - addr
        ):
            return region_store_string(<IoRegion>entry.region, entry.offset + (addr - entry.start), size, data, count)
        for i in range(count):
            value = 0
            memcpy(&value, data + i * size, size)
            action |= self.store(addr, size, value)
        return action

    cdef int copy_in(self, u64 addr, const u8 *data, u64 count) noexcept nogil:
        """Bytes into the space; memory by memcpy, devices access by access. -1 when a byte had no receiver.

        Nothing wraps: bytes past the end of the space have none.
        """
        cdef u64 part
        cdef Entry *entry
        cdef int result = 0
        if count and count - 1 > FULL - addr:
            count = FULL - addr + 1
            result = -1
        while count:
            entry = self.find(addr)
            if entry != NULL and entry.host != NULL and entry.writable:
                part = entry.last - addr
                part = count if count - 1 <= part else part + 1
                memcpy(entry.host + (addr - entry.start), data, part)
                mark_dirty(entry.block, entry.host + (addr - entry.start), part)
            else:
                part = 4 if count >= 4 and addr % 4 == 0 else 1
                if entry == NULL:
                    result = -1
                else:
                    self.store(addr, <u32>part, (<unsigned int *>data)[0] if part == 4 else data[0])
            addr += part
            data += part
            count -= part
        return result

    cdef int copy_out(self, u64 addr, u8 *data, u64 count) noexcept nogil:
        """The other way; what nobody answers is all ones."""
        cdef u64 part, value
        cdef Entry *entry
        cdef int result = 0
        if count and count - 1 > FULL - addr:
            part = FULL - addr + 1
            memset(data + part, 0xFF, count - part)
            count = part
            result = -1
        while count:
            entry = self.find(addr)
            if entry != NULL and entry.host != NULL:
                part = entry.last - addr
                part = count if count - 1 <= part else part + 1
                memcpy(data, entry.host + (addr - entry.start), part)
            else:
                part = 4 if count >= 4 and addr % 4 == 0 else 1
                if entry == NULL:
                    result = -1
                value = self.load(addr, <u32>part)
                memcpy(data, &value, part)
            addr += part
            data += part
            count -= part
        return result

    # --- from Python (tests, qtest, the monitor) ------------------------------------------------------------

    def read(self, u64 addr, u32 size) -> int:
        """One access of 1, 2, 4 or 8 bytes."""
        cdef u64 value
        with nogil:
            value = self.load(addr, size)
        return value

    def write(self, u64 addr, u32 size, u64 value) -> int:
        """One access; returns the Action it asks for."""
        cdef u32 action
        with nogil:
            action = self.store(addr, size, value)
        return action

    def read_bytes(self, u64 addr, u64 count) -> bytes:
        """`count` bytes; what nobody answers is 0xff."""
        cdef bytearray out = bytearray(count)
        cdef u8 *data = <u8 *>out
        with nogil:
            self.copy_out(addr, data, count)
        return bytes(out)

    def write_bytes(self, u64 addr, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if view.len:
            with nogil:
                self.copy_in(addr, <u8 *>view.buf, view.len)
        PyBuffer_Release(&view)

    def poke(self, u64 addr, bytes data):
        """Into memory, whether or not the guest can write there; what is no memory stays as it is."""
        cdef u64 done = 0, part
        cdef u64 count = len(data)
        cdef const u8 *source = data
        cdef Entry *entry
        with nogil:
            while done < count:
                entry = self.find(addr + done)
                part = 1
                if entry != NULL and entry.host != NULL:
                    part = min(count - done, entry.last - addr - done + 1)
                    memcpy(entry.host + (addr + done - entry.start), source + done, part)
                    mark_dirty(entry.block, entry.host + (addr + done - entry.start), part)
                done += part

    def owner_at(self, u64 addr):
        """The leaf Region that answers `addr`, or None."""
        for piece in self.flat:
            if piece.start <= addr < piece.start + piece.size:
                return piece.region
        return None


class _Transaction:
    def __init__(self, space):
        self.space = space

    def __enter__(self):
        self.space.begin()
        return self.space

    def __exit__(self, *exc):
        self.space.end()
        return False


def _by_start(FlatRange piece):
    return piece.start


cdef _render(list flat, Region region, base, clip_start, clip_last, depth, bint readonly):
    """Paint `region`, whose byte 0 is at `base` (may be negative), into the holes of `flat` within the clip."""
    if not region.enabled or depth > 64:
        return
    start = max(base, clip_start)
    last = min(base + region.last, clip_last)
    if start > last:
        return
    if region.kind == KIND_ALIAS:
        # Byte `offset` of the target appears where the alias begins.
        _render(flat, region.target, base - region.offset, start, last, depth + 1, readonly or region.readonly)
        return
    for child in region.children:
        _render(flat, child, base + (<Region>child).addr, start, last, depth + 1, readonly)
    if region.kind == KIND_CONTAINER:
        return
    cursor = start
    for piece in sorted(flat, key=_by_start):
        piece_last = piece.start + piece.size - 1
        if piece_last < cursor:
            continue
        if piece.start > last:
            break
        if piece.start > cursor:
            flat.append(FlatRange(cursor, piece.start - cursor, region, cursor - base, readonly))
        cursor = piece_last + 1
        if cursor > last:
            return
    if cursor <= last:
        flat.append(FlatRange(cursor, last - cursor + 1, region, cursor - base, readonly))


cdef list _join(list flat):
    """Neighbours that continue each other become one range."""
    out = []
    for piece in flat:
        if out:
            before = out[-1]
            if (before.region is piece.region and before.start + before.size == piece.start
                    and before.offset + before.size == piece.offset and before.readonly == piece.readonly):
                out[-1] = FlatRange(before.start, before.size + piece.size, piece.region, before.offset, piece.readonly)
                continue
        out.append(piece)
    return out
