"""PCI-to-PCI bridges."""
