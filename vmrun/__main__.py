"""`python -m vmrun` is the `vmrun` command."""

from vmrun.cli.bundle import run

run("vmrun.cli.main")
