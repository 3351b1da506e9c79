"""Keyboard and mouse: the i8042 and what is plugged into it."""
