"""QMP's commands, a file for each area. table.load() brings them in."""

AREAS = (
    "introspect", "control", "machine", "cpus", "host", "options", "memory", "objects", "qom", "device", "pci", "block",
<<<<<<< HEAD
    "jobs", "blockjobs", "media", "network", "chardevs", "screen", "remote", "fds", "migrate", "hmp",
=======
    "media", "network", "chardevs", "screen", "remote", "fds", "migrate", "tpm", "hmp",
>>>>>>> 42a0939 (tpm-tis, tpm-crb: TPMs on swtpm, with their tables, query-tpm and -tpmdev emulator)
)  # fmt: skip
