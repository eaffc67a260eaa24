"""Makes `tiny_training` importable here and in the processes that the DDP tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
