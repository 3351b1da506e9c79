"""What each error code means: `vmrun explain` shows it, and the documentation is made from it.

A code keeps its meaning for ever. VR01 files and notation, VR02 schema, VR03 machine types, VR04 devices
and properties, VR05 places and clashes, VR06 the host's side, VR07 memory, CPUs and settings, VR08 not
modelled yet, VR09 the installation and the host.
"""

from __future__ import annotations

_TO_COME = (
    "QEMU has this and vmrun will have it; this release does not. Nothing is put in its place, "
    "because a guest would "
    "see a different machine. Remove it to run the rest, or wait for a release that models it."
)

# code → (title, explanation)
CODES: dict[str, tuple[str, str]] = {
    "VR0001": ("unknown error code", "`vmrun explain` without an argument lists the codes."),
    "VR0100": ("a file is wrong", "The message says how."),
    "VR0101": (
        "a file cannot be read",
        "There is no such file, it is a directory, or its permissions do not allow reading.",
    ),
    "VR0102": (
        "a file of unknown notation",
        "Machine files are YAML (.yaml, .yml), TOML (.toml) or JSON (.json), and the name's end says which.",
    ),
    "VR0103": (
        "a file without a mapping",
        "A machine file is a mapping of keys to values. This one is empty, or holds a list or a single value.",
    ),
    "VR0104": (
        "a file that is not text",
        "Machine files are UTF-8 text without control characters. An image named by mistake looks like this.",
    ),
    "VR0105": (
        "a file beyond the limits",
        "At most 1 MiB, 32 levels of nesting, 2048 entries in one list or mapping and 50000 values: "
        "no machine needs "
        "more, and a file that has more is refused before it costs time or memory.",
    ),
    "VR0106": (
        "the notation is broken",
        "The YAML, TOML or JSON cannot be read at this place. Fractions and dates are not used in "
        "machine files; "
        "quote what looks like one.",
    ),
    "VR0107": (
        "a key is given twice",
        "A mapping has the same key twice. Which one was meant cannot be known, so neither is taken.",
    ),
    "VR0108": (
        "a feature of YAML that is not used",
        "Anchors, aliases, merge keys, tags and several documents in one file are refused: they hide "
        "where a value "
        "comes from. What several machines have in common goes into a type of your own (`extends:`).",
    ),
    "VR0109": (
        "--set cannot be done",
        "--set takes path=value, as in memory=512MiB or devices.serial0.irq=3.",
    ),
    "VR0110": (
        "a file exists already",
        "`vmrun init` does not write over files unless told to with --force, `vmrun lock` over none but locks.",
    ),
    "VR0120": (
        "a command line that cannot be read",
        "QEMU would refuse these options too: one is unknown, lacks its value, or its value cannot be understood. "
        "The caret shows which.",
    ),
    "VR0121": (
        "an option without an equal",
        "The option is understood, but a machine file has no word for it. The rest is imported.",
    ),
    "VR0122": (
        "a domain that cannot be read",
        "libvirt's XML is not well-formed, is no domain of an i440FX PC, or declares a document type, which "
        "is refused.",
    ),
    "VR0201": (
        "an unknown key",
        "The key has no meaning here. The nearest known one is named if there is one.",
    ),
    "VR0202": (
        "a value of the wrong kind",
        "For example text where a number is needed. on and yes are text: write true.",
    ),
    "VR0203": ("a key is missing", "The message names the key and what it is for."),
    "VR0204": (
        "a value that is not allowed",
        "It is outside its bounds, not one of the choices, or not of the right form.",
    ),
    "VR0205": ("too many or too few entries", "The message says how many a list may have."),
    "VR0206": (
        "a machine type instead of a machine",
        "Type files say what a family of PCs is; a machine names one with `machine:`.",
    ),
    "VR0301": (
        "an unknown machine type",
        "A type is one of those that `vmrun types` lists, or a file of your own beside the machine file: "
        "`machine: mine` is mine.yaml there, with `schema: vmrun/machine-type/1`. A name is looked for in the file's "
        "own directory first. Types of Q35 boards, of other processors and of other distributions are not there; "
        "`pc` is an alias of the newest, and `vmrun diff A B` tells what another type changes for a guest.",
    ),
    "VR0302": (
        "a type that extends itself",
        "Following `extends` from type to type comes back to where it began.",
    ),
    "VR0303": (
        "a faulty type of your own",
        "A type of your own has its file's name and extends one of vmrun's, directly or through others.",
    ),
    "VR0304": (
        "a machine type that is not as released",
        "Vmrun's own types never change once released, or machines of them would. A digest of each is kept in "
        "machines/digests.json, and `vmrun types --check` compares.",
    ),
    "VR0401": ("an unknown driver", "`vmrun devices --all` lists every driver, also those to come."),
    "VR0402": (
        "two devices with one id",
        "Ids name devices for links, monitors and addresses, so each is used once.",
    ),
    "VR0403": (
        "an id that is taken",
        "Board devices and short forms (disks, serial, …) have ids of their own. A device with a "
        "board device's id "
        "changes that device and must be of the same driver.",
    ),
    "VR0404": (
        "a property with a wrong value",
        "`vmrun devices DRIVER` shows each property's kind and default.",
    ),
    "VR0405": ("an unknown property", "`vmrun devices DRIVER` lists the properties of a driver."),
    "VR0406": (
        "an unknown display",
        "`display:` takes default, none, or one of the names that the type has.",
    ),
    "VR0407": (
        "a device to remove that is not there",
        "`remove:` takes ids of the machine type's own devices; `vmrun tree` shows them. What else stands in a file is "
        "left out by deleting its line.",
    ),
    "VR0408": (
        "a device that the board cannot do without",
        "The firmware finds the machine through fw_cfg and the CMOS memory of the clock, so neither can be removed.",
    ),
    "VR0410": (
        "a device that cannot be made",
        "Each of its properties is allowed, but not all of them together, or not on this board. The message says why.",
    ),
    "VR0411": (
        "a chip that KVM cannot move",
        "With `kernel_irqchip: on` the interrupt controllers and the timer are in KVM's kernel, which has them where a "
        "PC has them and nowhere else. `kernel_irqchip: off` uses vmrun's own.",
    ),
    "VR0501": ("a bus that cannot be used", "The bus does not exist, or the device plugs into none."),
    "VR0502": ("a bus of the wrong kind", "A device plugs into one kind of bus: PCI, ISA, IDE, …"),
    "VR0503": (
        "two buses with one name",
        "A bus is named by the device that provides it; names are used once.",
    ),
    "VR0504": ("buses in a circle", "A device is plugged into a bus that hangs, in the end, on itself."),
    "VR0505": ("a place taken twice", "Two drives have one unit of an IDE channel, or two ports one index."),
    "VR0506": ("too many IDE drives", "The PIIX3 has two channels (ide.0, ide.1) of two units (0, 1) each."),
    "VR0507": ("too many ports", "A PC has standard places for four serial and three parallel ports."),
    "VR0508": (
        "no PCI address",
        "Slot 00 to 1f, then a dot and function 0 to 7, all hexadecimal, in quotes.",
    ),
    "VR0509": (
        "a PCI slot taken twice",
        "Two devices are at one slot and function. `addr` left out picks a free slot.",
    ),
    "VR0510": ("no free PCI slot", "A PCI bus has 32 slots, some of them the board's."),
    "VR0511": (
        "functions without a function 0",
        "Software looks for functions 1 to 7 of a slot only if function 0 is there and says multifunction.",
    ),
    "VR0512": (
        "I/O ports claimed twice",
        "Two devices decode the same port, wholly or in part. On a real ISA bus both would answer.",
    ),
    "VR0513": (
        "an interrupt claimed twice",
        "ISA interrupts are edges on one wire and cannot be shared, save by ports that share theirs "
        "in hardware "
        "(COM1 with COM3, parallel ports). IRQ 2 links the two interrupt controllers, IRQ 9 is ACPI's.",
    ),
    "VR0514": ("a resource that does not exist", "I/O ports end at 0xffff, ISA interrupts at 15."),
    "VR0515": (
        "a DMA channel that cannot be had",
        "Channels 0 to 3 and 5 to 7, each for one device; 4 links the two controllers.",
    ),
    "VR0516": (
        "a boot index used twice",
        "Boot indexes order the devices to boot from, so each is used once.",
    ),
    "VR0517": ("a MAC address used twice", "Two cards with one address cannot be told apart on one network."),
    "VR0518": (
        "a place on a bus taken twice",
        "Two devices are at one USB port, SCSI address, virtio-serial port or codec address. Left out, each gets a "
        "free one.",
    ),
    "VR0519": (
        "a place that a bus does not have",
        "USB controllers have a fixed number of ports: two of a UHCI, six of an EHCI; a hub adds eight, which are "
        "written as 1.1 to 1.8. The other buses have their limits too, which the message names.",
    ),
    "VR0520": (
        "a wire that cannot be read",
        "device.pin, device.pin[n] or device.pin[first..last], as many on both sides.",
    ),
    "VR0521": (
        "a wire to nowhere",
        "The device or bus at this end of the wire does not exist in this machine.",
    ),
    "VR0522": (
        "no room for an option ROM",
        "Firmware copies option ROMs one after the other to 0xc0000 and above, 128 KiB in all, the display's first. A "
        'ROM that does not fit beside it is left out, and its device cannot be booted from. romfile: "" leaves a '
        "ROM out on purpose.",
    ),
    "VR0523": (
        "wires in a circle",
        "Following wires from pin to pin comes back to the first. A level would run in circles for ever.",
    ),
    "VR0524": (
        "an ACPI index used twice",
        "Guests name cards by the number that the firmware tells of them, so each is used once.",
    ),
    "VR0601": (
        "an unknown backend type",
        "The message lists the types that there are; those that are still to come are told by a code of their own.",
    ),
    "VR0602": (
        "an unreadable character device",
        "The short form of a chardev: stdio, pty, null, file:PATH, unix:PATH, …",
    ),
    "VR0603": (
        "a name that nothing has",
        "A device names a drive, chardev, netdev or device that does not exist.",
    ),
    "VR0604": ("a backend used twice", "A drive, chardev or netdev belongs to one device."),
    "VR0605": (
        "a backend that lacks something",
        "A drive without a file, a chardev without its path, a disk without a drive.",
    ),
    "VR0606": ("an unknown drive format or medium", "The message lists the formats and media that there are."),
    "VR0607": ("an unknown option of a backend", "The message lists the options that this backend has."),
    "VR0608": ("a socket without one address", "Either path (unix), or host and port (TCP)."),
    "VR0609": (
        "one image in two drives",
        "Two writers destroy an image. Drives that are all readonly may share one; what is no file of this host "
        "(null-co, a server's export) may be named twice.",
    ),
    "VR0610": (
        "something of the host claimed twice",
        "Two chardevs, networks or remote displays listen on one address, write one file or take one descriptor. "
        "Only one of them would get it, or both would spoil it.",
    ),
    "VR0611": (
        "a backend that nothing uses",
        "A drive, chardev or netdev that no device names does nothing.",
    ),
    "VR0612": (
        "options of a drive that exclude each other",
        "A `node-name` is one image's alone, and no drive's. Linux's own asynchronous transfers (aio: native) go past "
        "the host's page cache: they need cache none or directsync.",
    ),
    "VR0613": (
        "an object of another kind",
        "A device names an object that is there but cannot serve it: `rng:` takes an rng-random or rng-builtin, "
        "`memdev:` a memory-backend-…, `iothread:` an iothread.",
    ),
    "VR0620": (
        "a file that does not exist",
        "The machine names a file or directory that this host does not have.",
    ),
    "VR0621": ("a directory instead of a file", "The machine names a directory where a file is needed."),
    "VR0622": (
        "a file without permission",
        "The file cannot be read, or not written although the drive is writable.",
    ),
    "VR0623": ("an empty image", "A disk of no sectors cannot be used."),
    "VR0624": (
        "an image of odd length",
        "A disk consists of sectors of 512 bytes; what is beyond the last whole one is not seen.",
    ),
    "VR0625": ("a socket name that is too long", "The kernel allows 107 bytes."),
    "VR0626": (
        "not a file but something else",
        "A FIFO, a socket or a device such as /dev/zero has no contents that could be a disk, kernel or firmware.",
    ),
    "VR0628": (
        "an image that is not what the drive says",
        "The file is no image of the drive's format, is damaged, names a backing file that is not there, or looks like "
        "an image of another format while the drive says none. `vmrun img info FILE` and `vmrun img check FILE` tell "
        "more.",
    ),
    "VR0630": (
        "a kernel that cannot be started",
        "The file named under `kernel` is of no kind that vmrun starts, is cut off, or asks of its loader what there "
        "is not. docs/boot.md has the kinds.",
    ),
    "VR0632": (
        "no firmware, or no option ROM",
        "The file is there, but it cannot be what it is named for: a PC's firmware is a multiple of 64 KiB up to 8 MiB "
        "with code at its end, an option ROM begins with 55 aa and has the length it says.",
    ),
    "VR0633": (
        "more memory than the host has",
        "The host does not give the machine as much address space. Less `memory:`, or fewer limits (ulimit -v).",
    ),
    "VR0634": (
        "memory that the host cannot give as asked",
        "`memory-backing:` wants a file, huge pages, a NUMA node or pages at once that this host has not; or the "
        "backends do not add up to `memory:`.",
    ),
    "VR0635": (
        "an object of the host's side that cannot be made",
        "`objects:` are made as QEMU's -object makes them; the message is QEMU's, or names what the host has not.",
    ),
    "VR0640": (
        "a network back end that this host does not have",
        "A library, a program, a device file or a permission is missing; the remedy names it. `vmrun doctor` looks for "
        "them.",
    ),
    "VR0641": ("an option of a network back end", "The option's value makes no sense; docs/network.md has them all."),
    "VR0642": (
        "a port that is not free",
        "Somebody else on this host listens there, or it is below 1024 and for root. Port 0 takes a free one, which "
        "`vmrun ps --json` tells.",
    ),
    "VR0643": (
        "an option of a network back end without effect",
        "QEMU may leave virtio-net's rings to the host's kernel (vhost). vmrun serves them itself, in compiled code.",
    ),
    "VR0701": (
        "an impossible amount of memory",
        "At least 2 MiB, in steps of 4 KiB. A number without a unit means bytes.",
    ),
    "VR0702": (
        "a computed value that does not fit",
        "Some values of the memory map follow from others; leave them out.",
    ),
    "VR0703": ("too many CPUs", "Each machine type has a limit."),
    "VR0704": (
        "CPUs that do not add up",
        "sockets × cores × threads must be maxcpus (count when maxcpus is not given).",
    ),
    "VR0705": ("an unknown CPU model", "The nearest known one is named if there is one."),
    "VR0706": (
        "a boot order with repetitions",
        "Each letter once: a, b floppy; c disk; d CD-ROM; n network.",
    ),
    "VR0707": ("an initrd or command line without a kernel", "They are for a kernel started directly."),
    "VR0708": (
        "an unknown CPU feature",
        "Features have QEMU's names (machines/cpus/features.json lists them).",
    ),
    "VR0710": (
        "neither a firmware nor a kernel",
        "`firmware: none` leaves out the firmware, and vmrun starts the machine's `kernel:` itself; without one "
        "there would be nothing to run.",
    ),
    "VR0711": (
        "NUMA nodes that do not add up",
        "The nodes' memory is the machine's, each CPU is in one node (or none is named: then they go by socket), and "
        "each node has a distance to every node: 10 to itself, 11 to 254 to others.",
    ),
    "VR0712": (
        "SMBIOS structures that the firmware does not take",
        "Up to pc-i440fx-2.0 the firmware makes the SMBIOS tables; a machine can set fields of types 0 and 1 only.",
    ),
    "VR0713": (
        "a clock that starts at no date",
        "`rtc.base` is utc, localtime, or a date of the years 1700 to 2200: 2026-11-23 or 2026-11-23T10:00:00.",
    ),
    "VR0714": (
        "a command line that is too long",
        "A kernel says in its header how long a command line it takes; before version 2.06 of the boot protocol it is "
        "255 bytes.",
    ),
    "VR0715": (
        "too little memory for the kernel",
        "A kernel's header says where it unpacks itself and how much room it needs there; an initrd comes on top.",
    ),
    "VR0716": (
        "SMBIOS tables that cannot be made",
        "All tables together have at most 65535 bytes, a processor's speed is a 16-bit number of MHz.",
    ),
    "VR0717": (
        "a memory map that cannot be",
        "Its parts are whole pages, each where a PC can have it, and RAM is not cut above the place where it must end.",
    ),
    "VR0718": (
        "flash that cannot be the firmware",
        "A machine has one firmware: `firmware.bios`, a ROM, or the flash that ends at 4 GiB; another flash lies below "
        "it. Types whose firmware is copied to RAM (rhel6) have no flash.",
    ),
    "VR0719": (
        "memory slots that cannot be",
        "`memory-slots` has a number of slots that the machine type does not have, or a `maxmem` that leaves no room "
        "for modules: it counts the memory that the machine starts with. Types before pc-i440fx-2.1 have no slots.",
    ),
    "VR0720": (
        "a name of fw_cfg's that is taken",
        "`firmware.files` and `firmware.roms` add files to fw_cfg, whose names are unique and not those that the "
        "machine makes itself.",
    ),
    "VR0721": (
        "a clock that nobody keeps",
        "`clock: {mode: instructions}` and what belongs to it, `shift` and `sleep`, are for vmrun's own processors "
        "(`accel: soft`); those of KVM do not say how many instructions they execute.",
    ),
    "VR0801": ("a driver that is not modelled yet", _TO_COME),
    "VR0802": ("a chardev type that is not modelled yet", _TO_COME),
    "VR0803": ("a netdev type that is not modelled yet", _TO_COME),
    "VR0804": ("a drive format or option that is not modelled yet", _TO_COME),
    "VR0805": ("a section that is not acted on yet", _TO_COME),
    "VR0806": ("a CPU feature that is not modelled yet", _TO_COME),
    "VR0900": (
        "a fault of vmrun's own",
        "Vmrun met something that it was not made for, and none of it is your file's fault. The message names it; "
        "VMRUN_TRACEBACK=1 shows where it happened. Please report both, with the file and `vmrun doctor`. What the "
        "host refuses (no room on the disk, too few descriptors, a closed stream) is told in its own words instead.",
    ),
    "VR0901": (
        "a damaged installation",
        "One of vmrun's own data files is missing or broken; reinstall vmrun.",
    ),
    "VR0910": (
        "the machine cannot be built",
        "Each part of the description is sound, but this host or this release cannot make a machine of it: two parts "
        "do not go together, or an accelerator refuses one. The message names the part; `vmrun validate` tells the "
        "line where it can be known, and `vmrun tree` what the machine is made of.",
    ),
    "VR0920": (
        "a backend fails",
        "A file, socket or terminal of the host does not do what the machine asks of it: an image is locked by "
        "another machine, a port is taken, a terminal has gone, a temporary file has no room. The message names it "
        "and what the host said. It is found when the machine starts, since it may have changed a moment later.",
    ),
    "VR0921": (
        "a file cannot be written",
        "The directory does not exist or its permissions do not allow writing.",
    ),
    "VR0930": ("no accelerator", "`vmrun doctor` says what is missing."),
    "VR0940": (
        "a state that cannot be loaded",
        "It belongs to another machine or another version, or is damaged.",
    ),
    "VR0960": (
        "no lock file",
        "There is no file of that name beside the machine file, or it is none that `vmrun lock` writes.",
    ),
    "VR0961": (
        "a lock of another machine",
        "A lock names its machine and its machine type, and holds for no other.",
    ),
    "VR0962": (
        "a machine that is not as locked",
        "Something that the guest sees has changed since `vmrun lock`: the machine file, a machine type, a "
        "firmware image of the host, the size of a disk. Each change is named with its severity: re-detected "
        "(noticed at the next boot) or breaks resume (a saved guest cannot go on).",
    ),
    "VR0963": (
        "a CPU that cannot be locked",
        "`host` and `max` are whatever the host's processor is, which differs from host to host.",
    ),
    "VR0964": (
        "CPU features that this host lacks",
        "A locked machine has every feature of its CPU model or does not start.",
    ),
    "VR0966": (
        "a memory map that is not as locked",
        "KVM needs four pages below 4 GiB, which the guest is told of (etc/e820). A machine that was locked for KVM "
        "and runs on another accelerator, or the reverse, shows its guest another memory map.",
    ),
    "VR0965": (
        "a lock that was changed by hand",
        "Its digests do not fit its contents.",
    ),
    "VR0950": ("a monitor command that cannot be done", "The message says why."),
    "VR1001": (
        "a CPU that is the host's",
        "`host` and `max` give the guest whatever the host's processor has: another host, another machine.",
    ),
    "VR1002": (
        "a machine type that moves",
        "`pc` is an alias of the newest type, so the machine changes with a new release of vmrun.",
    ),
    "VR1003": (
        "a network card without a MAC address of its own",
        "It gets one made of the machine's name and the card's id, so that another name is another address.",
    ),
    "VR1004": (
        "a clock at the host's local time",
        "What the guest's clock shows at its start depends on the host's time zone.",
    ),
    "VR1005": (
        "a network card without a slot of its own",
        "It gets the lowest free one in the order of the ids, so that another device may move it, and Linux names "
        "a card by its slot (ens3).",
    ),
    "VR1006": (
        "a device of the host",
        "What is passed through from the host is not there, or another one, on the next host.",
    ),
    "VR1008": (
        "a monitor that the network reaches",
        "A monitor can read and write files as vmrun may. On a TCP port nobody is asked for a password.",
    ),
    "VR1009": (
        "telnet without a password",
        "Whoever reaches the port has the guest's console.",
    ),
    "VR1010": (
        "a value of which nothing comes",
        "The driver has the property for the sake of files that name it; here it changes nothing, for the reason that "
        "the message gives. No guest can tell.",
    ),
    "VR1007": (
        "a CPU setting that is the host's",
        "pmu, host-phys-bits and host-cache-info show the guest what the host's processor has.",
    ),
}


def in_order() -> dict[str, tuple[str, str]]:
    """CODES by number."""
    return dict(sorted(CODES.items()))
