"""What is neither bus, disk, port, clock nor screen: fw_cfg, DMA, speaker, debug exit, pvpanic, vmport, tests."""
