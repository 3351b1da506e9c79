"""The commands: one file each, with `run(argv) -> exit code`. The only place of vmrun that prints."""
