"""Interrupts in the kernel: the chips (8259A pair, I/O APIC, local APICs, 8254), the GSIs that lead to them, MSIs.

With kernel_irqchip=on a GSI is one input of the kernel: its routing table leads GSI 0…15 to an 8259A pin and
to the I/O APIC pin of the same number (GSI 0 to pin 2, GSI 2 to the 8259A alone), 16…23 to the I/O APIC only. So one
KVM_IRQ_LINE carries what a board's wires would bring to both chips. With split, only the local APICs are
in the kernel, and GSIs 0…23 stand for the messages of our own I/O APIC. With off there is nothing of all this.

Ref: Linux Documentation/virt/kvm/api.rst, sections KVM_CREATE_IRQCHIP, KVM_SET_GSI_ROUTING, KVM_CREATE_PIT2.
"""

from libc.errno cimport errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.ioctl cimport ioctl

from accel.api cimport ACTION_NONE
from accel.kvm.uapi cimport *
from accel.kvm.vm cimport check

from accel.api import _report
from accel.errors import AccelFailure

PINS = 24               # of the I/O APIC

cdef extern from *:
    """
    #include <linux/kvm.h>
    #include <stdlib.h>
    static struct kvm_irq_routing *vr_routes_new(unsigned n)
    { return calloc(1, sizeof(struct kvm_irq_routing) + n * sizeof(struct kvm_irq_routing_entry)); }
    static void vr_route_chip(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin)
    {
        struct kvm_irq_routing_entry *e = &t->entries[t->nr++];
        e->gsi = gsi; e->type = KVM_IRQ_ROUTING_IRQCHIP; e->u.irqchip.irqchip = chip; e->u.irqchip.pin = pin;
    }
    static void vr_route_msi(struct kvm_irq_routing *t, unsigned gsi, unsigned long long addr, unsigned data)
    {
        struct kvm_irq_routing_entry *e = &t->entries[t->nr++];
        e->gsi = gsi; e->type = KVM_IRQ_ROUTING_MSI;
        e->u.msi.address_lo = (unsigned)addr; e->u.msi.address_hi = (unsigned)(addr >> 32); e->u.msi.data = data;
    }
    #define vr_pic(c) (&(c)->chip.pic)
    #define vr_ioapic(c) (&(c)->chip.ioapic)
    #define vr_redir(c, i) ((c)->chip.ioapic.redirtbl[i].bits)
    #define vr_set_redir(c, i, v) ((c)->chip.ioapic.redirtbl[i].bits = (v))
    """
    struct kvm_irq_routing:
        u32 nr
    ctypedef struct vr_ioapic_state "struct kvm_ioapic_state":
        u64 base_address
        u32 ioregsel, id, irr
    kvm_irq_routing *vr_routes_new(u32)
    void vr_route_chip(kvm_irq_routing *, u32, u32, u32)
    void vr_route_msi(kvm_irq_routing *, u32, u64, u32)
    kvm_pic_state *vr_pic(kvm_irqchip *)
    vr_ioapic_state *vr_ioapic(kvm_irqchip *)
    u64 vr_redir(kvm_irqchip *, u32)
    void vr_set_redir(kvm_irqchip *, u32, u64)


cdef class GsiSink(IrqSink):
    """Input n is GSI n of the kernel. Only changes travel, so a GSI wired here from two chips is raised once."""

    def __cinit__(self, KvmVm vm, u32 count):
        self.vm = vm
        self.count = count
        self.levels = <u8 *>calloc(count, 1)
        self.statuses = <int *>calloc(count, sizeof(int))
        if self.levels == NULL or self.statuses == NULL:
            raise MemoryError
        self.with_status = vm.extension(KVM_CAP_IRQ_INJECT_STATUS) > 0

    def __dealloc__(self):
        free(self.levels)
        free(self.statuses)

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        level = level != 0
        if n < self.count and self.levels[n] != level:
            self.levels[n] = level
            if self.connected:
                self.deliver(n)

    cdef void deliver(self, u32 n) noexcept nogil:
        cdef kvm_irq_level request
        self.deliveries += 1
        request.irq = n
        request.level = self.levels[n]
        ioctl(self.vm.fd, KVM_IRQ_LINE_STATUS if self.with_status else KVM_IRQ_LINE, &request)
        self.statuses[n] = request.status if self.with_status else 1

    def connect(self):
        """The chips exist now: tell them of the lines that are up already."""
        cdef u32 n
        self.connected = True
        for n in range(self.count):
            if self.levels[n]:
                self.deliver(n)

    def level(self, u32 n):
        return self.levels[n] if n < self.count else 0

    def status(self, u32 n):
        """Of the last change of GSI n: > 0 reached a processor, 0 was merged with a pending one, < 0 masked."""
        return self.statuses[n] if n < self.count else -1


