"""Network cards: a compiled chip and its glue each; several share frames.pyx, eeprom93.pyx, nic.pyx, card.py."""
