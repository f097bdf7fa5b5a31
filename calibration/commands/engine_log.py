"""The log of engines that a command starts."""

from __future__ import annotations

import logging
import sys

import structlog


def log_to_stderr() -> None:
    """Leave stdout to the result."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # The stream of the moment: a program that calls commands may put another one in its place, and close this one.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
