"""The commands: one file each, with `run(argv) -> exit code`. The only place of vmrun that prints."""

# True in a process that is a command and nothing else: what it does to itself need not be undone
owns_process = False

STDOUT = "standard output"  # as an OSError's file name
