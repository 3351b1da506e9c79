"""Virtio devices: a compiled chip and its PCI card each."""
