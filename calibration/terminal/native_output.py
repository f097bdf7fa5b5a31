"""What libraries written in C print on stdout is no part of a command's result: it is dropped."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_output_dropped() -> Iterator[None]:
    """Let file descriptor 1 lead nowhere for a while: Python's own `sys.stdout` must not be written meanwhile."""
    c_library = ctypes.CDLL(None)
    sys.stdout.flush()
    c_library.fflush(None)
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        c_library.fflush(None)  # what it still holds would come out later
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
