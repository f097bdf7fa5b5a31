"""What operators ask and order, from one of two sides with the same answers: an intake, or Redis itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from bitladder.cli.ops.asking import Answer, Merge, ask_each, ask_intake, in_force, say_unreachable
from bitladder.cli.ops.operator_name import operator
from bitladder.errors import ConfigError
from bitladder.ids import in_url, readable

if TYPE_CHECKING:
    from bitladder.overview.cost_report import Grouping
    from bitladder.queue.job_queue import JobQueue
    from bitladder.queue.json_views.dead_letter_answers import DeadLetterSelection

Word = Literal["release", "drop"]
# The dead letters that an intake lists in one answer.
MAX_LISTED = 1000


class Operations(Protocol):
    """What operators ask and order."""

    def queues(self) -> Answer: ...

    def costs(self, grouping: Grouping, days: int) -> Answer: ...

    def dead_letters(self, selection: Mapping[str, object], limit: int) -> Answer:
        """List dead letters; limit 0: as many as possible."""
        ...

    def dead_letter(self, job_id: str) -> Answer: ...

    def act(self, word: Word, selection: Mapping[str, object]) -> Answer: ...

    def order(self, word: str, body: Mapping[str, object]) -> Answer:
        """Give an order, such as pause."""
        ...

    def pauses(self) -> Answer: ...

    def audit(self, limit: int, after: str | None) -> Answer: ...


def operations(url: str | None, api_key: str | None, config: str | None) -> Operations:
    """Return the side to ask: the configuration's Redis where a file is named, else an intake where its URL is."""
    return _ByIntake(url, api_key) if url and config is None else _ByRedis(config)


class _ByIntake:
    """Over HTTP, with an API key: what it may is for the intake to say."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url, self._api_key = url, api_key

    def queues(self) -> Answer:
        return self._call("GET", "/v1/queues")

    def costs(self, grouping: Grouping, days: int) -> Answer:
        return self._call("GET", "/v1/costs", params={"by": grouping, "days": days})

    def dead_letters(self, selection: Mapping[str, object], limit: int) -> Answer:
        return self._call("GET", "/v1/dead-letters", params={**selection, "limit": limit or MAX_LISTED})

    def dead_letter(self, job_id: str) -> Answer:
        return self._call("GET", f"/v1/dead-letters/{in_url(job_id)}")

    def act(self, word: Word, selection: Mapping[str, object]) -> Answer:
        ids = selection.get("ids")
        named = {"ids": [readable(job_id) for job_id in ids]} if isinstance(ids, list) else {}
        return self._call("POST", f"/v1/dead-letters/{word}", json={**selection, **named})

    def order(self, word: str, body: Mapping[str, object]) -> Answer:
        return self._call("POST", f"/v1/ops/{word}", json=body)

    def pauses(self) -> Answer:
        return self._call("GET", "/v1/ops/pauses")

    def audit(self, limit: int, after: str | None) -> Answer:
        return self._call("GET", "/v1/ops/audit", params={"limit": limit} | ({"after": after} if after else {}))

    def _call(self, method: str, path: str, **arguments: Any) -> Answer:  # noqa: ANN401  (of the client's call)
        return _said(ask_intake(self._url, self._api_key, method, path, **arguments))


class _ByRedis:
    """Without an intake, so that it serves where none runs."""

    def __init__(self, config: str | None) -> None:
        self._config = config

    def queues(self) -> Answer:
        from bitladder.queue.json_views.queue_list import read_queues

        return self._ask(read_queues)

    def costs(self, grouping: Grouping, days: int) -> Answer:
        from bitladder.overview.cost_report import report_costs
        from bitladder.queue.json_views.merging import merged_costs

        return self._ask(lambda queue: report_costs(queue, grouping, days), merged_costs)

    def dead_letters(self, selection: Mapping[str, object], limit: int) -> Answer:
        from bitladder.queue.json_views.dead_letter_answers import list_entries

        chosen = _read(selection)
        return self._ask(lambda queue: list_entries(queue, chosen, limit or None))

    def dead_letter(self, job_id: str) -> Answer:
        from bitladder.queue.json_views.dead_letter_answers import read_entry

        return self._ask(lambda queue: read_entry(queue, job_id))

    def act(self, word: Word, selection: Mapping[str, object]) -> Answer:
        from bitladder.queue.json_views.dead_letter_answers import drop, release

        chosen = _read(selection)
        return self._ask(lambda queue: (release if word == "release" else drop)(queue, chosen, operator()))

    def order(self, word: str, body: Mapping[str, object]) -> Answer:
        from bitladder.queue.json_views.steering.orders import carry_out

        return self._ask(
            lambda queue: carry_out(queue, word, json.dumps(body, ensure_ascii=False).encode(), operator())
        )

    def pauses(self) -> Answer:
        from bitladder.queue.json_views.steering.pausing import list_pauses

        return self._ask(list_pauses)

    def audit(self, limit: int, after: str | None) -> Answer:
        from bitladder.queue.json_views.steering.audit_log import read_audit

        return self._ask(lambda queue: read_audit(queue, limit, after), lambda answers: answers[0])

    def _ask(self, work: Callable[[JobQueue], Awaitable[object]], merge: Merge | None = None) -> Answer:
        from bitladder.settings.load import load_settings

        return _said(ask_each(in_force(load_settings(self._config)).settings.at_each_redis, work, merge))


def _said(answer: Answer) -> Answer:
    say_unreachable(answer)
    return answer


def _read(selection: Mapping[str, object]) -> DeadLetterSelection:
    from bitladder.queue.json_views.dead_letter_answers import DeadLetterSelection

    try:
        return msgspec.convert(selection, DeadLetterSelection)
    except msgspec.ValidationError as error:
        raise ConfigError(f"which dead letters: {error}") from None