cdef class KvmMsiSink(MsiSink):
    """KVM_SIGNAL_MSI.

    With a split irqchip the kernel reports the end of an interrupt only for the messages that it finds among its
    first 24 routes: those of our I/O APIC's level-triggered pins, which are noted here as they pass.
    """

    def __init__(self, KvmVm vm, irqchip=None):
        self.vm = vm
        self.irqchip = irqchip
        self.anywhere = True

    cdef bint known(self, u64 addr, u32 data) noexcept nogil:
        cdef u32 i
        for i in range(min(self.levels, <u32>24)):
            if self.level_addr[i] == addr and self.level_data[i] == data:
                return True
        return False

    cdef void learn(self, u64 addr, u32 data) noexcept with gil:
        cdef u32 pin = self.levels % 24             # more than 24 were in use over time: the oldest goes
        self.levels = pin + 1 + (24 if self.levels >= 24 or pin == 23 else 0)
        self.level_addr[pin] = addr
        self.level_data[pin] = data
        try:
            self.irqchip.update_msi_route(pin, addr, data)
        except Exception as exc:
            _report("interrupt route", exc)

    cdef int send(self, u64 addr, u32 data) noexcept nogil:
        cdef kvm_msi request
        cdef int result
        if data & 0x8000 and self.irqchip is not None and not self.known(addr, data):
            self.learn(addr, data)
        memset(&request, 0, sizeof(request))
        request.address_lo = <u32>addr
        request.address_hi = <u32>(addr >> 32)
        request.data = data
        result = ioctl(self.vm.fd, KVM_SIGNAL_MSI, &request)
        return 1 if result > 0 else result


cdef class MsiRegion(IoRegion):
    """Memory from 0xfee00000 on as bus masters see it: a 32-bit write is a message."""

    def __init__(self, MsiSink sink, u64 base):
        self.sink = sink
        self.base = base
        self.name = "apic-msi"

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 4:
            self.sink.send(self.base + offset, <u32>value)
        return ACTION_NONE


