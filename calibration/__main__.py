"""python -m calibration: set the environment of the libraries, then run the command."""

from __future__ import annotations

import os
import sys

from calibration.commands.app import main
from calibration.environment import LIBRARY_ENVIRONMENT

if __name__ == "__main__":
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    main(sys.argv[1:])
