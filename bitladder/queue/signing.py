"""Codes that authenticate jobs and outcomes: what another program wrote into Redis, or changed there, is refused.

HMAC-SHA-256 (RFC 2104), cut to 128 bits, with a key that intakes, producers and workers share ([queue].secrets). A
job's code covers its id and its call, and with the call the body, the bounds on its tier and its tenant. An outcome's
code covers the id and the outcome, that of the live settings all of them. The outcomes that scripts write by themselves
carry none, and are read as what scripted_ends.py says for them.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from bitladder.contract import Outcome, State, encode_outcome
from bitladder.ids import in_word
from bitladder.queue.scripted_ends import scripted
from bitladder.queue.stored_outcome import read_outcome

_CHARS = 32  # 128 bits in hexadecimal


class Signer:
    """Signs with the first key and accepts all; without keys it does neither."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        self._keys = [secret.get_secret_value().encode() for secret in secrets]

    def job_mac(self, job_id: str, data: bytes) -> str:
        """Return the code of a job, or '' where nothing is signed."""
        return _code(self._keys[0], b"job", job_id, data) if self._keys else ""

    def is_genuine(self, job_id: str, data: bytes, mac: bytes) -> bool:
        """Return whether a job is as a process with the key submitted it."""
        return not self._keys or self._fits(b"job", job_id, data, mac)

    def encode(self, job_id: str, outcome: Outcome) -> bytes:
        """Return an outcome as it is stored: its code, if there is one, and its JSON."""
        content = encode_outcome(outcome)
        return _code(self._keys[0], b"outcome", job_id, content).encode() + content if self._keys else content

    def decode(self, job_id: str, stored: bytes) -> Outcome | None:
        """Read an outcome; None where it cannot be read, is no valid answer to a client, or is not signed by us."""
        is_signed = stored[:1] != b"{"
        content = stored[_CHARS:] if is_signed else stored
        if self._keys and is_signed and not self._fits(b"outcome", job_id, content, stored[:_CHARS]):
            return None
        try:
            outcome = read_outcome(content)
        except ValueError:
            return None
        return scripted(outcome) if self._keys and not is_signed else outcome

    def decode_stored(self, job_id: str, stored: bytes) -> Outcome:
        """Read an outcome of a record: a bad one reads as a failure that says so."""
        return self.decode(job_id, stored) or Outcome(
            state=State.FAILED,
            status=500,
            code="corrupt_outcome",
            error="the stored outcome cannot be read, or was not written by one of us",
        )

    def encode_document(self, document: bytes) -> bytes:
        """Return the live settings as they are stored: their code, if there is one, and their JSON."""
        return _code(self._keys[0], b"settings", "", document).encode() + document if self._keys else document

    def decode_document(self, stored: bytes) -> bytes | None:
        """Return the JSON of live settings; None where they had to be signed by us, and are not."""
        is_signed = stored[:1] != b"{"
        document = stored[_CHARS:] if is_signed else stored
        if self._keys and not (is_signed and self._fits(b"settings", "", document, stored[:_CHARS])):
            return None
        return document

    def _fits(self, kind: bytes, job_id: str, content: bytes, mac: bytes) -> bool:
        return any(hmac.compare_digest(_code(key, kind, job_id, content).encode(), mac) for key in self._keys)


def _code(key: bytes, kind: bytes, job_id: str, content: bytes) -> str:
    return hmac.digest(key, b"%s %s " % (kind, in_word(job_id)) + content, "sha256").hex()[:_CHARS]
