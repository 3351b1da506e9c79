"""The KVM accelerator. uapi: the kernel's interface; vm: the machine; irq: interrupts; vcpu: processors."""
