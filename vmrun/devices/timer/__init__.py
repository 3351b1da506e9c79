"""Clocks and counters of the board."""
