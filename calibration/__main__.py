"""python -m calibration: read the environment, hand over to the commands."""

from __future__ import annotations

import os

from calibration.cli import load_real_maker, make_app
from calibration.settings import LIBRARY_ENVIRONMENT, Settings


def main() -> None:
    for name, value in LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    make_app(Settings.from_environ(os.environ), load_real_maker)()


if __name__ == "__main__":
    main()
