"""``python -m gptlib``: the command line, :mod:`gptlib.cli`."""

import sys

from gptlib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
