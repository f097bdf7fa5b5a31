"""The file of API keys that `bitladder keys` writes: tables [auth.keys.NAME], as the configuration may have them too.

It is written whole or not at all, for its owner alone, and one command at a time. Intakes read it while they run
(live.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr, TypeAdapter, ValidationError

from bitladder.errors import ConfigError
from bitladder.settings.access import KeySettings
from bitladder.settings.base import Name, Section

_HEAD = (
    "# API keys of the intake: their hashes, not themselves. `bitladder keys` writes this file; see docs/security.md.\n"
)
Keys = dict[str, KeySettings]


def read_keys(file: Path) -> dict[str, Any] | None:
    """Return the tables of keys by name; None: there is no file.

    Raises:
        ConfigError: it cannot be read, or it holds something else.

    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read the file of API keys {str(file)!r}: {error}") from None
    auth = tree.pop("auth", {})
    keys = auth.pop("keys", {}) if isinstance(auth, dict) else None
    if tree or auth or not isinstance(keys, dict):
        raise ConfigError(f"the file of API keys {str(file)!r} must have tables [auth.keys.NAME], and nothing else")
    return keys


@contextlib.contextmanager
def changing(file: Path) -> Iterator[Keys]:
    """Write what the block makes of the keys.

    Raises:
        ConfigError: the file cannot be read or written; it is as it was.

    """
    file = file.resolve()  # where it is a link, the link stays
    try:
        with _locked(file.parent):
            keys = TypeAdapter(dict[Name, KeySettings]).validate_python(read_keys(file) or {})
            yield keys
            _write(file, _HEAD + "".join(f"\n{table_of(name, key)}\n" for name, key in keys.items()))
    except ValidationError as error:
        raise ConfigError(f"the file of API keys {str(file)!r} has a wrong entry: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot write the file of API keys {str(file)!r}: {error.strerror}") from error


def table_of(name: str, key: KeySettings) -> str:
    """Return a key as it is written."""
    values = {field: getattr(key, field) for field in KeySettings.model_fields}
    lines = [f"{field} = {_toml(value)}" for field, value in values.items() if value is not None]
    return "\n".join([f'[auth.keys."{name}"]', *lines])  # a name may have dots, which a bare TOML key may not


def _toml(value: object) -> str:
    """Return a value of a key in TOML: names, hashes and scopes need no escapes."""
    if isinstance(value, Section):
        return f"{{ {', '.join(f'{name} = {_toml(part)}' for name, part in value if part is not None)} }}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other commands out; the lock goes with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)  # the new name is on the disk as well
    finally:
        os.close(descriptor)


def _write(file: Path, text: str) -> None:
    descriptor, beside = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # for its owner alone: mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as output:
            if os.geteuid() == 0:  # an administrator's command: the intake's user must be able to read it
                owner = (file if file.exists() else file.parent).stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            output.write(text)
            output.flush()
            os.fsync(descriptor)
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise
