"""Signatures after Standard Webhooks (standardwebhooks.com): HMAC-SHA-256 of "<id>.<seconds>.<body>".

The library of that name is not used: it signs with one secret only, and takes any time for one in UTC.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence

from bitladder.routing.webhook_checks import SECRET_PREFIX, read_secret

_NEW_BYTES = 32


def new_secret() -> str:
    """Return a new secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def hint(secret: str) -> str:
    """Return what may be shown of a secret: enough to tell it from another."""
    return f"{SECRET_PREFIX}...{secret.rstrip('=')[-4:]}"


def signed_headers(event_id: str, at_s: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """Return the headers of a delivery, signed with each of these secrets."""
    content = f"{event_id}.{at_s}.".encode() + body
    codes = (hmac.digest(read_secret(key), content, "sha256") for key in keys)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(code).decode()}" for code in codes),
    }
