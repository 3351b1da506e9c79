"""Ports that carry characters: serial, parallel, debug console."""
