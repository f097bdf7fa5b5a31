"""A password in a file, which may change while a process runs: it is read for every new connection."""

from __future__ import annotations

import structlog
from redis.credentials import CredentialProvider

from bitladder.errors import ConfigError

log = structlog.get_logger()
# Far longer than a password.
MAX_BYTES = 4096


class PasswordFile(CredentialProvider):
    """The user and the password that the file holds at the moment; where it holds none, the last one."""

    def __init__(self, username: str | None, path: str) -> None:
        """Read the file once.

        Raises:
            ConfigError: see `read_password`.

        """
        self._username, self._path = username, path
        self._password = read_password(path)
        self._is_logged = False

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            self._password, self._is_logged = read_password(self._path), False
        except ConfigError as error:
            if not self._is_logged:
                log.warning("the last password of redis is used", error=str(error))
            self._is_logged = True
        return (self._username, self._password) if self._username else (self._password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()  # a few bytes of a local file


def read_password(path: str) -> str:
    """Return the password in a file, without the end of its line.

    Raises:
        ConfigError: the file cannot be read, or holds no password. The message does not repeat its content.

    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise _wrong(path, error.strerror or str(error)) from error
    except UnicodeDecodeError:
        raise _wrong(path, "it is no text") from None  # its message would repeat some of the content
    if not password:
        raise _wrong(path, "it is empty")
    if len(content) > MAX_BYTES or "\n" in password:
        raise _wrong(path, "it has more than that")
    return password


def _wrong(path: str, why: str) -> ConfigError:
    return ConfigError(f"redis.password_file must be a file with one line, the password, got {path!r}: {why}")
