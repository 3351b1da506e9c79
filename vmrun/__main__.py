"""`python -m vmrun` is the `vmrun` command."""

from vmrun.cli.main import console

console()
