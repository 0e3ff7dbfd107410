"""``python -m skssl`` is the command ``skssl``."""

import sys

from skssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
