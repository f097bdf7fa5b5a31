"""Logs: events with fields, JSON on stderr, readable on a terminal. Prompts are never among the fields.

What libraries log, Python's warnings and uncaught exceptions become such events as well. Lines that repeat are counted
(repeats.py).
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType

import structlog
from structlog.typing import EventDict

from bitladder.logs.repeats import Repeats

log = structlog.get_logger()
_repeats = Repeats()
_process_fields: dict[str, str] = {}
# uvicorn's main logger is named so, whatever it logs.
_NAMES = {"uvicorn.error": "uvicorn", "py.warnings": "python"}


def configure_logs(level: str = "info") -> None:
    """Set up the log of this process, once."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_process_fields,
            structlog.processors.add_log_level,
            _repeats,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,  # without local variables: a prompt may be among them
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if sys.stderr.isatty()
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.root.handlers[:] = [_ToEvents()]
    logging.root.setLevel(threshold)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def name_process(**fields: str) -> None:
    """Have each line of this process's log say whose it is, from whatever thread or task it comes."""
    _process_fields.update(fields)


def flush_repeats() -> None:
    """Write now what was counted of lines that repeat."""
    _repeats.flush()


def add_process_fields(logger: object, method: str, event: EventDict) -> EventDict:
    """Add what `name_process` was called with; a processor of structlog."""
    del logger, method
    return {**_process_fields, **event}


def log_listening(host: str, port: int, path: str = "") -> None:
    """Log where a server of this process is reached."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    log.info("listening on %s", url, url=url)


class _ToEvents(logging.Handler):
    """Makes events of what is logged by the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = min(logging.CRITICAL, max(logging.DEBUG, record.levelno // 10 * 10))
        error = {"exc_info": record.exc_info} if record.exc_info else {}
        try:
            log.log(level, record.getMessage(), logger=_NAMES.get(record.name, record.name), **error)
        except Exception:  # as every handler does: what cannot be logged is no reason to stop
            self.handleError(record)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread else None
        log.critical("uncaught exception", thread=name, exc_info=failed.exc_value)


def _log_unraisable(failed: sys.UnraisableHookArgs) -> None:
    # Not the object itself: what stands for it may hold a prompt.
    log.error("exception ignored", of=type(failed.object).__name__, exc_info=failed.exc_value)
