"""`python -m barograph` is `barograph`."""

import sys

from barograph.cli import main

if __name__ == "__main__":
    sys.exit(main())
