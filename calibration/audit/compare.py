"""Two audits side by side: which floors and which features have moved. Pure but for reading the earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from calibration.audit.aggregate import ALL
from calibration.errors import InputError
from calibration.statistics import newcombe

# A median that moved by this share of the earlier middle half (25 % to 75 %) is called a shift.
_SHIFT = 0.25


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared of an audit.json; other fields are ignored."""

    prompts: int
    ladder: list[str]
    policy: dict[str, Any]  # Any: JSON
    decided_by: str = ""  # the policy, with the digest of its table; '': of an audit that did not say
    floors_by_kind: dict[str, dict[str, float]]
    features_by_kind: dict[str, dict[str, dict[str, float]]]


def read_audit(folder: Path, ladder: tuple[str, ...]) -> Audit:
    """Return the audit in a report's folder, to be compared with one of this ladder.

    Raises:
        InputError: the folder has no audit, one that is not understood, or one whose ladder differs.

    """
    path = folder.expanduser() / "audit.json"
    try:
        earlier = msgspec.json.decode(path.read_bytes(), type=Audit)
    except OSError as error:
        raise InputError(f"--against must be the folder of an audit, got {str(folder)!r}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"--against: {path} is not an audit: {error}") from error
    if earlier.ladder != list(ladder):
        raise InputError(f"--against: its ladder is {', '.join(earlier.ladder)}, this one's is {', '.join(ladder)}")
    return earlier


def changes(earlier: Audit, figures: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return how the floors' shares and the features' medians differ, later (these figures) minus earlier."""
    later = msgspec.convert(figures, Audit)
    return {
        "prompts": {"earlier": earlier.prompts, "later": later.prompts},
        "same_policy": earlier.policy == later.policy and earlier.decided_by in ("", later.decided_by),
        "floors": {tier: _share_change(earlier, later, tier) for tier in later.ladder},
        "medians": {
            name: _median_change(earlier.features_by_kind[name][ALL], spreads[ALL])
            for name, spreads in later.features_by_kind.items()
            if name in earlier.features_by_kind
        },
    }


def _share_change(earlier: Audit, later: Audit, tier: str) -> dict[str, Any]:  # Any: JSON
    before, after = earlier.floors_by_kind[ALL][tier], later.floors_by_kind[ALL][tier]
    low, high = newcombe(after, later.prompts, before, earlier.prompts)
    return {
        "earlier": before,
        "later": after,
        "difference": after - before,
        "interval": [low, high],
        "has_moved": not low <= 0 <= high,
    }


def _median_change(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:  # Any: JSON
    """Return both medians, and their distance in widths of the earlier middle half (None where that is 0 wide)."""
    width = before["p75"] - before["p25"]
    distance = (after["p50"] - before["p50"]) / width if width else None
    return {
        "earlier": before["p50"],
        "later": after["p50"],
        "widths": distance,
        "has_moved": after["p50"] != before["p50"] if distance is None else abs(distance) > _SHIFT,
    }
