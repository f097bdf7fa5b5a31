"""Which captured requests are run again: a share of them, by a hash of the job's id. Pure.

The choice depends on nothing but id and seed, so it is the same after a restart, and no kind of text, hour or tenant is
chosen more often than its share of the traffic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from enum import StrEnum

import msgspec

from bitladder.endpoints import Endpoint

# What has a text for an answer, which a tier can be compared on.
_ANSWERED = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.MESSAGES, Endpoint.RESPONSES})
_CHATS = _ANSWERED - {Endpoint.COMPLETIONS}
_BITS = 64


class Reason(StrEnum):
    """Why a captured request is not run again: each is counted."""

    UNREADABLE = "unreadable"  # not a line of a capture
    OTHER_MODEL = "other_model"
    TENANT = "tenant"  # the capture leaves this tenant out now
    NO_TEXT = "no_text"  # an empty prompt, or a route whose answer is no text
    UNSERVED = "unserved"  # it failed, was cancelled or expired
    UNKNOWN_TIER = "unknown_tier"  # nobody knows which tier served it, or the ladder does not have that one
    BACKLOG = "backlog"  # more were chosen than the budget lets run: the oldest
    GONE = "gone"  # its file was removed from the capture before its turn came
    FAILED = "failed"  # a tier refused it, or broke on it
    REPEATED = "repeated"  # its id came before


class CapturedPrompt(msgspec.Struct, frozen=True):
    """One line of a capture: a prompt, or, where `served` is set, the tier that answered an earlier one."""

    id: str
    at: str = ""
    tenant: str = ""
    model: str = ""
    endpoint: str = ""
    prompt: str = ""
    turns: int = 1
    served: str = ""

    @property
    def is_chat(self) -> bool:
        return self.endpoint in _CHATS


def read_captured(line: bytes) -> CapturedPrompt | None:
    """Return what a line says; None: it is not a line of a capture."""
    try:
        return msgspec.json.decode(line, type=CapturedPrompt)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_chosen(job_id: str, seed: int, share: float) -> bool:
    digest = hashlib.blake2b(job_id.encode(), digest_size=_BITS // 8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") < int(share * (1 << _BITS))


def reason_against(prompt: CapturedPrompt, model: str, without_tenants: Collection[str]) -> Reason | None:
    """Return why a chosen prompt cannot be run again; None: it can."""
    if prompt.tenant in without_tenants:
        return Reason.TENANT
    if prompt.model != model:
        return Reason.OTHER_MODEL
    if prompt.endpoint not in _ANSWERED or not prompt.prompt.strip():
        return Reason.NO_TEXT
    return None
