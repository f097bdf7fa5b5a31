"""What clients send and read of a batch: OpenAI's JSON. Pure: no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from bitladder.errors import RequestError
from bitladder.routing.batch_input.scan_batch import BatchError
from dispatcher.batch.batch_state import BatchRecord, Status, Tokens

_WINDOW = re.compile(r"([1-9][0-9]{0,6})(m|h|d)")
_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
# OpenAI's limits.
_MAX_PAIRS, _MAX_NAME, _MAX_VALUE = 16, 64, 512
_MIN_KEPT_S, _MAX_KEPT_S = 3600, 2_592_000


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/batches."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiry | None = None


class OutputExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """When the files that a batch writes expire."""

    anchor: Literal["created_at"]
    seconds: int


class BatchCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of its lines have ended, and how."""

    total: int
    completed: int
    failed: int


class BatchErrors(msgspec.Struct, frozen=True, kw_only=True):
    """Why its file was refused."""

    data: list[BatchError]
    object: Literal["list"] = "list"


class BatchInputDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Where its input tokens came from."""

    cached_tokens: int


class BatchOutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What its output tokens were for."""

    reasoning_tokens: int


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of all its lines."""

    input_tokens: int
    input_tokens_details: BatchInputDetails
    output_tokens: int
    output_tokens_details: BatchOutputDetails
    total_tokens: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as OpenAI's clients read it; times are in seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    metadata: dict[str, str] | None
    usage: BatchUsage | None


class BatchList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of batches, the latest first."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


def describe_batch(record: BatchRecord) -> Batch:
    """Return the JSON of a batch."""
    progress, spec = record.progress, record.spec
    times = {name: at_ms // 1000 for name, at_ms in progress.times.items()}
    return Batch(
        id=record.id,
        endpoint=spec.endpoint,
        model=progress.model,
        errors=BatchErrors(data=progress.errors) if progress.errors else None,
        input_file_id=spec.input_file_id,
        completion_window=spec.completion_window,
        status=record.status,
        output_file_id=progress.output_file_id if record.status.is_end else None,
        error_file_id=progress.error_file_id if record.status.is_end else None,
        created_at=record.created_ms // 1000,
        in_progress_at=times.get("in_progress"),
        expires_at=record.expires_ms // 1000,
        finalizing_at=times.get("finalizing"),
        completed_at=times.get("completed"),
        failed_at=times.get("failed"),
        expired_at=times.get("expired"),
        cancelling_at=None if record.cancelling_ms is None else record.cancelling_ms // 1000,
        cancelled_at=times.get("cancelled"),
        request_counts=BatchCounts(total=progress.total, completed=progress.completed, failed=progress.failed),
        metadata=spec.metadata,
        usage=_usage(progress.tokens) if progress.total else None,
    )


def _usage(tokens: Tokens) -> BatchUsage:
    return BatchUsage(
        input_tokens=tokens.prompt,
        input_tokens_details=BatchInputDetails(cached_tokens=tokens.cached),
        output_tokens=tokens.completion,
        output_tokens_details=BatchOutputDetails(reasoning_tokens=tokens.reasoning),
        total_tokens=tokens.prompt + tokens.completion,
    )


def read_new_batch(body: bytes) -> NewBatch:
    """Read the body of POST /v1/batches.

    Raises:
        RequestError: a field is missing or wrong; `param` names it.

    """
    try:
        new = msgspec.json.decode(body, type=NewBatch)
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is wrong: {error}", param=_param(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body must be a JSON object: {error}") from error
    check_metadata(new.metadata)
    expiry = new.output_expires_after
    if expiry and not _MIN_KEPT_S <= expiry.seconds <= _MAX_KEPT_S:
        raise RequestError(
            f"output_expires_after.seconds must be from {_MIN_KEPT_S} to {_MAX_KEPT_S}, got {expiry.seconds}",
            param="output_expires_after",
        )
    return new


def _param(message: str) -> str | None:
    place = re.search(r"at `\$\.(\w+)|field `(\w+)`", message)
    return place and (place[1] or place[2])


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Check a batch's metadata by OpenAI's limits.

    Raises:
        RequestError: it has too many pairs, or too long ones.

    """
    if metadata is None:
        return
    if len(metadata) > _MAX_PAIRS:
        raise RequestError(f"metadata must have at most {_MAX_PAIRS} pairs, got {len(metadata)}", param="metadata")
    for name, value in metadata.items():
        if len(name) > _MAX_NAME or len(value) > _MAX_VALUE:
            raise RequestError(
                f"metadata must have names of at most {_MAX_NAME} characters and values of at most {_MAX_VALUE}, got "
                f"{name[:_MAX_NAME]!r} with {len(name)} and {len(value)}",
                param="metadata",
            )


def window_ms(window: str, max_s: int) -> int:
    """Return how long a completion window is.

    Raises:
        RequestError: it is none, or too long.

    """
    parsed = _WINDOW.fullmatch(window)
    length_ms = int(parsed[1]) * _UNIT_MS[parsed[2]] if parsed else 0
    if not 0 < length_ms <= max_s * 1000:
        raise RequestError(
            "completion_window must be a whole number of minutes, hours or days, as 30m, 24h or 7d, of at most "
            f"{max_s} s ([batch].max_window_s), got {window[:40]!r}",
            param="completion_window",
        )
    return length_ms
