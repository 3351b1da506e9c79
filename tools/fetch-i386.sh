#!/bin/sh
# Fetches Debian's 32-bit kernel, its driver of ISA's NE2000 and busybox into build/i386 for the guest tests, without
# touching the system's own packages or architectures. Says why when it cannot; the tests that want them are then skipped.
set -u

place=build/i386
[ -e "$place/busybox" ] && [ -e "$place/modules" ] && exit 0
command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || exit 0
work=$(mktemp -d) || exit 0
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
apt() { # apt COMMAND ...: apt-get or apt-cache as on an i386 machine with nothing installed
    command=$1
    shift
    "$command" -qq -o APT::Architecture=i386 -o APT::Architectures::=i386 -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" "$@"
}
apt apt-get update >"$work/log" 2>&1 # an archive without i386 is an error that may be ignored
kernel=$(apt apt-cache depends linux-image-686-pae 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
echo "fetching 32-bit guests: ${kernel:-none found}"
(cd "$work" && apt apt-get download busybox-static "${kernel:-linux-image-686-pae}") >>"$work/log" 2>&1 || {
    echo "no 32-bit guests: $(tail -n 1 "$work/log")" >&2
    exit 0
}
mkdir -p "$place/modules"
dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz-*' &&
    mv "$work"/boot/vmlinuz-* "$place/vmlinuz" &&
    dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work" --wildcards '*/8390p.ko' '*/8390/ne.ko' &&
    find "$work" -name '*.ko' -exec mv {} "$place/modules" \; &&
    dpkg-deb --fsys-tarfile "$work"/busybox-static*.deb | tar -x -C "$work" --wildcards '*/busybox' &&
    find "$work" -type f -name busybox -exec mv {} "$place/busybox" \;
