"""Says what wheels weigh, and fails for one that is too heavy: `python release/weigh.py WHEEL...`."""

import sys
from pathlib import Path

MOST_BYTES = 12 << 20

for wheel in map(Path, sys.argv[1:]):
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 2**20:.2f} MiB")
    if size > MOST_BYTES:
        sys.exit(f"a wheel may have {MOST_BYTES >> 20} MiB")
