"""One answer of those of several Redis: lists one behind the other, counts added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Answer = dict[str, Any]
# Of these the highest counts, not the sum.
_HIGHEST = ("at", "revision", "memory_share")
_NAMES = ("tenant", "model", "tier", "day")  # of a row of costs


def merged(answers: Sequence[Answer]) -> Answer:
    """Return one answer of several that have the same fields."""
    keys = list(dict.fromkeys(key for answer in answers for key in answer))
    return {key: _value(key, [answer[key] for answer in answers if key in answer]) for key in keys}


def _value(key: str, values: list[Any]) -> Any:  # noqa: ANN401  (JSON)
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, list) for value in known):
        return [item for value in known for item in value]
    if all(isinstance(value, dict) for value in known):
        return merged(known)
    if all(isinstance(value, bool) for value in known):
        return any(known)
    if all(isinstance(value, int | float) for value in known):
        return max(known) if key in _HIGHEST else sum(known)
    return known[0]


def merged_costs(answers: Sequence[Answer]) -> Answer:
    """Return one report of costs: rows of the same name are one, and a saving for each request is averaged."""
    rows: dict[tuple[Any, ...], list[Answer]] = {}
    for answer in answers:
        for row in answer["data"]:
            rows.setdefault(tuple(row.get(name) for name in _NAMES), []).append(row)
    whole = merged(answers)
    return whole | {
        "data": [_cost_row(alike) for alike in rows.values()],
        "total": _cost_row([answer["total"] for answer in answers]),
    }


def _cost_row(rows: list[Answer]) -> Answer:
    saved = [(row["requests"], row["saving_per_request"]) for row in rows if row["saving_per_request"] is not None]
    requests = sum(count for count, _ in saved)
    average = sum(count * saving for count, saving in saved) / requests if requests else None
    return merged(rows) | {"saving_per_request": average}
