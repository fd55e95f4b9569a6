"""Shared by all tests."""

import os
import sys
from pathlib import Path

# Before scikit-learn is imported: its threads wait for each other by spinning, minutes long where cores are shared with other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent / "golden"))