cdef class KvmIrqchip:
    """The chips and the routing table of one VM. `mode` is kernel_irqchip: on, split or off."""

    def __init__(self, KvmVm vm, str mode, u32 count=PINS):
        if mode not in ("on", "split", "off"):
            raise AccelFailure(f"kernel_irqchip is on, split or off, not {mode!r}")
        self.vm = vm
        self.mode = mode
        if mode == "on" and not vm.extension(KVM_CAP_IRQCHIP):
            raise AccelFailure("this KVM has no interrupt chip", "it is built without one", "set kernel_irqchip: off")
        if mode == "split" and not vm.extension(KVM_CAP_SPLIT_IRQCHIP):
            raise AccelFailure("this KVM cannot split its interrupt chip", "it is older than Linux 4.4",
                               "set kernel_irqchip: on")
        self.gsis = GsiSink(vm, count)
        self.gsi_limit = vm.extension(KVM_CAP_IRQ_ROUTING)
        self.first_msi = max(count, PINS)
        self.reinject = True                        # ticks the guest missed come late instead of never
        self.routes = {}                            # GSI of a message → (address, data)
        self.pending = {}                           # chip → state to load once it exists

    def create(self):
        """kvm_irqchip_create; after the memory slots, before the first processor."""
        if self.created or self.mode == "off":
            return
        if self.mode == "split":
            self.vm.enable_cap(KVM_CAP_SPLIT_IRQCHIP, PINS)
            self.created = True
            self.commit_routes()
            return
        check(ioctl(self.vm.fd, KVM_CREATE_IRQCHIP, 0), "cannot create the interrupt chip in the kernel")
        self.created = True
        self.commit_routes()
        if self.want_pit:
            self.create_pit()
        pending, self.pending = self.pending, {}
        for chip, state in pending.items():
            self.set_chip(chip, state)
        self.gsis.connect()

    def create_pit(self):
        cdef kvm_pit_config config
        if self.pit_created:
            return
        memset(&config, 0, sizeof(config))
        # The kernel answers port 61h too: guests calibrate clocks by polling OUT2 there.
        config.flags = KVM_PIT_SPEAKER_DUMMY
        check(ioctl(self.vm.fd, KVM_CREATE_PIT2, &config), "cannot create the timer in the kernel")
        self.pit_created = True
        if not self.reinject and self.vm.extension(KVM_CAP_REINJECT_CONTROL):
            self.set_reinject(False)

    def freeze_pit(self):
        """The machine stops: keep the timer's state, which goes on counting in the kernel."""
        if self.pit_created and self.frozen_pit is None:
            self.frozen_pit = self._get_pit()

    def thaw_pit(self):
        """The machine starts: count on from there, without the ticks of the pause."""
        frozen, self.frozen_pit = self.frozen_pit, None
        if frozen is not None:
            self._set_pit(frozen)

    def set_reinject(self, bint reinject):
        """Whether ticks that the guest missed are delivered late (true) or dropped."""
        cdef kvm_reinject_control request
        memset(&request, 0, sizeof(request))
        request.pit_reinject = reinject
        check(ioctl(self.vm.fd, KVM_REINJECT_CONTROL, &request), "KVM_REINJECT_CONTROL")

    # --- the routing table ----------------------------------------------------------------------------------

    def commit_routes(self):
        cdef kvm_irq_routing *table
        cdef u32 gsi
        if not self.created or not self.gsi_limit:
            return
        table = vr_routes_new(2 * PINS + len(self.routes))
        if table == NULL:
            raise MemoryError
        try:
            if self.mode == "on":
                for gsi in range(16):
                    vr_route_chip(table, gsi, KVM_IRQCHIP_PIC_MASTER if gsi < 8 else KVM_IRQCHIP_PIC_SLAVE, gsi & 7)
                for gsi in range(PINS):
                    if gsi != 2:
                        vr_route_chip(table, gsi, KVM_IRQCHIP_IOAPIC, 2 if gsi == 0 else gsi)
            for gsi, (addr, data) in self.routes.items():
                vr_route_msi(table, gsi, addr, data)
            check(ioctl(self.vm.fd, KVM_SET_GSI_ROUTING, table), "KVM refuses the interrupt routes")
        finally:
            free(table)

    def table(self):
        """{GSI: (address, data)} of the messages routed."""
        return dict(self.routes)

    def add_msi_route(self, u64 addr, u32 data):
        """A new GSI that stands for this message, -1 when there is none left."""
        cdef u32 gsi
        if self.mode == "off":
            return -1
        for gsi in range(self.first_msi, self.gsi_limit):
            if gsi not in self.routes:
                self.routes[gsi] = (addr, data)
                self.commit_routes()
                return gsi
        return -1

    def update_msi_route(self, u32 gsi, u64 addr, u32 data):
        """The message of `gsi`. With split, GSIs below 24 are the pins of the I/O APIC."""
        if self.routes.get(gsi) != (addr, data):
            self.routes[gsi] = (addr, data)
            self.commit_routes()

    def remove_msi_route(self, u32 gsi):
        if self.routes.pop(gsi, None) is not None:
            self.commit_routes()

    def irqfd(self, u32 gsi, int fd, int resample_fd, bint on):
        """Assign or take back an irqfd. False when KVM refuses."""
        cdef kvm_irqfd request
        memset(&request, 0, sizeof(request))
        request.fd = fd
        request.gsi = gsi
        if resample_fd >= 0:
            request.flags = KVM_IRQFD_FLAG_RESAMPLE
            request.resamplefd = resample_fd
        if not on:
            request.flags = KVM_IRQFD_FLAG_DEASSIGN
        return ioctl(self.vm.fd, KVM_IRQFD, &request) == 0

    # --- the chips' state -----------------------------------------------------------------------------------

    def get_chip(self, str chip):
        """State of "pic0", "pic1", "ioapic" or "pit" under KVM's names."""
        if not self.created or (chip == "pit" and not self.pit_created):
            return dict(self.pending.get(chip) or RESET[chip])
        if chip == "pit":
            return self._get_pit() if self.frozen_pit is None else dict(self.frozen_pit)
        if chip == "ioapic":
            return self._get_ioapic()
        return self._get_pic(chip)

    def set_chip(self, str chip, dict state):
        """Load what get_chip gave. Before the chips exist it is kept until they do."""
        if not self.created or (chip == "pit" and not self.pit_created):
            self.pending[chip] = dict(state)
        elif chip == "pit":
            self._set_pit(state)
            if self.frozen_pit is not None:
                self.frozen_pit = dict(state)
        elif chip == "ioapic":
            self._set_ioapic(state)
        else:
            self._set_pic(chip, state)

    def _get_pic(self, chip):
        cdef kvm_irqchip request
        cdef kvm_pic_state *pic = vr_pic(&request)
        memset(&request, 0, sizeof(request))
        request.chip_id = KVM_IRQCHIP_PIC_SLAVE if chip == "pic1" else KVM_IRQCHIP_PIC_MASTER
        check(ioctl(self.vm.fd, KVM_GET_IRQCHIP, &request), f"no state of {chip}")
        return pic[0]

    def _set_pic(self, chip, state):
        cdef kvm_irqchip request
        cdef kvm_pic_state pic = state
        memset(&request, 0, sizeof(request))
        request.chip_id = KVM_IRQCHIP_PIC_SLAVE if chip == "pic1" else KVM_IRQCHIP_PIC_MASTER
        memcpy(vr_pic(&request), &pic, sizeof(pic))
        check(ioctl(self.vm.fd, KVM_SET_IRQCHIP, &request), f"KVM refuses the state of {chip}")

    def _get_ioapic(self):
        cdef kvm_irqchip request
        cdef u32 i
        memset(&request, 0, sizeof(request))
        request.chip_id = KVM_IRQCHIP_IOAPIC
        check(ioctl(self.vm.fd, KVM_GET_IRQCHIP, &request), "no state of the I/O APIC")
        return {"base_address": vr_ioapic(&request).base_address, "ioregsel": vr_ioapic(&request).ioregsel,
                "id": vr_ioapic(&request).id, "irr": vr_ioapic(&request).irr,
                "redirtbl": [vr_redir(&request, i) for i in range(PINS)]}

    def _set_ioapic(self, state):
        cdef kvm_irqchip request
        cdef u32 i
        memset(&request, 0, sizeof(request))
        request.chip_id = KVM_IRQCHIP_IOAPIC
        vr_ioapic(&request).base_address = state["base_address"]
        vr_ioapic(&request).ioregsel = state["ioregsel"]
        vr_ioapic(&request).id = state["id"]
        vr_ioapic(&request).irr = state["irr"]
        for i in range(PINS):
            vr_set_redir(&request, i, state["redirtbl"][i])
        check(ioctl(self.vm.fd, KVM_SET_IRQCHIP, &request), "KVM refuses the state of the I/O APIC")

    def _get_pit(self):
        cdef kvm_pit_state2 pit
        cdef u32 i
        memset(&pit, 0, sizeof(pit))
        check(ioctl(self.vm.fd, KVM_GET_PIT2, &pit), "no state of the timer")
        return {"channels": [pit.channels[i] for i in range(3)], "flags": pit.flags}

    def _set_pit(self, state):
        cdef kvm_pit_state2 pit
        cdef u32 i
        memset(&pit, 0, sizeof(pit))
        for i in range(3):
            pit.channels[i] = state["channels"][i]
        pit.flags = state["flags"]
        check(ioctl(self.vm.fd, KVM_SET_PIT2, &pit), "KVM refuses the state of the timer")


def _pic_reset(elcr_mask):
    names = ("last_irr", "irr", "imr", "isr", "priority_add", "irq_base", "read_reg_select", "poll", "special_mask",
             "init_state", "auto_eoi", "rotate_on_auto_eoi", "special_fully_nested_mode", "init4", "elcr")
    return {**dict.fromkeys(names, 0), "elcr_mask": elcr_mask}


def _channel_reset(n):
    names = ("latched_count", "count_latched", "status_latched", "status", "read_state", "write_state", "write_latch",
             "rw_mode", "bcd", "count_load_time")
    # Mode 3 with a full count; the gates of 0 and 1 are tied high, port 61h drives that of 2.
    return {**dict.fromkeys(names, 0), "count": 0x10000, "mode": 3, "gate": n != 2}


# What power-on leaves in each chip.
RESET = {
    "pic0": _pic_reset(0xF8),
    "pic1": _pic_reset(0xDE),
    "ioapic": {"base_address": 0xFEC00000, "ioregsel": 0, "id": 0, "irr": 0, "redirtbl": [1 << 16] * PINS},
    "pit": {"channels": [_channel_reset(n) for n in range(3)], "flags": 0},
}
