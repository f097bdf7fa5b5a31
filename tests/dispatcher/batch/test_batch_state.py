"""A batch's life cycle, its limits and its JSON, as OpenAI has them."""

from __future__ import annotations

import msgspec
import pytest
from openai.types import Batch as OpenAIBatch

from bitladder.endpoints import Endpoint
from bitladder.errors import RequestError
from bitladder.routing.batch_input.scan_batch import BatchError
from bitladder.settings.access import ANYBODY, KeyEnvelope, KeyRules
from dispatcher.batch.batch_state import NEXT, BatchRecord, Owner, Progress, Spec, Status, Tokens
from dispatcher.batch.batch_views import describe_batch, read_new_batch, window_ms

DAYS_30 = 2_592_000
NEW = {"input_file_id": "file-a", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def record(status: Status = Status.IN_PROGRESS, progress: Progress | None = None) -> BatchRecord:
    spec = Spec(
        owner=Owner(tenant="acme"),
        input_file_id="file-a",
        input_key="s/file-a",
        endpoint=Endpoint.CHAT,
        completion_window="24h",
        metadata={"run": "7"},
    )
    return BatchRecord(
        id="batch_1",
        spec=spec,
        status=status,
        progress=progress or Progress(),
        created_ms=1_000_500,
        expires_ms=87_400_500,
    )


@pytest.mark.parametrize(("window", "expected_ms"), [("30m", 1_800_000), ("24h", 86_400_000), ("7d", 604_800_000)])
def test_a_window_is_minutes_hours_or_days(window: str, expected_ms: int) -> None:
    assert window_ms(window, DAYS_30) == expected_ms


@pytest.mark.parametrize("window", ["", "24", "0h", "1.5h", "-1h", "24H", "90s", "31d", "9999999d", "²h", "1h "])
def test_another_window_is_refused_with_what_is_expected(window: str) -> None:
    with pytest.raises(RequestError, match="30m, 24h or 7d") as refusal:
        window_ms(window, DAYS_30)

    assert refusal.value.param == "completion_window"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"completion_window": 24}, "completion_window"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after"),
        ({"output_expires_after": {"anchor": "last_active_at", "seconds": 3600}}, "output_expires_after"),
    ],
)
def test_a_wrong_field_of_a_new_batch_is_named(change: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_new_batch(msgspec.json.encode(NEW | change))

    assert refusal.value.param == param


def test_a_new_batch_may_have_all_that_openai_allows() -> None:
    metadata = {"k" * 60 + str(n): "v" * 512 for n in range(16)}
    expiry = {"anchor": "created_at", "seconds": 2_592_000}

    new = read_new_batch(msgspec.json.encode(NEW | {"metadata": metadata, "output_expires_after": expiry}))

    assert new.metadata == metadata
    assert new.output_expires_after
    assert new.output_expires_after.seconds == 2_592_000


def test_openais_client_reads_every_field() -> None:
    progress = Progress(
        total=3,
        completed=2,
        failed=1,
        model="m",
        tokens=Tokens(prompt=5, completion=7, cached=2, reasoning=1),
        output_file_id="file-o",
        error_file_id="file-e",
        times={"in_progress": 2_000_000, "finalizing": 3_000_000, "completed": 4_000_000},
    )

    read = OpenAIBatch.model_validate_json(msgspec.json.encode(describe_batch(record(Status.COMPLETED, progress))))

    assert (read.status, read.created_at, read.expires_at, read.completed_at) == ("completed", 1000, 87_400, 4000)
    assert (read.output_file_id, read.error_file_id, read.metadata) == ("file-o", "file-e", {"run": "7"})
    assert read.request_counts
    assert (read.request_counts.total, read.request_counts.completed, read.request_counts.failed) == (3, 2, 1)
    assert read.usage
    assert (read.usage.input_tokens, read.usage.output_tokens, read.usage.total_tokens) == (5, 7, 12)
    assert (read.usage.input_tokens_details.cached_tokens, read.usage.output_tokens_details.reasoning_tokens) == (2, 1)


def test_a_failed_batch_says_which_lines_are_wrong() -> None:
    wrong = BatchError(code="invalid_json_line", line=17, message="no JSON", param=None)

    read = OpenAIBatch.model_validate_json(
        msgspec.json.encode(describe_batch(record(Status.FAILED, Progress(errors=[wrong], times={"failed": 5000}))))
    )

    assert read.errors
    assert read.errors.data
    assert (read.errors.data[0].line, read.errors.data[0].code, read.failed_at) == (17, "invalid_json_line", 5)
    assert read.output_file_id is None


def test_files_are_named_only_once_they_are_whole() -> None:
    progress = Progress(total=1, completed=1, output_file_id="file-o")

    assert describe_batch(record(Status.FINALIZING, progress)).output_file_id is None


def test_every_status_leads_to_an_end() -> None:
    def ends(status: Status) -> set[Status]:
        return {status} if status.is_end else set().union(*map(ends, NEXT[status]))

    assert {status for status in Status if status.is_end} == {
        Status.FAILED,
        Status.COMPLETED,
        Status.EXPIRED,
        Status.CANCELLED,
    }
    assert all(ends(status) for status in Status)
    assert [status for status in Status if status.may_be_cancelled] == [Status.VALIDATING, Status.IN_PROGRESS]


def test_a_batch_remembers_the_rules_of_its_key() -> None:
    rules = KeyRules("web", KeyEnvelope(floor="fp8"), KeyEnvelope(ceiling="bf16", allow_below_floor=False))
    caller = msgspec.structs.replace(ANYBODY, key="web", tenant="acme", max_queued=9, weight=3, rules=rules)

    owner = msgspec.json.decode(msgspec.json.encode(Owner.of(caller)), type=Owner)

    assert (owner.tenant, owner.key, owner.max_queued, owner.weight, owner.rules) == ("acme", "web", 9, 3, rules)
