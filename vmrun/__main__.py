"""`python -m vmrun` is the `vmrun` command."""

import sys

from vmrun.cli.main import main

sys.exit(main())
