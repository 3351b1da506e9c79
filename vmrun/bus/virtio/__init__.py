"""Virtio: rings (`ring`, compiled), what every device is (`device`, compiled), and the way over PCI (`pci`)."""
