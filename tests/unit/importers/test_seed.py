"""The command line that vmrun began with imports to the file it began with."""

from __future__ import annotations

import shlex

from vmrun.config.importers.line import parse_command_line
from vmrun.config.load import load_bytes
from vmrun.config.node import plain

SEED = """
-S -M rhel6.3.0 -enable-kvm -name desktop -m 1111 -smp 1,sockets=1,cores=1,threads=1
-rtc base=localtime,clock=vm,driftfix=slew
-device piix3-usb-uhci,id=usb,bus=pci.0,addr=0x1.0x2
-device usb-ehci,id=usb1,bus=pci.0,addr=0x5
-device virtio-serial-pci,id=virtio-serial0,bus=pci.0,addr=0x6
-drive file=/mnt/local/4d4fdbb5-216a-44a4-afae-ea6e2a80b481,if=none,id=drive-ide0-0-0,format=qcow2,cache=writeback
-device ide-drive,bus=ide.0,unit=0,drive=drive-ide0-0-0,id=ide0-0-0,bootindex=2
-drive if=none,media=cdrom,id=drive-ide0-1-0,readonly=on,format=raw,cache=writeback
-device ide-drive,bus=ide.1,unit=0,drive=drive-ide0-1-0,id=ide0-1-0,bootindex=1
-netdev tap,fd=23,id=hostnet0 -device e1000,netdev=hostnet0,id=net0,mac=02:00:77:a2:00:0d,bus=pci.0,addr=0x3
-chardev pty,id=charserial0 -device isa-serial,chardev=charserial0,id=serial0
-chardev spicevmc,id=charchannel0,name=vdagent
-device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=com.redhat.spice.0
-device usb-tablet,id=input0,bus=usb.0,port=1
-spice port=5902,addr=0.0.0.0,disable-ticketing
-vga qxl -global qxl-vga.vram_size=67108864 -device AC97,id=sound0,bus=pci.0,addr=0x4
-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x7 -readconfig /etc/qemu/ich9-ehci-uhci.cfg
-chardev spicevmc,name=usbredir,id=usbredirchardev1
-device usb-redir,chardev=usbredirchardev1,id=usbredirdev1,bus=ehci.0,debug=3
-chardev spicevmc,name=usbredir,id=usbredirchardev2
-device usb-redir,chardev=usbredirchardev2,id=usbredirdev2,bus=ehci.0,debug=3
-chardev spicevmc,name=usbredir,id=usbredirchardev3
-device usb-redir,chardev=usbredirchardev3,id=usbredirdev3,bus=ehci.0,debug=3
-chardev socket,id=charmonitor,path=/var/lib/libvirt/qemu/ha1.monitor,server,nowait
-mon chardev=charmonitor,id=monitor,mode=control
"""
WANTED = b"""
schema: vmrun/machine/1
name: desktop
machine: rhel6.3.0
accel: [kvm, soft]
paused: true
memory: 1111MiB
cpus: {count: 1, sockets: 1, cores: 1, threads: 1}
rtc: {base: localtime, clock: vm, driftfix: slew}
globals: {qxl-vga: {vram_size: 67108864}}
drives:
  drive-ide0-0-0:
    {file: /mnt/local/4d4fdbb5-216a-44a4-afae-ea6e2a80b481, format: qcow2, cache: writeback}
  drive-ide0-1-0: {media: cdrom, readonly: true, format: raw, cache: writeback}
netdevs:
  hostnet0: {type: tap, fd: 23}
chardevs:
  charserial0: {type: pty}
  charchannel0: {type: spicevmc, name: vdagent}
  usbredirchardev1: {type: spicevmc, name: usbredir}
  usbredirchardev2: {type: spicevmc, name: usbredir}
  usbredirchardev3: {type: spicevmc, name: usbredir}
  charmonitor: {type: socket, path: /var/lib/libvirt/qemu/ha1.monitor, server: true, wait: false}
spice: {port: 5902, addr: 0.0.0.0, disable-ticketing: true}
display: qxl
devices:
  - {id: usb, driver: piix3-usb-uhci, bus: pci.0, addr: 01.2}
  - {id: usb1, driver: usb-ehci, bus: pci.0, addr: 05.0}
  - {id: virtio-serial0, driver: virtio-serial-pci, bus: pci.0, addr: 06.0}
  - {id: ide0-0-0, driver: ide-drive, bus: ide.0, unit: 0, drive: drive-ide0-0-0, bootindex: 2}
  - {id: ide0-1-0, driver: ide-drive, bus: ide.1, unit: 0, drive: drive-ide0-1-0, bootindex: 1}
  - {id: net0, driver: e1000, netdev: hostnet0, mac: "02:00:77:a2:00:0d", bus: pci.0, addr: 03.0}
  - {id: serial0, driver: isa-serial, chardev: charserial0}
  - {id: channel0, driver: virtserialport, bus: virtio-serial0.0, nr: 1, chardev: charchannel0,
     name: com.redhat.spice.0}
  - {id: input0, driver: usb-tablet, bus: usb.0, port: 1}
  - {id: sound0, driver: AC97, bus: pci.0, addr: 04.0}
  - {id: balloon0, driver: virtio-balloon-pci, bus: pci.0, addr: 07.0}
  - {id: usbredirdev1, driver: usb-redir, chardev: usbredirchardev1, bus: ehci.0, debug: 3}
  - {id: usbredirdev2, driver: usb-redir, chardev: usbredirchardev2, bus: ehci.0, debug: 3}
  - {id: usbredirdev3, driver: usb-redir, chardev: usbredirchardev3, bus: ehci.0, debug: 3}
include: [ich9-ehci-uhci.cfg]
monitors:
  monitor: {chardev: charmonitor, mode: control}
"""


def test_every_value_is_equal() -> None:
    parsed = parse_command_line(shlex.split(SEED), defaults=False)
    assert parsed.document == plain(load_bytes(WANTED, "seed.yaml"))
    assert list(parsed.warnings) == []


def test_what_qemu_would_add_is_named() -> None:
    parsed = parse_command_line(shlex.split(SEED), defaults=False)
    assert parsed.skipped == ("a floppy drive", "a parallel port")
