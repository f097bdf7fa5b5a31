"""What every section of the settings is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _plain_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a letter or digit")
    return value


# Names become parts of Redis keys and of headers, so they are kept plain.
Name = Annotated[str, AfterValidator(_plain_name)]


class Section(BaseModel):
    """Unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def split_credentials(values: dict[str, Any]) -> dict[str, Any]:
    """Move user and password from `url` to fields of their own: whatever shows the URL then shows no secret.

    Raises:
        ValueError: they are there as well, or hidden in the query.

    """
    try:
        parts = urlsplit(str(values.get("url", "")))
        secret = {"username": parts.username, "password": parts.password}
    except ValueError:
        raise ValueError("url must be a URL") from None  # the message would repeat it
    if parse_qs(parts.query).keys() & secret.keys():
        raise ValueError("url must have user and password before the host, or in fields of their own, not behind '?'")
    given = {name: unquote(value) for name, value in secret.items() if value}
    if not given:
        return values
    if given.keys() & values.keys():
        raise ValueError(f"{' and '.join(given.keys() & values.keys())} must be given once, not also in the url")
    url = str(values["url"]).replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)
    return values | given | {"url": url}
