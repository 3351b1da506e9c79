"""QMP's commands, a file for each area. table.load() brings them in."""

AREAS = (
    "introspect", "control", "preconfig", "machine", "cpus", "host", "options", "memory", "objects", "qom", "device",
    "pci", "block", "jobs", "blockjobs", "exports", "media", "network", "chardevs", "clients", "screen", "remote",
    "fds", "migrate", "tpm", "hmp", "texts", "dirtyrate",
)  # fmt: skip
