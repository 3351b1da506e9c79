"""Interrupt controllers: 8259A, I/O APIC, local APIC, and those that KVM has in its kernel."""
