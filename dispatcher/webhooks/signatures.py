"""Signatures after Standard Webhooks (standardwebhooks.com): HMAC-SHA-256 of "<id>.<seconds>.<body>".

The library of that name is not used: it signs with one secret only, and takes any time for one in UTC.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence

_PREFIX = "whsec_"
# What the specification allows; a new one has 32 bytes.
_MIN_BYTES, _MAX_BYTES, _NEW_BYTES = 24, 64, 32


def new_secret() -> str:
    """Return a new secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def read_secret(text: str) -> bytes:
    """Return a secret's key.

    Raises:
        ValueError: it is none; the message does not repeat it.

    """
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else b""
    except binascii.Error:
        key = b""
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"must be {_PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} random bytes")
    return key


def hint(secret: str) -> str:
    """Return what may be shown of a secret: enough to tell it from another."""
    return f"{_PREFIX}...{secret.rstrip('=')[-4:]}"


def signed_headers(event_id: str, at_s: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Return the headers of a delivery, signed with each of these secrets."""
    content = f"{event_id}.{at_s}.".encode() + body
    codes = (hmac.digest(read_secret(key), content, "sha256") for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(code).decode()}" for code in codes),
    }
