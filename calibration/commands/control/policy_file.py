"""The option --policy of the control loop's commands: a policy's file."""

from __future__ import annotations

from pathlib import Path

from bitladder.errors import ConfigError
from bitladder.policy_forms import MAX_BYTES, Form, read_form
from calibration.errors import InputError


def read_policy(path: Path) -> Form:
    """Return what routing makes of the file.

    Raises:
        InputError: it cannot be read, or is no policy.

    """
    try:
        with path.open("rb") as file:
            return read_form(file.read(MAX_BYTES + 1), path.name)
    except OSError as error:
        raise InputError(f"cannot read --policy {str(path)!r}: {error.strerror or error}") from error
    except ConfigError as error:
        raise InputError(f"--policy: {error}") from error
