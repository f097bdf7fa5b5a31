"""The first lines of `python -m workers`: handle signals, then load the rest (workers/run.py)."""

from __future__ import annotations

import sys

from bitladder.process.signals import end_at_once

if __name__ == "__main__":
    end_at_once()
    from workers.run import main  # its imports take a second

    sys.exit(main())
