"""QMP's commands, a file for each area. table.load() brings them in."""

AREAS = (
    "introspect", "control", "machine", "memory", "qom", "device", "pci", "media", "screen", "remote", "migrate", "hmp",
)  # fmt: skip
