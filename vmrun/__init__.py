"""vmrun: a virtual PC whose hardware is declared in versioned files."""

__version__ = "0.1.0"
