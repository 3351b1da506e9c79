"""Machines described for other programs: QEMU's command lines, libvirt's domains; and the way back."""
