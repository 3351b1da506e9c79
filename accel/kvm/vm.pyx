"""The virtual machine as KVM keeps it: /dev/kvm, the VM, its memory slots, and the exits that need not happen.

As a reader of QEMU knows it: kvm_init opens /dev/kvm and creates the VM; kvm_arch_init sets the TSS and identity map
addresses; a memory listener hears of RAM appearing in the memory AddressSpace (kvm_region_add) and turns it into
slots (kvm_set_phys_mem → kvm_set_user_memory_region → KVM_SET_USER_MEMORY_REGION).

Ref: Linux Documentation/virt/kvm/api.rst. Not modelled: SMM address space, dirty rings, guest debug, Hyper-V, nesting.
"""

from libc.errno cimport EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENXIO, EPERM, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC, O_RDWR, open as posix_open
from posix.ioctl cimport ioctl
from posix.unistd cimport close

from accel.api cimport ACTION_NONE, DeviceLock, Notifier
from accel.kvm.uapi cimport *
from accel.ram cimport RamBlock
from accel.space cimport KIND_RAM, FlatRange

import os

from accel.errors import AccelFailure

DEVICE = "/dev/kvm"

cdef extern from *:
    """
    #include <linux/kvm.h>
    static struct kvm_coalesced_mmio *vr_ring_entry(struct kvm_coalesced_mmio_ring *ring, unsigned i)
    { return &ring->coalesced_mmio[i]; }
    /* ring->last is the kernel's, ring->first ours; an entry is ours once `last` has passed it. */
    #define vr_ring_last(r) __atomic_load_n(&(r)->last, __ATOMIC_ACQUIRE)
    #define vr_ring_free(r, i) __atomic_store_n(&(r)->first, (i), __ATOMIC_RELEASE)
    #define VR_RING_ROOM ((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))
    """
    kvm_coalesced_mmio *vr_ring_entry(kvm_coalesced_mmio_ring *, u32) nogil
    u32 vr_ring_last(kvm_coalesced_mmio_ring *) nogil
    void vr_ring_free(kvm_coalesced_mmio_ring *, u32) nogil
    u32 VR_RING_ROOM


cdef object failure(str what, int err):
    """AccelFailure for a system call that failed."""
    remedy = ""
    why = os.strerror(err)
    if err == ENOENT:
        why, remedy = f"there is no {DEVICE}", "load the kernel module (modprobe kvm-intel or kvm-amd), or use --accel soft"
    elif err in (EACCES, EPERM):
        why = f"this user may not use {DEVICE}"
        remedy = "add the user to the group kvm (usermod -aG kvm USER, then log in again), or use --accel soft"
    elif err in (ENODEV, ENXIO):
        why = "the processor's virtualization is absent or switched off"
        remedy = "switch it on in the firmware set-up (VT-x, AMD-V), or use --accel soft"
    elif err == EBUSY:
        why = "another hypervisor has the processor's virtualization"
        remedy = "stop the other hypervisor (VirtualBox, VMware), or use --accel soft"
    elif err == ENOMEM:
        why, remedy = "the host has not enough memory", "give the machine less memory or end other programs"
    return AccelFailure(what, why, remedy)


cdef int check(int result, str what) except -1:
    if result < 0:
        raise failure(what, errno)
    return result


