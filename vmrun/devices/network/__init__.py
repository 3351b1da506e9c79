"""Network cards: a compiled chip and its glue each; several share frames.pyx, nic.pyx, card.py."""
