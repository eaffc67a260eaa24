"""The scripts of benchmarks/ import what they share as they do when they are run: from their own folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
