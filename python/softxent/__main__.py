"""`python -m softxent`: the command line without its script. Knows only `cli.main`."""

import sys

from softxent.cli import main

sys.exit(main())
