"""Settings of the connection to Redis. User and password leave the URL, so that whatever shows it shows no secret."""

from __future__ import annotations

import re
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, SecretStr, model_validator

from bitladder.settings.base import Section

# A password that is not encoded ends the host, and what is behind it would be taken for a path, a query or a fragment.
_HINT = (
    ": '/', '?', '#' and '@' of a password must be written as %2F, %3F, %23 and %40, or the password in redis.password"
)
_IN_QUERY = {"username", "user", "password", "passwd", "pass", "auth"}
# What is left of a URL without user and password, and is shown. Anything else may be a part of them.
_OPTION = (
    r"(?:db|protocol|client_name|timeout|max_connections|health_check_interval|(?:retry|socket|ssl)_\w+)=[^#@&\s]*"
)
_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]+)"
_WHOLE = re.compile(
    rf"(?:rediss?://(?:{_HOST}(?::\d{{1,5}})?)?(?:/\d{{0,5}})?|unix:///[^?#\s]+)(?:\?{_OPTION}(?:&{_OPTION})*)?"
)


class RedisSettings(Section):
    """Where the queue lives."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        description="redis://, rediss:// or unix:// URL of the primary; Sentinels replace its host and port",
    )
    username: str | None = Field(None, description="of the ACL; unset: Redis' default user")
    password: SecretStr | None = Field(None, description="of the user; the URL may have both instead")
    password_file: str = Field("", description="file with the password instead, read for every new connection")
    ca_file: str = Field("", description="rediss: certificates to trust instead of the system's")
    cert_file: str = Field("", description="rediss: certificate shown to the server")
    key_file: str = Field("", description="rediss: its private key")
    timeout_s: float = Field(
        0.8, gt=0, le=60, description="connect limit, and longest silence of Redis before an answer or in its middle"
    )
    data_dir: str = Field("var/valkey", description="where the embedded Valkey keeps its append-only file")
    check_policy: bool = Field(True, description="refuse a Redis that evicts keys")
    sentinels: tuple[str, ...] = Field((), description="host:port of each Sentinel: they say where the primary is")
    sentinel_name: str = Field("mymaster", min_length=1, description="what the Sentinels call the primary")

    @model_validator(mode="after")
    def _sentinels_are_addresses(self) -> Self:
        for address in self.sentinels:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit() or not host.isprintable() or "@" in host or "/" in host:
                problem = ", without user and password" if "@" in address or "/" in address else f", got {address!r}"
                raise ValueError(f"sentinels must be a list of host:port{problem}")
        if self.sentinels and self.scheme == "unix":
            raise ValueError(f"url must be redis:// or rediss:// where Sentinels are asked, got {self.url!r}")
        return self

    @property
    def scheme(self) -> str:
        """The URL's scheme: redis, rediss or unix."""
        return self.url.partition(":")[0]

    @property
    def sentinel_addresses(self) -> list[tuple[str, int]]:
        """Host and port of each Sentinel."""
        parts = [address.rpartition(":") for address in self.sentinels]
        return [(host.strip("[]"), int(port)) for host, _, port in parts]

    @model_validator(mode="before")
    @classmethod
    def _credentials_leave_the_url(cls, values: object) -> object:
        return _split_credentials(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _password_is_given_once(self) -> Self:
        if self.password and self.password_file:
            raise ValueError("password must be given once: redis.password, in the url, or in redis.password_file")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.ca_file, self.cert_file, self.key_file)
        if any(files) and not self.url.startswith("rediss://"):
            raise ValueError(f"url must be rediss:// with ca_file, cert_file or key_file, got {self.url!r}")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together")
        return self


def _split_credentials(values: dict[str, Any]) -> dict[str, Any]:
    """Move user and password from `url` to fields of their own: whatever shows the URL then shows no secret.

    Raises:
        ValueError: they are there as well, or not where a URL has them. The message does not repeat them.

    """
    url = str(values.get("url", ""))
    try:
        parts = urlsplit(url)
        secrets = {"username": parts.username, "password": parts.password}
        if parts.port and not parts.hostname:  # a password without the host behind it, perhaps
            raise ValueError
    except ValueError:
        raise ValueError(f"url must be a URL with a host{_HINT}") from None  # the message would repeat it
    if parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(f"url must end with a database's number{_HINT}")
    if {name.lower() for name in parse_qs(parts.query, keep_blank_values=True)} & _IN_QUERY:
        raise ValueError("url must have user and password before the host, or in fields of their own, not behind '?'")
    credentials = {name: unquote(value) for name, value in secrets.items() if value}
    if both := credentials.keys() & values.keys():
        raise ValueError(f"{' and '.join(sorted(both))} must be given once, not also in the url")
    if not url:
        return values
    bare = url.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1) if "@" in parts.netloc else url
    if not _WHOLE.fullmatch(bare):
        raise ValueError(f"url must be redis://host:port/number, rediss://host:port/number or unix:///path{_HINT}")
    return values | credentials | {"url": bare}
