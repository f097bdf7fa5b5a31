"""What calls for many jobs take and yield, the same beside Redis (Producer) and over HTTP (Client, AsyncClient)."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from bitladder.errors import (
    BitladderError,
    JobError,
    NotEndedError,
    NotFoundError,
    PartlySubmittedError,
    QueueUnreachableError,
    RequestError,
)
from bitladder.ids import id_bytes, readable

KEY = "idempotency-key"
# Who waits for jobs waits on while Redis or the intake does not answer for so long: it restarts, or fails over.
_OUTAGE_S = 30.0

Body = dict[str, Any]
# Headers of an envelope, as they would come by HTTP: {"X-Priority": 9}. None: not given.
Headers = Mapping[str, str | float | None]
Result = TypeVar("Result")
Item = TypeVar("Item")
Items = TypeVar("Items")
# One of many with its place among them, or what is wrong with it.
Numbered = tuple[int, Item | BitladderError]


@dataclass(frozen=True, slots=True)
class Entry:
    """One body of many, a dict or its JSON, with what holds for it alone.

    Its headers come before those of the call. The endpoint is the engine's route; without one it follows from the
    body's fields. With its key it may be submitted again, in a later run too: the job is
    stored once, and the answer is its first id.
    """

    body: Body | bytes
    headers: Headers | None = None
    idempotency_key: str | int | None = None
    endpoint: str | None = None  # of Producer's calls; the clients leave it to the intake


class OutageWait:
    """Whether one call waits on while nothing answers: not from the start on, and later for _OUTAGE_S.

    That begins with the first failure: a caller may have been busy with an outcome since the last answer.
    """

    def __init__(self) -> None:
        self._was_answered = False
        self._failed_s: float | None = None  # when the present outage was noticed

    def answered(self) -> None:
        """Note an answer."""
        self._was_answered, self._failed_s = True, None

    def is_over(self) -> bool:
        """Note a failure; return whether it is the last one to be waited out."""
        now = time.monotonic()
        self._failed_s = now if self._failed_s is None else self._failed_s
        return not self._was_answered or now > self._failed_s + _OUTAGE_S


class Completed(NamedTuple, Generic[Result]):
    """What became of one of many jobs."""

    index: int  # type: ignore[assignment]  # of its id among those that were asked for; a tuple's own is not missed
    job_id: str  # '' where there is none: its body was refused
    outcome: Result | BitladderError


def read_headers(headers: Headers | None) -> dict[str, str]:
    """Return headers as HTTP would bring them: names in lower case, values as text; None is not sent.

    Raises:
        RequestError: a name or value is none that HTTP could bring.

    """
    return {_name(name): _value(name, value) for name, value in (headers or {}).items() if value is not None}


def checked_many(items: Items) -> Items:
    """Return an iterable of many as it is.

    Raises:
        RequestError: it is one of them, or no iterable.

    """
    if isinstance(items, dict | str | bytes | Entry) or not isinstance(items, Iterable | AsyncIterable):
        raise RequestError(f"a call for many takes an iterable of them, got one {type(items).__name__}")
    return items


def shared_headers(headers: Headers | None) -> dict[str, str]:
    """Return the headers that hold for all bodies of a call.

    Raises:
        RequestError: see `read_headers`; or there is an Idempotency-Key, which only one body can have.

    """
    shared = read_headers(headers)
    if KEY in shared:
        raise RequestError(
            "an Idempotency-Key belongs to one body, and this call has many: give each its own, as "
            "Entry(body, idempotency_key=...)",
            param="Idempotency-Key",
        )
    return shared


def read_entry(item: Body | Entry, shared: dict[str, str]) -> tuple[Body | bytes, dict[str, str]]:
    """Return one body and its headers: the shared ones, and its own before them.

    Raises:
        RequestError: a header cannot be sent.

    """
    if not isinstance(item, Entry):
        return item, shared
    headers = shared | read_headers(item.headers)
    if item.idempotency_key is not None:
        headers[KEY] = _value("idempotency_key", item.idempotency_key)
        if not headers[KEY]:
            raise RequestError(
                "idempotency_key must not be empty: leave it out, or name the body", param="Idempotency-Key"
            )
    return item.body, headers


def encode_body(body: object) -> bytes:
    """Return one body as JSON.

    Raises:
        RequestError: it is no JSON object.

    """
    if isinstance(body, bytes):
        return body
    if not isinstance(body, dict):
        raise RequestError(f"the body must be a JSON object (a dict), got {type(body).__name__}")
    if isinstance(body.get("prompt"), bytes):  # msgspec would write it in base64
        raise RequestError("the prompt must be a str, got bytes", param="prompt")
    try:
        encoded = msgspec.json.encode(body)
        if b"null" in encoded and _holds_no_number(body):  # msgspec writes NaN and infinity so
            raise ValueError("NaN and infinity are no numbers of JSON")
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error
    return encoded


def _holds_no_number(value: object) -> bool:
    """Tell whether NaN or an infinity is somewhere in it."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_holds_no_number, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_no_number, value))


