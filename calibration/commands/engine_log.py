"""The log of engines that a command starts."""

from __future__ import annotations

import sys

import structlog

from bitladder.settings.log_section import LogSettings


def log_to_stderr(settings: LogSettings) -> None:
    """Leave stdout to the result; what an engine prints, which may be of prompts, is shown at debug alone."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        # The stream of the moment: a program that calls commands may put another one in its place, and close this one.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
