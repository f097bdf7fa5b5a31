"""A response as its job's record has it: from a request and what became of it to the JSON that clients read. No I/O."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import msgspec
import uuid_utils

from bitladder.contract import JobView, Outcome, Request, ResponseOptions, State
from bitladder.queue_name import QueueName
from bitladder.routing.aliases import used_service_tier
from bitladder.script_constants import RESPONSE_PREFIX
from dispatcher.openai.responses.create_options import body_fields, input_items
from dispatcher.openai.responses.schema import Fields, complete_items, complete_response

_ID = re.compile(rf"{RESPONSE_PREFIX}[0-9a-f]{{32}}")
_RUNNING = {State.QUEUED: "queued", State.RUNNING: "in_progress"}
# What engines answer beside completed.
_OF_ENGINE = ("completed", "incomplete", "failed")


def new_job_id(*, is_stored: bool) -> str:
    """Return the id of a new job. One that is stored has its response's; the response of others is found by none."""
    made = uuid_utils.uuid7()
    return f"{RESPONSE_PREFIX}{made.hex}" if is_stored else str(made)


def is_response_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


class StoredResponse:
    """A response of a job."""

    def __init__(self, job_id: str, request: Request, queue: str) -> None:
        self.job_id = job_id
        self.id = job_id if job_id.startswith(RESPONSE_PREFIX) else RESPONSE_PREFIX + job_id.replace("-", "")
        self._request, self._queue = request, queue
        self._options = request.response or ResponseOptions()

    @classmethod
    def of_view(cls, view: JobView) -> StoredResponse | None:
        """Return the response of a job; None where it has none, or none is stored."""
        if view.request is None or view.request.response is None:
            return None
        response = cls(view.job_id, view.request, view.queue)
        return response if response.is_stored else None

    @property
    def is_stored(self) -> bool:
        return self._options.store

    @property
    def is_background(self) -> bool:
        return self._options.background

    @cached_property
    def body(self) -> Fields:
        """The body as the engine gets it."""
        return body_fields(bytes(self._request.body))

    @property
    def created_ms(self) -> int:
        """When its id was made: a UUID of version 7 has its time."""
        return int(self.id.removeprefix(RESPONSE_PREFIX)[:12], 16)

    def without_input(self) -> StoredResponse:
        """Return it without what it was asked: prompts are large, and a stream may be read for long."""
        rest = {name: value for name, value in self.body.items() if name != "input"}
        request = msgspec.structs.replace(self._request, body=msgspec.Raw(msgspec.json.encode(rest)))
        return StoredResponse(self.job_id, request, self._queue)

    def of_state(self, state: State, outcome: Outcome | None) -> Fields:
        """Return it as it is now."""
        return self.ended(outcome) if outcome else self.as_json(_RUNNING.get(state, "in_progress"))

    def ended(self, outcome: Outcome, answer: Fields | None = None) -> Fields:
        """Return it as it ended; `answer`: the engine's, where the outcome does not have it."""
        if outcome.state is State.CANCELLED:
            return self.as_json("cancelled")
        if outcome.state is not State.FINISHED:
            return self.as_json("failed", error=_error(outcome))
        engine = answer or body_fields(outcome.answer or b"{}")
        status = engine.get("status")
        ended_ms = self.created_ms + outcome.queue_ms + outcome.run_ms
        return self.as_json(
            status if status in _OF_ENGINE else "completed",
            engine,
            completed_at=int(ended_ms / 1000) if status in (None, "completed") else None,
        )

    def as_json(
        self,
        status: str,
        engine: Fields | None = None,
        *,
        error: Fields | None = None,
        completed_at: int | None = None,
    ) -> Fields:
        ours: Fields = {
            "id": self.id,
            "created_at": self.created_ms // 1000,
            "completed_at": completed_at,
            "status": status,
            "previous_response_id": self._options.previous_response_id,
            "store": self._options.store,
            "background": self._options.background,
            "service_tier": used_service_tier(self._options.service_tier, QueueName.parse(self._queue).lane),
        }
        if error:
            ours["error"] = error
        return complete_response(engine or {}, self.body, ours)

    def input_items(self) -> list[Any]:
        """Return the items that the engine got, those of earlier responses first."""
        return complete_items(input_items(self.body.get("input")), f"{self.id}_in")

    def output_items(self, outcome: Outcome | None) -> list[Any]:
        """Return the items that it answered with."""
        output: list[Any] = self.ended(outcome)["output"] if outcome else []
        return output


def _error(outcome: Outcome) -> Fields:
    """Return why it failed, with one of OpenAI's codes; the message begins with ours."""
    is_refused = 400 <= outcome.status < 500
    message = outcome.error or "the job did not finish"
    if is_refused and outcome.answer:
        message = _engine_message(outcome.answer) or message
    return {
        "code": "invalid_prompt" if is_refused else "server_error",
        "message": f"{outcome.code or outcome.state}: {message}",
    }


def _engine_message(answer: bytes) -> str:
    error = body_fields(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def encoded(fields: Fields) -> bytes:
    return msgspec.json.encode(fields)
