"""Job ids. Ours are UUIDs; the id of another program's job may be any bytes.

In Python an id is text that turns back into the same bytes (PEP 383, `surrogateescape`), and so do our connections to
Redis encode it. Where an id is part of something that is parsed again, it has one of the forms below.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from bitladder.script_constants import MAX_ID, UNSAFE_IN_LINE

_UNSAFE = re.compile(f"[{UNSAFE_IN_LINE}]".encode())


def read_id(raw: bytes) -> str:
    """Return the id that Redis has as these bytes."""
    return raw.decode("utf-8", "surrogateescape")


def id_bytes(job_id: str) -> bytes:
    """Return an id, or a name that ends with one, as Redis has it."""
    return job_id.encode("utf-8", "surrogateescape")


def in_word(job_id: str) -> bytes:
    """Return an id as one word of a line."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], id_bytes(job_id))


def read_word(raw: bytes) -> str:
    """Read an id that is one word of a line."""
    return read_id(unquote_to_bytes(raw) if b"%" in raw else raw)


def in_key(name: str) -> str:
    """Return a model's name as one of the words of a key that colons divide; it has no '%'."""
    return name.replace(":", "%3A")


def in_url(job_id: str) -> str:
    """Return an id as a segment of a URL, or a header's value."""
    segment = quote(id_bytes(job_id), safe=":@")
    return segment if segment.strip(".") else segment.replace(".", "%2E")  # "." and ".." are steps, not names


def from_url(segment: str) -> str:
    """Read an id from a segment of a URL as it came."""
    return read_id(unquote_to_bytes(segment))


def readable(job_id: str) -> str:
    """Return an id for logs and JSON: as it is, in the form of a URL where it is no text, cut where it is long."""
    try:
        job_id.encode()
    except UnicodeEncodeError:
        job_id = in_url(job_id)
    # No job with a longer id was ever run.
    return job_id if len(job_id) <= MAX_ID else f"{job_id[:MAX_ID]}…"


def numbered_id(batch_id: str, number: int, attempt: int = 1) -> str:
    """Return the id of one job of a batch: known before it is submitted, and the same whenever that is done again."""
    return f"{batch_id}-{number}" if attempt == 1 else f"{batch_id}-{number}.{attempt}"
