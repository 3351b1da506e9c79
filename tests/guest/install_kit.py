"""What takes the place of the installer's own packages (udebs) where a mirror has none: a tar file that the installer
fetches before its first step. It has a small system with debootstrap, the modules of the installer's kernel for disks,
and a script: partitions, the base system, a kernel, a boot loader and ssh, from the same mirror.
"""

from __future__ import annotations

import io
import pathlib
import shutil
import subprocess
import tarfile

PACKAGES = """
    bash busybox-static coreutils dash debian-archive-keyring debootstrap diffutils dpkg e2fsprogs fdisk
    findutils grep gzip libacl1 libattr1 libblkid1 libbz2-1.0 libc6 libcap2 libcom-err2 libcrypt1 libext2fs2
    libfdisk1 libgmp10 liblzma5 libmd0 libmount1 libpcre2-8-0 libreadline8 libselinux1 libsmartcols1 libss2
    libssl3 libtinfo6 libudev1 libuuid1 libzstd1 logsave mawk mount perl-base sed tar util-linux xz-utils
    zlib1g zstd
"""
MODULES = """
    libata ata_piix scsi_common scsi_mod sd_mod t10-pi crc-t10dif crct10dif_common crc64-rocksoft crc64 crc16
    mbcache jbd2 ext4 crc32c_generic libcrc32c
"""
UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "boot",
    "usr/lib/x86_64-linux-gnu/gconv",
)

# busybox's wget knows fewer options than debootstrap gives.
WGET = """\
#!/bin/sh
set -- "$@" --
while [ "$1" != -- ]; do
  case "$1" in
  -O) set -- "$@" -O "$2"; shift ;;
  -*) ;;
  *) set -- "$@" "$1" ;;
  esac
  shift
done
shift
exec busybox wget -q "$@"
"""

SCRIPT = """\
#!/bin/sh
# Runs within the installer, before its own steps. Packages that ask debconf must not find the installer's: it
# would wait for them, and they for it.
exec > /dev/ttyS0 2>&1 < /dev/null
unset DEBIAN_HAS_FRONTEND DEBCONF_REDIR DEBCONF_OLD_FD_BASE
set -e
K=/kit T=/kit/target
say() { echo "KIT: $* ..."; }
trap 'echo "KIT: failed"; exec sh < /dev/ttyS0' EXIT
say "Loading the disk's drivers"
cp -r $K/modules/* /lib/modules/$(uname -r)/
depmod -a
for m in ata_piix sd_mod ext4; do modprobe $m; done
n=0
while [ ! -b /dev/sda ] && [ $n -lt 300 ]; do sleep 1; n=$((n + 1)); done
mkdir -p $K/proc $K/sys $K/dev $T
for d in proc sys dev; do mount -o bind /$d $K/$d; done
say "Partitioning /dev/sda"
echo 'start=2048, type=83, bootable' | chroot $K sfdisk -q --label dos /dev/sda
sleep 2
chroot $K mkfs.ext4 -q -F /dev/sda1
mount -t ext4 /dev/sda1 $T
mkdir -p $T/etc/dpkg/dpkg.cfg.d $T/etc/initramfs-tools/conf.d
echo force-unsafe-io > $T/etc/dpkg/dpkg.cfg.d/small
for d in man doc locale; do echo "path-exclude=/usr/share/$d/*" >> $T/etc/dpkg/dpkg.cfg.d/small; done
echo MODULES=list > $T/etc/initramfs-tools/conf.d/driver-policy
printf 'ata_piix\\nsd_mod\\next4\\n' > $T/etc/initramfs-tools/modules
say "Installing the base system"
DEBIAN_FRONTEND=noninteractive chroot $K debootstrap --no-check-gpg --variant=minbase \\
  --include=linux-image-amd64,grub-pc,openssh-server,systemd-sysv,udev,iproute2 \\
  bookworm /target @MIRROR@
say "Configuring the system"
echo guest > $T/etc/hostname
echo '/dev/sda1 / ext4 defaults 0 1' > $T/etc/fstab
printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=yes\\n' > $T/etc/systemd/network/20-wired.network
chroot $T systemctl enable systemd-networkd ssh
mkdir -m 700 -p $T/root/.ssh
echo '@KEY@' > $T/root/.ssh/authorized_keys
echo 'root:@PASSWORD@' | chroot $T chpasswd
say "Installing the GRUB boot loader"
for d in proc sys dev; do mount -o bind /$d $T/$d; done
printf 'GRUB_CMDLINE_LINUX="console=ttyS0"\\nGRUB_TIMEOUT=1\\n' >> $T/etc/default/grub
chroot $T grub-install /dev/sda
chroot $T update-grub
say "Finishing the installation"
for d in proc sys dev; do umount $T/$d; done
umount $T
sync
say "Rebooting"
trap - EXIT
reboot -f
"""


def make(directory: pathlib.Path, release: str, mirror: str, key: str, password: str) -> bytes:
    """The tar file, for the kernel of that release; what it needs is downloaded into `directory` by apt."""
    debs, root = directory / "debs", directory / "kit"
    debs.mkdir(parents=True, exist_ok=True)
    if not any(debs.glob("*.deb")):
        subprocess.run(
            ["apt-get", "download", "-q", *PACKAGES.split(), f"linux-image-{release}"],
            cwd=debs,
            check=True,
            capture_output=True,
        )
    shutil.rmtree(root, ignore_errors=True)
    for deb in sorted(debs.glob("*.deb")):
        target = directory / "kernel" if deb.name.startswith("linux-image") else root
        subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True)
    for name in UNWANTED:
        shutil.rmtree(root / name, ignore_errors=True)
    modules = root / "modules" / "disk"
    modules.mkdir(parents=True)
    for path in (directory / "kernel" / "lib" / "modules" / release).rglob("*.ko"):
        if path.stem in MODULES.split():
            shutil.copy(path, modules / path.name)
    shutil.rmtree(directory / "kernel")
    links = {"usr/bin/awk": "mawk", "bin/sh": "dash"}
    for name, to in links.items():
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(to)
    script = SCRIPT.replace("@MIRROR@", mirror).replace("@KEY@", key).replace("@PASSWORD@", password)
    for name, text in (("usr/bin/wget", WGET), ("install.sh", script)):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    (root / "tmp").mkdir(exist_ok=True)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        tar.add(root, "kit", filter=_as_root)
    return whole.getvalue()


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
