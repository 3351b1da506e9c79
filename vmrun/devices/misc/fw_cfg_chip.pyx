"""QEMU's firmware configuration device, the chip alone: numbered items that the firmware reads, by port or by DMA.

Ref: QEMU docs/specs/fw_cfg. What the items hold is not decided here.
The region itself is ports +0 (selector, 16-bit writes) and +1 (data); `dma_port` is the eight bytes at +4.
A file whose contents are a bytearray can be written by the guest, through DMA; its owner keeps it.
Not modelled: writes through the data port (dropped in QEMU 2.4).

A read by DMA may be as long as memory. With a thread (`serve_on`) a MiB is moved at one go, so that nobody waits for the device
lock meanwhile; the request's control word says when it is over, as ever. What the guest starts before is not heard.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.turns cimport turn_of
from accel.api cimport ACTION_NONE, IoRegion, u8, u32, u64
from accel.dma cimport Dma, Scatter

from accel.api import _report
from vmrun.core.state import KEEP, Field, Table, U16, U32, U64
from vmrun.errors import BuildError, StateError

cdef enum:
    SIGNATURE = 0x00
    ID = 0x01
    FILE_DIR = 0x19
    FILE_FIRST = 0x20
    ARCH_LOCAL = 0x8000
    WRITE_CHANNEL = 0x4000
    ENTRY_MASK = 0x3FFF
    INVALID = 0xFFFF

    NAME_SIZE = 56

    VERSION = 1
    VERSION_DMA = 2

    MOST_COMPUTED = 16 << 20

    DMA_ERROR = 1
    DMA_READ = 2
    DMA_SKIP = 4
    DMA_SELECT = 8
    DMA_WRITE = 16
    AT_ONCE = 1 << 20
    PIECES = 64                     # of memory that one read may be spread over: ROM shadows, holes' edges

cdef u8 DMA_SIGNATURE[8]
memcpy(DMA_SIGNATURE, b"QEMU CFG", 8)

# The order of the directory on old types; what no name here claims comes at the end, in the order it was added.
ORDER = {
    "etc/boot-menu-wait": 10, "bootsplash.jpg": 11, "bootsplash.bmp": 12, "etc/boot-fail-wait": 15,
    "etc/smbios/smbios-tables": 20, "etc/smbios/smbios-anchor": 30, "etc/e820": 40, "etc/reserved-memory-end": 50,
    "genroms/kvmvapic.bin": 55, "genroms/linuxboot.bin": 60, "vgaroms/": 70, "etc/system-states": 90, "genroms/": 100,
    "etc/pvpanic-port": 110, "etc/extra-pci-roots": 120, "etc/acpi/tables": 130, "etc/table-loader": 140,
    "etc/tpm/log": 150, "etc/acpi/rsdp": 160, "bootorder": 170, "etc/msr_feature_control": 180,
}
ORDER_LAST = 200


cdef u32 _be32(const u8 *p) noexcept nogil:
    return <u32>p[0] << 24 | <u32>p[1] << 16 | <u32>p[2] << 8 | p[3]


class Computed(Field):
    """Contents that callbacks gave while the guest selected items: {key: bytes}."""

    def check(self, plain, owner, where):
        if type(plain) is not dict:
            raise StateError(f"{where} is no set of items")
        for key, data in plain.items():
            if type(key) is not str or type(data) is not bytes or len(data) > MOST_COMPUTED:
                raise StateError(f"{where}: an item is not bytes")
            if key not in owner.computed:
                raise StateError(f"{where}: this machine computes no item {key[:40]}")
        return plain


cdef class _DmaPort(IoRegion):
    cdef FwCfg device

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        if offset + size <= 8:
            memcpy(&value, DMA_SIGNATURE + offset, size)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        # The register is big-endian; its low half starts the transfer.
        cdef u32 half = _be32(<const u8 *>&value)
        if size != 4:
            return ACTION_NONE
        if offset == 0:
            self.device.dma_address = <u64>half << 32
        elif offset == 4 and not self.device.left:
            self.device.dma_address |= half
            self.device.run_dma()
        return ACTION_NONE


cdef void _go_on(void *chip) noexcept nogil:
    """What is left of a long read."""
    (<FwCfg>chip).go_on(AT_ONCE)


cdef class FwCfg(IoRegion):
    """`slots` files at most; `dma`: the Dma handle, or None where the machine type has no DMA interface.

    `by_name` orders the directory by name, else by the fixed priorities of old types. Contents are added before the
    guest runs, or later with the device lock held.
    """

    state = Table(
        "fw_cfg", 1, Computed("computed", KEEP), U16("selected"), U32("offset"), U64("dma_address"),
    )
    save, load_state = state.methods()[1:]

    def __cinit__(self, u32 slots=32, Dma dma=None):
        cdef _DmaPort port = _DmaPort()
        self.max_access = 2
        self.slots = slots
        self.per_side = FILE_FIRST + slots
        self.items = <Item *>calloc(2 * self.per_side, sizeof(Item))
        if self.items == NULL:
            raise MemoryError
        self.contents, self.callbacks, self.files = {}, {}, {}
        self.dma = dma
        self.dma_enabled = dma is not None
        if self.dma_enabled:
            self.target = Scatter(dma, PIECES)
        port.device = self
        self.dma_port = port
        self.by_name = True
        self.selected = INVALID
        self.add_bytes(SIGNATURE, b"QEMU")
        version = VERSION | (VERSION_DMA if self.dma_enabled else 0)
        self.add_bytes(ID, version.to_bytes(4, "little"))
        self._number_files()

    def __dealloc__(self):
        free(self.items)

    def serve_on(self, IoThread thread):
        """Long reads are `thread`'s. Before the machine runs."""
        self.thread, self.later = thread, turn_of(self, _go_on)
        thread.add(self.later)

    def detach(self):
        (<_DmaPort>self.dma_port).device = None
        if self.thread is not None:
            self.thread.remove(self.later)
            self.thread = None

    def reset(self):
        self.left = 0
        type(self).state.reset(self)

    def before_save(self):
        """A saved read is over."""
        with nogil:
            self.go_on(self.left)

    def settle(self):
        self.left = 0

    @property
    def computed(self):
        return {str(key): self.contents[key] for key in self.callbacks}

    @computed.setter
    def computed(self, items):
        names = {key: name for name, key, _ in self.listing()}
        for key, data in ((int(key), data) for key, data in items.items()):
            if data == self.contents[key]:
                continue
            if key in names:
                self.files[names[key]][2] = data
            else:
                self.add_bytes(key, data, self.callbacks[key])
        self._number_files()

    # --- contents -------------------------------------------------------------------------------------------

    def add_bytes(self, u32 key, data, callback=None):
        """Item `key` (0x8000 and up: of this architecture) holds `data`; adding again replaces it. The guest can write
        to a bytearray, which keeps its size.

        callback() is called when the guest selects the item, and may return new contents. BuildError: no such key.
        """
        cdef Item *item = self.item(key)
        cdef bint writable = isinstance(data, bytearray)
        held = data if writable else bytes(data)
        cdef u8 *start = <u8 *>PyByteArray_AS_STRING(held) if writable else <u8 *><const u8 *>held
        if item == NULL or key & WRITE_CHANNEL:
            raise BuildError(f"fw_cfg has no item {key:#x}")
        if len(held) > 0xFFFFFFFF:
            raise BuildError(f"fw_cfg item {key:#x} is larger than 4 GiB")
        self.contents[key] = held
        item.data = start
        item.size = <u32>len(held)
        item.writable = writable
        item.computed = callback is not None
        if callback is not None:
            self.callbacks[key] = callback
        else:
            self.callbacks.pop(key, None)

    def add_u16(self, u32 key, u32 value):
        self.add_bytes(key, value.to_bytes(2, "little"))

    def add_u32(self, u32 key, u32 value):
        self.add_bytes(key, value.to_bytes(4, "little"))

    def add_u64(self, u32 key, u64 value):
        self.add_bytes(key, value.to_bytes(8, "little"))

    def add_string(self, u32 key, text):
        """With the terminating NUL."""
        self.add_bytes(key, text.encode() + b"\0")

    def add_file(self, name, data, callback=None, order=None):
        """File `name`; adding again replaces it. `order`: its priority, where the directory goes by priority.

        BuildError: the directory is full, or the name too long.
        """
        if not 0 < len(name.encode()) < NAME_SIZE:
            raise BuildError(f"fw_cfg file name '{name}' has more than {NAME_SIZE - 1} bytes")
        old = self.files.get(name)
        if old is None and len(self.files) >= self.slots:
            raise BuildError(
                f"fw_cfg has room for {self.slots} files; '{name}' is one too many",
                remedy="the machine type fixes the number (x-file-slots of fw_cfg_io)",
            )
        if order is None:
            order = ORDER.get(name) or ORDER.get(name.partition("/")[0] + "/", ORDER_LAST)
        number = old[1] if old is not None else len(self.files)
        self.files[name] = [order, number, data if isinstance(data, bytearray) else bytes(data), callback]
        self._number_files()

    def _number_files(self):
        """Keys follow the order of the directory."""
        names = sorted(self.files)
        if not self.by_name:
            names = sorted(self.files, key=lambda name: self.files[name][:2])
        directory = len(names).to_bytes(4, "big")
        for key, name in enumerate(names, FILE_FIRST):
            _, _, data, callback = self.files[name]
            self.add_bytes(key, data, callback and self._refresh(name, callback))
            directory += (
                len(data).to_bytes(4, "big") + key.to_bytes(2, "big") + bytes(2) + name.encode().ljust(NAME_SIZE, b"\0")
            )
        self.add_bytes(FILE_DIR, directory)

    def _refresh(self, name, callback):
        def select():
            data = callback()
            if data is not None and bytes(data) != self.files[name][2]:
                self.files[name][2] = bytes(data)
                self._number_files()

        return select

    def set_order(self, bint by_name):
        self.by_name = by_name
        self._number_files()

    def get(self, u32 key):
        """Contents of an item, or None."""
        return self.contents.get(key)

    def listing(self):
        """[(name, key, contents)] as the directory has them."""
        directory = self.contents[FILE_DIR]
        out = []
        for start in range(4, len(directory), 64):
            key = int.from_bytes(directory[start + 4:start + 6], "big")
            out.append((directory[start + 8:start + 64].rstrip(b"\0").decode(), key, self.contents[key]))
        return out

    # --- access ---------------------------------------------------------------------------------------------

    cdef Item *item(self, u32 key) noexcept nogil:
        """NULL when the device has no such key."""
        if key == INVALID or key & ENTRY_MASK >= self.per_side:
            return NULL
        return &self.items[(key & ENTRY_MASK) + (self.per_side if key & ARCH_LOCAL else 0)]

    cdef void select(self, u32 key) noexcept nogil:
        cdef Item *item = self.item(key)
        self.offset = 0
        self.selected = INVALID if item == NULL else key
        if item != NULL and item.computed:
            self.compute(key & ~<u32>WRITE_CHANNEL)

    cdef void compute(self, u32 key) noexcept with gil:
        try:
            data = self.callbacks[key]()
            if data is not None:
                self.add_bytes(key, data, self.callbacks[key])
        except Exception as exc:
            _report(f"fw_cfg item {key:#x}", exc)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef Item *item
        cdef u8 value = 0
        if size != 1 or self.left:
            return 0
        item = self.item(self.selected)
        if item != NULL and item.data != NULL and self.offset < item.size:
            value = item.data[self.offset]
            self.offset += 1
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 2 and not self.left:
            self.select(value & 0xFFFF)
        return ACTION_NONE

    cdef u32 read_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef Item *item = self.item(self.selected)
        cdef u32 have = 0
        if size != 1 or self.left:
            memset(data, 0, <u64>size * count)
            return ACTION_NONE
        if item != NULL and item.data != NULL and self.offset < item.size:
            have = min(count, item.size - self.offset)
            memcpy(data, item.data + self.offset, have)
            self.offset += have
        memset(data + have, 0, count - have)
        return ACTION_NONE

    cdef void run_dma(self) noexcept nogil:
        """The guest's block: control, length (32 bits), address (64 bits), big-endian; control is the answer."""
        cdef u8 block[16]
        cdef u64 where = self.dma_address
        cdef u32 control, result
        self.dma_address = 0
        if self.dma.read_into(where, block, 16) != 0:
            self.answer(where, DMA_ERROR)
            return
        control = _be32(block)
        if control & DMA_SELECT:
            self.select(control >> 16)
        result = self.transfer(control, <u64>_be32(block + 8) << 32 | _be32(block + 12), _be32(block + 4))
        if self.left:
            self.left_block = where
            self.later.notifier.signal()
        else:
            self.answer(where, result)

    cdef void answer(self, u64 block, u32 result) noexcept nogil:
        cdef u8 control[4]
        control[0] = control[1] = control[2] = 0
        control[3] = <u8>result
        self.dma.write_from(block, control, 4)

    cdef u32 transfer(self, u32 control, u64 address, u32 length) noexcept nogil:
        """0, or DMA_ERROR; with `left` it is under way. Only memory is written, so a request is bounded by it."""
        cdef Item *item = self.item(self.selected)
        cdef u32 have = 0
        if not control & (DMA_READ | DMA_WRITE | DMA_SKIP):
            return 0
        if item != NULL and item.data != NULL and self.offset < item.size:
            have = min(length, item.size - self.offset)
        if not control & DMA_READ and control & DMA_WRITE:
            if length == 0:
                return 0
            self.offset += have
            if not have or not item.writable or have != length:
                return DMA_ERROR
            self.target.begin(False)
            if self.target.add(address, length) != 0:
                return DMA_ERROR
            self.target.get(0, item.data + self.offset - have, have)
            self.target.finish(0)
            return 0
        if not control & DMA_READ:
            self.offset += have
            return 0
        self.target.begin(True)
        if self.target.add(address, length) != 0:               # all of it, before anything is moved
            return DMA_ERROR
        self.target.finish(0)
        if length > AT_ONCE and self.thread is not None and self.thread.running:
            self.left, self.left_to = length, address
            return 0
        return self.move(address, length)

    cdef u32 move(self, u64 address, u32 length) noexcept nogil:
        """Of the selected item into memory, zeros past its end. 0, or DMA_ERROR."""
        cdef Item *item = self.item(self.selected)
        cdef u32 have = 0
        if item != NULL and item.data != NULL and self.offset < item.size:
            have = min(length, item.size - self.offset)
        self.target.begin(True)
        if self.target.add(address, length) != 0:
            return DMA_ERROR
        if have:
            self.target.put(0, item.data + self.offset, have)
        self.target.fill(have, 0, length - have)
        self.target.finish(length)
        self.offset += have
        return 0

    cdef void go_on(self, u32 most) noexcept nogil:
        """With the read that is under way, if there is one."""
        cdef u32 part = min(self.left, most), result
        if not part:
            return
        result = self.move(self.left_to, part)
        self.left_to += part
        self.left = 0 if result else self.left - part
        if self.left:
            self.later.notifier.signal()
        else:
            self.answer(self.left_block, result)