cdef class KvmVm:
    """One VM. `lock` is held for dispatch; `control` tells which processors are in the guest."""

    def __cinit__(self):
        self.kvm_fd = self.fd = -1

    def __init__(self, AddressSpace memory, AddressSpace io, DeviceLock lock, RunControl control):
        self.memory, self.io, self.lock, self.control = memory, io, lock, control
        self.kvm_init()

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        if self.kvm_fd >= 0:
            close(self.kvm_fd)

    def close(self):
        if self.memory_listener is not None and self.fd >= 0:
            self.memory.listeners.remove(self.memory_listener)
            self.memory_listener = None
            self.memory.on_doorbells = self.io.on_doorbells = None
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        if self.kvm_fd >= 0:
            close(self.kvm_fd)
            self.kvm_fd = -1

    def kvm_init(self):
        """Open /dev/kvm, check what it is, create the VM."""
        cdef int version
        cdef bytes path = DEVICE.encode()
        self.kvm_fd = posix_open(path, O_RDWR | O_CLOEXEC)
        if self.kvm_fd < 0:
            raise failure(f"cannot open {DEVICE}", errno)
        version = ioctl(self.kvm_fd, KVM_GET_API_VERSION, 0)
        if version != KVM_API_VERSION:
            raise AccelFailure(f"{DEVICE} speaks API version {version}, not {KVM_API_VERSION}",
                               "the kernel is too old, or this is not KVM", "use Linux 4.12 or newer, or --accel soft")
        self.check_extensions()
        self.fd = self.create_vm()
        self.slot_limit = self.extension(KVM_CAP_NR_MEMSLOTS) or 32
        self.has_sync_regs = self.extension(KVM_CAP_SYNC_REGS) & 1
        self.readonly_memory = self.extension(KVM_CAP_READONLY_MEM) > 0
        self.ring_offset = <u64>self.extension(KVM_CAP_COALESCED_MMIO) * 4096
        self.ring_room = VR_RING_ROOM
        self.run_size = check(ioctl(self.kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM does not tell the size of kvm_run")

    cdef int create_vm(self) except -1:
        cdef int fd
        for _ in range(100):
            fd = ioctl(self.kvm_fd, KVM_CREATE_VM, 0)
            if fd >= 0 or errno != 4:  # EINTR: a signal came while the kernel made the VM
                break
        return check(fd, "cannot create a virtual machine")

    def check_extensions(self):
        """AccelFailure names what the kernel lacks."""
        missing = [name for name, cap in _REQUIRED if self.extension(cap) <= 0]
        if missing:
            raise AccelFailure("the kernel's KVM is too old", f"it lacks {', '.join(missing)}",
                               "use Linux 4.12 or newer, or --accel soft")
        self.immediate_exit = True

    def extension(self, int cap):
        """What KVM_CHECK_EXTENSION says of `cap`: 0 for absent."""
        cdef int value = -1
        if self.fd >= 0:
            value = ioctl(self.fd, KVM_CHECK_EXTENSION, cap)
        if value < 0:
            value = ioctl(self.kvm_fd, KVM_CHECK_EXTENSION, cap)
        return max(value, 0)

    def extension_named(self, str name):
        """Limits of this kernel: max_vcpus, max_vcpu_id, memslots."""
        caps = {"max_vcpus": KVM_CAP_MAX_VCPUS, "max_vcpu_id": KVM_CAP_MAX_VCPU_ID, "memslots": KVM_CAP_NR_MEMSLOTS}
        return self.extension(caps[name])

    def kvm_arch_init(self, u64 identity_map, u64 tss):
        """Where KVM may put the four pages that it needs for real mode, out of the guest's way."""
        cdef u64 address = identity_map
        check(ioctl(self.fd, KVM_SET_IDENTITY_MAP_ADDR, &address), "KVM refuses the identity map address")
        check(ioctl(self.fd, KVM_SET_TSS_ADDR, tss), "KVM refuses the TSS address")

    def register_memory_listener(self):
        self.memory_listener = MemoryListener(self)
        self.memory.add_listener(self.memory_listener)
        self.memory.on_doorbells = lambda gone, new: self.hang_doorbells(self.memory, gone, new)
        self.io.on_doorbells = lambda gone, new: self.hang_doorbells(self.io, gone, new)

    def hang_doorbells(self, space, gone, new):
        """AddressSpace.on_doorbells. One that the kernel refuses is rung by the exit, as before."""
        for addr, size, match, notifier in gone:
            self.ioeventfd(space, addr, size, notifier, match, False)
        for addr, size, match, notifier in new:
            self.ioeventfd(space, addr, size, notifier, match, True)

    def enable_cap(self, u32 cap, u64 arg0):
        cdef kvm_enable_cap request
        memset(&request, 0, sizeof(request))
        request.cap = cap
        request.args[0] = arg0
        check(ioctl(self.fd, KVM_ENABLE_CAP, &request), f"KVM refuses capability {cap}")

    def supported_cpuid(self):
        """KVM_GET_SUPPORTED_CPUID as dicts of function, index, flags, eax, ebx, ecx, edx."""
        return _supported_cpuid(self.kvm_fd)

    def msr_indices(self):
        """KVM_GET_MSR_INDEX_LIST: the MSRs that are a processor's state."""
        cdef kvm_msr_list *found = <kvm_msr_list *>calloc(1, sizeof(kvm_msr_list) + 1024 * sizeof(u32))
        cdef u32 i
        if found == NULL:
            raise MemoryError
        try:
            found.nmsrs = 1024
            check(ioctl(self.kvm_fd, KVM_GET_MSR_INDEX_LIST, found), "KVM does not list its MSRs")
            return [found.indices[i] for i in range(min(found.nmsrs, <u32>1024))]
        finally:
            free(found)

    # --- exits that need not happen -------------------------------------------------------------------------

    def ioeventfd(self, AddressSpace space, u64 addr, u32 size, Notifier notifier, match, bint on):
        """Assign or take back an ioeventfd. False when KVM refuses (already there, or not there)."""
        cdef kvm_ioeventfd request
        memset(&request, 0, sizeof(request))
        request.addr = addr
        request.len = size
        request.fd = notifier.fd
        if match is not None:
            request.datamatch = <u64>match
            request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH
        if space is self.io:
            request.flags |= KVM_IOEVENTFD_FLAG_PIO
        if not on:
            request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN
        return ioctl(self.fd, KVM_IOEVENTFD, &request) == 0

    def coalesced(self, AddressSpace space, u64 addr, u32 size, bint on):
        """Queue writes within the zone instead of leaving the guest. False when KVM has no such queue."""
        cdef kvm_coalesced_mmio_zone zone
        if self.ring_offset == 0 or (space is self.io and not self.extension(KVM_CAP_COALESCED_PIO)):
            return False
        memset(&zone, 0, sizeof(zone))
        zone.addr = addr
        zone.size = size
        zone.pio = space is self.io
        return ioctl(self.fd, KVM_REGISTER_COALESCED_MMIO if on else KVM_UNREGISTER_COALESCED_MMIO, &zone) == 0

    cdef u32 drain_ring(self) noexcept nogil:
        """Dispatch the queued writes in their order; the actions they ask for. The device lock is held."""
        cdef kvm_coalesced_mmio_ring *ring = self.ring
        cdef kvm_coalesced_mmio *entry
        cdef u32 action = ACTION_NONE, first, last
        cdef u64 value
        if ring == NULL or self.draining:
            return ACTION_NONE
        first, last = ring.first, vr_ring_last(ring)
        if first == last:
            return ACTION_NONE
        self.draining = True
        while first != last and first < self.ring_room:
            entry = vr_ring_entry(ring, first)
            value = 0
            memcpy(&value, entry.data, entry.len if entry.len <= 8 else 8)
            if entry.pio:
                action |= self.io.store(entry.phys_addr, entry.len, value)
            else:
                action |= self.memory.store(entry.phys_addr, entry.len, value)
            self.drained += 1
            first = (first + 1) % self.ring_room
            vr_ring_free(ring, first)
            last = vr_ring_last(ring)
        self.draining = False
        return action

    def drain(self):
        """Dispatch the queued writes; their number. Requests go to the RunControl."""
        cdef u32 action
        cdef u64 before
        with nogil:
            self.lock.acquire()
            before = self.drained
            action = self.drain_ring()
            before = self.drained - before
            self.lock.release()
            self.control.request(None, action)
        return before

    # --- the kernel's clock ---------------------------------------------------------------------------------

    def get_clock(self):
        cdef kvm_clock_data data
        memset(&data, 0, sizeof(data))
        check(ioctl(self.fd, KVM_GET_CLOCK, &data), "KVM_GET_CLOCK")
        return data.clock

    def set_clock(self, u64 value):
        cdef kvm_clock_data data
        memset(&data, 0, sizeof(data))
        data.clock = value
        check(ioctl(self.fd, KVM_SET_CLOCK, &data), "KVM_SET_CLOCK")


_REQUIRED = (
    ("user memory", KVM_CAP_USER_MEMORY),
    ("TSS address", KVM_CAP_SET_TSS_ADDR),
    ("identity map address", KVM_CAP_SET_IDENTITY_MAP_ADDR),
    ("CPUID", KVM_CAP_EXT_CPUID),
    ("MP state", KVM_CAP_MP_STATE),
    ("vCPU events", KVM_CAP_VCPU_EVENTS),
    ("slot removal", KVM_CAP_DESTROY_MEMORY_REGION_WORKS),
    ("slot joining", KVM_CAP_JOIN_MEMORY_REGIONS_WORKS),
    ("immediate exit", KVM_CAP_IMMEDIATE_EXIT),
)


def _supported_cpuid(int kvm_fd):
    cdef kvm_cpuid2 *found
    cdef kvm_cpuid_entry2 *entry
    cdef u32 i, room = 256
    found = <kvm_cpuid2 *>calloc(1, sizeof(kvm_cpuid2) + room * sizeof(kvm_cpuid_entry2))
    if found == NULL:
        raise MemoryError
    try:
        found.nent = room
        check(ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, found), "KVM does not tell the CPUID it supports")
        leaves = []
        for i in range(min(found.nent, room)):
            entry = &found.entries[i]
            leaves.append({"function": entry.function, "index": entry.index, "flags": entry.flags,
                           "eax": entry.eax, "ebx": entry.ebx, "ecx": entry.ecx, "edx": entry.edx})
        return leaves
    finally:
        free(found)


cdef class MemoryListener:
    """RAM and ROM of the memory space as KVM memory slots.

    ROM is a read-only slot: guest writes leave the guest and vanish (or reach the rom-device). What is not aligned to
    pages is left out: accesses there leave the guest and are served by the AddressSpace.
    """

    def __init__(self, KvmVm vm):
        self.vm = vm
        self.slots = {}
        self.logged = {}
        self.free = []
        self.gone = []
        self.come = []

    def region_add(self, FlatRange piece):
        """kvm_region_add: more memory. Takes effect with commit()."""
        if piece.region.block is not None:
            self.come.append(piece)

    def region_del(self, FlatRange piece):
        if piece.region.block is not None:
            self.gone.append(piece)

    def commit(self):
        """Tell KVM: first what is gone, then what has come."""
        gone, self.gone = self.gone, []
        come, self.come = self.come, []
        gone = [phys for piece in gone if (phys := self.phys_mem(piece)) is not None and phys in self.slots]
        come = [phys for piece in come if (phys := self.phys_mem(piece)) is not None]
        stay = set(gone) & set(come)
        gone = [phys for phys in gone if phys not in stay]
        come = [phys for phys in come if phys not in stay and phys not in self.slots]
        if not gone and not come:
            return
        # A processor that fetches from a slot while it is away would die of it.
        moving = bool(gone) and self.vm.control.running
        if moving:
            self.vm.control.inhibit()
        try:
            for phys in gone:
                self.set_phys_mem(phys, False)
            for phys in come:
                self.set_phys_mem(phys, True)
        finally:
            if moving:
                self.vm.control.allow()

    def phys_mem(self, FlatRange piece):
        """(address, size, block, offset in the block, read-only) of the whole pages of `piece`, or None."""
        cdef RamBlock block = piece.region.block
        start = (piece.start + 0xFFF) & ~0xFFF
        size = (piece.start + piece.size - start) & ~0xFFF if piece.start + piece.size > start else 0
        offset = piece.region.offset + piece.offset + (start - piece.start)
        if size <= 0 or offset & 0xFFF:
            return None
        readonly = piece.region.kind != KIND_RAM or piece.readonly
        if readonly and not self.vm.readonly_memory:
            return None
        return start, size, block, offset, readonly

    def set_phys_mem(self, phys, bint add):
        start, size, block, offset, readonly = phys
        if add:
            if self.free:
                slot = self.free.pop()
            elif self.next_slot < self.vm.slot_limit:
                slot = self.next_slot
                self.next_slot += 1
            else:
                raise AccelFailure(f"cannot show the guest {size:#x} bytes of {block.name} at {start:#x}",
                                   f"KVM has {self.vm.slot_limit} memory slots here and all are taken",
                                   "use fewer devices with memory of their own")
            try:
                self.set_user_memory_region(slot, phys, size)
            except AccelFailure:
                self.free.append(slot)
                raise
            self.slots[phys] = slot
        else:
            if block in self.logged and not readonly:
                self.get_dirty_log(self.slots[phys], phys)
            slot = self.slots.pop(phys)
            self.set_user_memory_region(slot, phys, 0)
            self.free.append(slot)

    def set_user_memory_region(self, u32 slot, phys, u64 size):
        cdef kvm_userspace_memory_region request
        cdef RamBlock block = phys[2]
        memset(&request, 0, sizeof(request))
        request.slot = slot
        request.guest_phys_addr = phys[0]
        request.memory_size = size
        request.userspace_addr = <u64>block.host + <u64>phys[3]
        if phys[4]:
            request.flags = KVM_MEM_READONLY
        elif block in self.logged:
            request.flags = KVM_MEM_LOG_DIRTY_PAGES
        if ioctl(self.vm.fd, KVM_SET_USER_MEMORY_REGION, &request) < 0:
            err = errno
            if err == EEXIST:
                raise AccelFailure(f"cannot show the guest {block.name} at {phys[0]:#x}",
                                   "other memory, or a page that KVM keeps for itself, is there already")
            if err == EINVAL and size:
                raise AccelFailure(f"cannot show the guest {size:#x} bytes of {block.name} at {phys[0]:#x}",
                                   "KVM refuses the address or the size")
            if size:
                raise failure(f"cannot show the guest {block.name} at {phys[0]:#x}", err)
            raise failure(f"cannot take {block.name} at {phys[0]:#x} from the guest", err)

    # --- dirty log ------------------------------------------------------------------------------------------

    def log_start(self, RamBlock block):
        """Note which pages of `block` the guest writes from now on."""
        self.logged[block] = self.logged.get(block, 0) + 1
        if self.logged[block] == 1:
            self._reflag(block)

    def log_stop(self, RamBlock block):
        if self.logged.get(block, 0) > 1:
            self.logged[block] -= 1
        elif block in self.logged:
            del self.logged[block]
            self._reflag(block)

    def _reflag(self, RamBlock block):
        for phys, slot in self.slots.items():
            if phys[2] is block and not phys[4]:
                self.set_user_memory_region(slot, phys, phys[1])

    def sync(self, RamBlock block):
        """Bring what the guest wrote since the last call into block.note_dirty."""
        if block in self.logged:
            for phys, slot in self.slots.items():
                if phys[2] is block and not phys[4]:
                    self.get_dirty_log(slot, phys)

    def get_dirty_log(self, u32 slot, phys):
        cdef kvm_dirty_log request
        cdef RamBlock block = phys[2]
        cdef u64 offset = phys[3], pages = phys[1] >> 12, words = (pages + 63) // 64, i, word
        cdef u32 bit
        cdef u64 *bitmap = <u64 *>calloc(words, 8)
        if bitmap == NULL:
            raise MemoryError
        try:
            memset(&request, 0, sizeof(request))
            request.slot = slot
            request.dirty_bitmap = bitmap
            check(ioctl(self.vm.fd, KVM_GET_DIRTY_LOG, &request), f"no dirty log of {block.name}")
            for i in range(words):
                word = bitmap[i]
                if word == 0:
                    continue
                for bit in range(64):
                    if (word >> bit) & 1:
                        block.mark_dirty(offset + ((i * 64 + bit) << 12), 4096)
        finally:
            free(bitmap)

    def layout(self):
        """[(address, size, block, offset, read-only, slot)] as KVM has it, by address."""
        return sorted((*phys[:2], phys[2].name, phys[3], phys[4], slot) for phys, slot in self.slots.items())