def outcomes_of(ids: Sequence[object], completed: Iterable[Completed[Result]]) -> list[Result | BitladderError]:
    """Return what has completed, in the order of the ids; NotEndedError for what has not when that ends early."""
    outcomes: dict[int, Result | BitladderError] = {}
    try:
        for index, _, outcome in completed:
            outcomes[index] = outcome
    except (JobError, QueueUnreachableError) as error:
        fill(outcomes, ids, error)
    return [outcomes[index] for index in range(len(ids))]


def fill(outcomes: dict[int, Result | BitladderError], ids: Sequence[object], error: BitladderError) -> None:
    """Put errors where there are no outcomes; where there are none at all as the service is unreachable, raise."""
    if not outcomes and not isinstance(error, NotEndedError):
        raise error
    for index, job_id in enumerate(map(id_of, ids)):
        if index not in outcomes:
            lacking = job_id if isinstance(job_id, BitladderError) else _unknown_end(job_id, error)
            outcomes[index] = in_place(lacking, index)


def _unknown_end(job_id: str, error: BitladderError) -> BitladderError:
    return NotEndedError(f"job {readable(job_id)} is not known to have ended: {error}", job_ids=[job_id])


def not_ended(job_ids: Sequence[str], timeout_s: float | None) -> NotEndedError:
    """Return the error of a wait that is over before these jobs are."""
    what = f"job {readable(job_ids[0])} has" if len(job_ids) == 1 else f"{len(job_ids) or 'further'} jobs have"
    return NotEndedError(f"{what} not ended after {timeout_s or 0:g} s", job_ids=job_ids)


def partly(answers: Sequence[object], error: Exception) -> PartlySubmittedError:
    """Return the error of a submit_many that this error has stopped."""
    reason = f"submit_many stopped after {len(answers)} bodies: {error or type(error).__name__}"
    return PartlySubmittedError(reason, answers=answers)


def collected(submitted: Iterable[Result]) -> list[Result]:
    """Return all answers of a submit_each.

    Raises:
        PartlySubmittedError: it was stopped; has the answers so far.

    """
    answers: list[Result] = []
    try:
        for answer in submitted:
            answers.append(answer)
    except Exception as error:
        raise partly(answers, error) from error
    return answers


def id_of(item: object) -> str | BitladderError:
    """Return the id of what submit_many answered, or what is wrong with it: an error there stays one."""
    if isinstance(item, dict):
        item = item.get("id")
    if isinstance(item, BitladderError):
        return item
    if not isinstance(item, str):
        return RequestError(f"a job's id must be text, got {type(item).__name__}", param="id")
    if not item:
        return NotFoundError("there is no job ''", param="id")
    try:
        id_bytes(item)
    except UnicodeEncodeError as error:
        return RequestError(f"a job's id must be text: {error}", param="id")
    return item


def in_place(error: BitladderError, index: int) -> BitladderError:
    """Return an error as one of many results: with its place, and without its history, which would keep the body."""
    if error.index is None:
        error.index = index
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _name(name: object) -> str:
    if isinstance(name, str) and name.isascii() and name.isprintable():
        return name.lower()
    raise RequestError(f"a header's name must be printable ASCII, got {name!r:.80}")


def _value(name: object, value: object) -> str:
    if isinstance(value, str | int | float):
        text = str(value)
        if text.isascii() and (text.isprintable() or not text):
            return text
        value = text  # it is not shown: it may be a key
    raise RequestError(
        f"header {name!r:.80} must be a number or printable ASCII, got {type(value).__name__} that is neither",
        param=str(name)[:80],
    )
