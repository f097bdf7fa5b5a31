"""What other systems call the fields of an envelope: OpenAI and OpenRouter in the body, llm-d and Dynamo in headers.

docs/routing.md, "Who says what", has the whole table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from bitladder.contract import DEFAULT_PRIORITY
from bitladder.errors import RequestError
from bitladder.queue_name import Lane

# OpenAI's seven; `auto` leaves the lane to the priority and to the key.
SERVICE_TIERS = MappingProxyType(
    {
        "auto": None,
        "default": Lane.NORMAL,
        "flex": Lane.BATCH,
        "scale": Lane.URGENT,
        "priority": Lane.URGENT,
        "fast": Lane.URGENT,
        "ultrafast": Lane.URGENT,
    }
)
_ANSWERED = {Lane.URGENT: "priority", Lane.NORMAL: "default", Lane.BATCH: "flex"}
# OpenRouter knows nine.
_MAX_QUANTIZATIONS = 32
_PARTS = re.compile(r"[._-]")


def service_lane(service_tier: str | None) -> Lane | None:
    """Return the lane that a `service_tier` means; None: it says nothing.

    Raises:
        RequestError: there is no such service tier.

    """
    if service_tier is None:
        return None
    if service_tier not in SERVICE_TIERS:
        raise RequestError(
            f"service_tier must be one of {', '.join(SERVICE_TIERS)}, got {service_tier[:40]!r}", param="service_tier"
        )
    return SERVICE_TIERS[service_tier]


def used_service_tier(requested: str, lane: str) -> str:
    """Return what an answer says: the requested name where its lane was used, else the lane's; `fast` is `priority`."""
    is_kept = SERVICE_TIERS.get(requested) == lane and requested != "fast"
    return requested if is_kept else _ANSWERED[Lane(lane)]


def quantizations_of(provider: dict[str, Any] | None) -> tuple[str, ...] | None:
    """Return OpenRouter's `provider.quantizations`, in lower case; None where the body has none.

    Raises:
        RequestError: they are no list of names.

    """
    names = (provider or {}).get("quantizations")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        raise RequestError(
            "provider.quantizations must be a list of at least one name, such as int4 or fp8",
            param="provider.quantizations",
        )
    if len(names) > _MAX_QUANTIZATIONS:
        raise RequestError(
            f"provider.quantizations must have at most {_MAX_QUANTIZATIONS} names, got {len(names)}",
            param="provider.quantizations",
        )
    return tuple(name.lower() for name in names)


def tiers_of(quantizations: Sequence[str], ladder: Sequence[str]) -> frozenset[int]:
    """Return the places on the ladder that names of quantizations mean: a tier's name, or a part of it (fp8-dynamic).

    Names that no tier has are ignored, as OpenRouter does.

    Raises:
        RequestError: no name is left.

    """
    names = set(quantizations)
    ranks = frozenset(rank for rank, tier in enumerate(ladder) if names & {tier, *_PARTS.split(tier)})
    if not ranks:
        raise RequestError(
            f"provider.quantizations ({', '.join(quantizations)[:200]}) must name one of the model's tiers "
            f"({', '.join(ladder)})",
            param="provider.quantizations",
        )
    return ranks


def dynamo_priority(header: str, raw: str) -> int:
    """Return the priority that Dynamo's header means: 0 is the usual one, and each step is one of ours, from 1 to 10.

    Raises:
        RequestError: it is no whole number.

    """
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", raw.strip()):
        raise RequestError(f"{header} must be a whole number, got {raw[:40]!r}", param=header)
    return min(max(DEFAULT_PRIORITY + int(raw), 1), 10)


class TokenBudget(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How soon an answer should come, as llm-d's headers say it. None: no limit."""

    ttft_ms: int | None = None  # to the first token
    tpot_ms: int | None = None  # for each token after it

    def whole_s(self, max_tokens: int | None) -> float | None:
        """Return how long the whole answer may take; None where the body does not say how long it may be."""
        if self.tpot_ms is None or not max_tokens:
            return None
        return ((self.ttft_ms or 0) + self.tpot_ms * max_tokens) / 1000
