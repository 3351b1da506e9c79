"""Real guests on vmrun: firmware, boot loaders, small guests of our own."""
