"""`python -m ornstein` is the command `ornstein`."""

import sys

from ornstein.cli import main

sys.exit(main())
