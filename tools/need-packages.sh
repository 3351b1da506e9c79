#!/bin/sh
# Installs Debian packages that a step needs and that are missing; says what to install where it may not.
#   need-packages.sh compiler|firmware|guests ...
set -u

missing=""
need() { # need PACKAGE FILE...: one of the files tells that the package is there
    package=$1
    shift
    for file in "$@"; do
        [ -e "$file" ] && return
    done
    missing="$missing $package"
}

for what in "$@"; do
    case $what in
    compiler)
        command -v gcc >/dev/null 2>&1 || missing="$missing gcc"
        need zlib1g-dev /usr/include/zlib.h
        need libzstd-dev /usr/include/zstd.h
        need libslirp-dev /usr/include/slirp/libslirp.h
        [ -e /usr/include/linux/kvm.h ] || missing="$missing linux-libc-dev libc6-dev"
        python3 -c 'import ensurepip, sysconfig, os, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' 2>/dev/null ||
            missing="$missing python3-venv python3-dev"
        ;;
    firmware)
        need seabios /usr/share/seabios/bios.bin /usr/share/qemu/bios.bin /usr/share/qemu-kvm/bios.bin
        ;;
    guests)
        need qemu-system-x86 /usr/bin/qemu-system-x86_64
        need qemu-utils /usr/bin/qemu-img
        need libnbd-bin /usr/bin/nbdinfo
        need acpica-tools /usr/bin/iasl
        need grub-pc-bin /usr/lib/grub/i386-pc/boot.img
        need grub-common /usr/bin/grub-mkimage
        need graphviz /usr/bin/dot
        need gdb /usr/bin/gdb
        need nodejs /usr/bin/node /usr/local/bin/node
        need npm /usr/bin/npm /usr/local/bin/npm
        need crash /usr/bin/crash
        need makedumpfile /usr/bin/makedumpfile
        need elfutils /usr/bin/eu-readelf
        need openssl /usr/bin/openssl
        need xz-utils /usr/bin/xz
        need ipxe /usr/lib/ipxe/ipxe.iso
        need ipxe-qemu /usr/lib/ipxe/qemu/pxe-e1000.rom
        need ovmf /usr/share/OVMF/OVMF_CODE_4M.fd
        need tshark /usr/bin/tshark
        need swtpm /usr/bin/swtpm
        need passt /usr/bin/passt
        need vde-switch /usr/bin/vde_switch
        need iproute2 /usr/sbin/ip /sbin/ip /bin/ip
        need busybox-static /bin/busybox /usr/bin/busybox
        need e2fsprogs /usr/sbin/mke2fs /sbin/mke2fs
        need fio /usr/bin/fio
        need xorriso /usr/bin/xorriso
        need mtools /usr/bin/mformat
        need dosfstools /usr/sbin/fsck.vfat
        need novnc /usr/share/novnc/vnc.html
        need console-setup /usr/bin/ckbcomp
        need tigervnc-viewer /usr/bin/xtigervncviewer
        need xvfb /usr/bin/Xvfb
        need xdotool /usr/bin/xdotool
        need memtest86+ /boot/memtest86+x64.bin /boot/memtest86+.bin
        need libvirt-daemon /usr/sbin/libvirtd
        need libvirt-daemon-driver-qemu /usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so
        need libvirt-clients /usr/bin/virsh
        need linux-image-amd64 /boot/vmlinuz-*[0-9]-amd64
        need linux-image-cloud-amd64 /boot/vmlinuz-*-cloud-amd64
        ;;
    esac
done

[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/tmp/vmrun-apt.$$ 2>&1 && {
        rm -f /tmp/vmrun-apt.$$
        exit 0
    }
    tail -n 5 /tmp/vmrun-apt.$$ >&2
    rm -f /tmp/vmrun-apt.$$
fi
echo "vmrun needs these packages: $missing" >&2
echo "install them with: sudo apt-get install$missing" >&2
exit 1
