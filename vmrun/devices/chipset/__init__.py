"""The i440FX host bridge, the PIIX3 south bridge and the PIIX4's power management."""
