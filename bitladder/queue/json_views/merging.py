"""One answer of those of several Redis: lists one behind the other, counts added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        items = [item for value in known for item in value]
        return _pauses(items, len(known)) if items and isinstance(items[0], dict) and "scope" in items[0] else items
    if all(isinstance(value, dict) for value in known):
        return merged(known)
    if all(isinstance(value, bool) for value in known):
        return any(known)
    if all(isinstance(value, int | float) for value in known):
        return max(known) if key in _HIGHEST else sum(known)
    return known[0]


def _pauses(entries: Sequence[Answer], count: int) -> list[Answer]:
    """Return each pause once; that of everything or of a tenant says at how many Redis, where not at each."""
    by_scope: dict[str, list[Answer]] = {}
    for entry in entries:
        by_scope.setdefault(entry["scope"], []).append(entry)
    return [
        alike[0] | ({"redis": f"{len(alike)} of {count}"} if _is_of_each(scope) and len(alike) < count else {})
        for scope, alike in by_scope.items()
    ]


def _is_of_each(scope: str) -> bool:
    return scope == "all" or scope.startswith("tenant:")


def merged_workers(answers: Sequence[Answer]) -> Answer:
    """Return one list of workers, in the order that each list has."""
    whole = merged(answers)
    whole["data"].sort(key=lambda row: (row["model"], row["tier"], row["worker"]))
    return whole


def merged_tenants(answers: Sequence[Answer]) -> Answer:
    """Return one list of tenants: jobs and costs of one are added, while its limit and its weight are those at each."""
    rows: dict[str, list[Answer]] = {}
    for answer in answers:
        for row in answer["data"]:
            rows.setdefault(row["tenant"], []).append(row)
    data = [merged(alike) | {name: alike[0][name] for name in ("weight", "limit", "keys")} for alike in rows.values()]
    data.sort(key=lambda row: (-(row["waiting"] + row["running"]), -row["cost_today"], row["tenant"]))
    whole = merged(answers)
    doubled = len(whole["data"]) - len(data)
    return whole | {"data": data, "total": whole["total"] - doubled}


def merged_history(answers: Sequence[Answer]) -> Answer:
    """Return one history, with a value for each moment of the first: the clocks of two Redis may differ."""
    first = answers[0]

    def aligned(name: str) -> list[list[float | None]]:
        by_moment = [dict(zip(answer["at"], answer[name], strict=True)) for answer in answers]
        return [[moments.get(at) for moments in by_moment] for at in first["at"]]

    def moved(answer: Answer, values: Any) -> Any:  # noqa: ANN401  (JSON)
        if isinstance(values, dict):
            return {origin: moved(answer, series) for origin, series in values.items()}
        if not isinstance(values, list):
            return values
        by_moment = dict(zip(answer["at"], values, strict=True))
        return [by_moment.get(at) for at in first["at"]]

    models = [
        model | {"tiers": [{name: moved(answer, values) for name, values in tier.items()} for tier in model["tiers"]]}
        for answer in answers
        for model in answer["models"]
    ]
    dead = [_known(sum, values) for values in aligned("dead_letters")]
    share = [_known(max, values) for values in aligned("memory_share")]
    return first | {"models": models, "dead_letters": dead, "memory_share": share}


def _known(fold: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fold(known) if known else None


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
