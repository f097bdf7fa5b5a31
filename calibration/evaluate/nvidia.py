"""Query nvidia-smi, if it is installed and answers."""

from __future__ import annotations

import shutil
import subprocess


def ask(*query: str) -> str | None:
    """Return its answer as CSV without header or units; None where there is no such program or no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, *query, "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603  (fixed)
    except (OSError, subprocess.SubprocessError):  # a driver that hangs must not cost the evaluation
        return None
    return process.stdout
