"""The exit statuses of commands: docs/operating/commands.md has them."""

from __future__ import annotations

from enum import IntEnum

from bitladder.errors import BitladderError, ConfigError, ProtocolError


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    FAILED = 1  # what was asked for was not done, or only in part; the job failed
    WRONG_USE = 2  # arguments, configuration, a request that no intake takes, versions that do not fit
    NOT_FOUND = 3  # no such job, model, dead letter or key
    DENIED = 4  # no API key, a wrong one, or one without the scope
    NOT_NOW = 5  # the same command may succeed later: no answer, too much load, or the job has not ended
    INTERRUPTED = 130  # Ctrl-C


# By HTTP status; 0: there was no answer.
_BY_STATUS = {
    **dict.fromkeys((400, 405, 413, 415, 422), ExitCode.WRONG_USE),
    **dict.fromkeys((404, 410), ExitCode.NOT_FOUND),
    **dict.fromkeys((401, 403), ExitCode.DENIED),
    **dict.fromkeys((0, 408, 429, 502, 503, 504), ExitCode.NOT_NOW),
}


def exit_code(error: BitladderError) -> ExitCode:
    """Return the exit status of an error."""
    if isinstance(error, (ConfigError, ProtocolError)):  # no later try can help
        return ExitCode.WRONG_USE
    return _BY_STATUS.get(error.status or 0, ExitCode.FAILED)
