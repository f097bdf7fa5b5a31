"""Parameters and headers of the routes, by the names that the table of routes uses."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from bitladder.contract import DEFAULT_PRIORITY
from bitladder.endpoints import Endpoint
from bitladder.overview.cost_report import MAX_DAYS, Grouping
from bitladder.queue.json_views.dead_letter_answers import MAX_AGE_S
from bitladder.queue.json_views.kinds import Count, Duration, ModelName, TierName
from bitladder.queue.json_views.settings_answers import MAX_LISTED as MAX_LISTED_CHANGES
from bitladder.queue_name import Lane
from bitladder.routing.envelope import DEFAULT_LATENCY_MS
from dispatcher.batch.batch_handlers import DEFAULT_LISTED as DEFAULT_LISTED_BATCHES
from dispatcher.batch.batch_handlers import MAX_LISTED as MAX_LISTED_BATCHES
from dispatcher.batch.file_handlers import MAX_LISTED as MAX_LISTED_FILES
from dispatcher.jobs.dead_letter_handlers import DEFAULT_LISTED, MAX_LISTED
from dispatcher.openai.responses.stored import DEFAULT_ITEMS, MAX_ITEMS
from dispatcher.ops.cost_handler import DEFAULT_DAYS
from dispatcher.ops.settings_handlers import DEFAULT_LISTED as DEFAULT_LISTED_CHANGES
from dispatcher.ops.steering_handlers import DEFAULT_LISTED as DEFAULT_ORDERS
from dispatcher.ops.steering_handlers import MAX_LISTED as MAX_ORDERS
from dispatcher.routes.ops.listing_parameters import LISTING_PARAMETERS
from dispatcher.routes.parameter import Parameter as _Parameter
from dispatcher.routes.webhook_parameters import WEBHOOK_PARAMETERS

REQUEST_ID = Annotated[str, Meta(pattern="^[!-~]{1,128}$")]
EXAMPLE_JOB_ID = "01890000-0000-7000-8000-000000000000"
EXAMPLE_RESPONSE_ID = "resp_01890000000070008000000000000000"
EXAMPLE_JOB_URL = "/v1/jobs/01890000-0000-7000-8000-000000000000"
EXAMPLE_BATCH_ID = "batch_01890000000070008000000000000000"
EXAMPLE_FILE_ID = "file-01890000000070008000000000000000"
_DAY_MS = 86_400_000
_Milliseconds = Annotated[int, Meta(ge=1, le=_DAY_MS)]
_EVENT_ID = Annotated[str, Meta(pattern="^[0-9]{1,15}-[0-9]{1,15}-[0-9]{1,6}$")]


PARAMETERS = {
    **WEBHOOK_PARAMETERS,
    **LISTING_PARAMETERS,
    "JobId": _Parameter(
        "job_id",
        "path",
        Annotated[str, Meta(min_length=1)],
        "The id that came with the acceptance. A producer beside Redis may have chosen any bytes: quote them.",
        example=EXAMPLE_JOB_ID,
    ),
    "FileId": _Parameter(
        "file_id", "path", Annotated[str, Meta(min_length=1)], "A file's id.", example=EXAMPLE_FILE_ID
    ),
    "AfterQuery": _Parameter("after", "query", str, "The last id of the page before."),
    "PageQuery": _Parameter(
        "limit", "query", Annotated[int, Meta(ge=1, le=MAX_LISTED_FILES)], "The maximum of entries.", MAX_LISTED_FILES
    ),
    "BatchId": _Parameter(
        "batch_id", "path", Annotated[str, Meta(min_length=1)], "A batch's id.", example=EXAMPLE_BATCH_ID
    ),
    "BatchPageQuery": _Parameter(
        "limit",
        "query",
        Annotated[int, Meta(ge=1, le=MAX_LISTED_BATCHES)],
        "The maximum of batches listed.",
        DEFAULT_LISTED_BATCHES,
    ),
    "AuditQuery": _Parameter(
        "limit", "query", Annotated[int, Meta(ge=1, le=MAX_ORDERS)], "The maximum of entries.", DEFAULT_ORDERS
    ),
    "OrderQuery": _Parameter("order", "query", Literal["asc", "desc"], "desc, the usual: the latest first."),
    "PurposeQuery": _Parameter("purpose", "query", Literal["batch", "batch_output"], "Only files with this purpose."),
    "Range": _Parameter("Range", "header", str, "One range of bytes; another form is ignored.", example="bytes=0-1023"),
    "ResponseId": _Parameter(
        "response_id",
        "path",
        Annotated[str, Meta(pattern="^resp_[0-9a-f]{32}$")],
        "The id of a stored response.",
        example=EXAMPLE_RESPONSE_ID,
    ),
    "ConversationId": _Parameter("conversation_id", "path", Annotated[str, Meta(min_length=1)], "A conversation."),
    "ItemId": _Parameter("item_id", "path", Annotated[str, Meta(min_length=1)], "An item of a conversation."),
    "StreamQuery": _Parameter("stream", "query", bool, "Whether to read its events.", example=False),
    "StartingAfterQuery": _Parameter(
        "starting_after", "query", Count, "The `sequence_number` of the last event that the client has.", example=3
    ),
    "PageLimitQuery": _Parameter(
        "limit", "query", Annotated[int, Meta(ge=1, le=MAX_ITEMS)], "The maximum of items.", DEFAULT_ITEMS
    ),
    "ModelName": _Parameter("model", "path", ModelName, "A model's name."),
    "DocsFile": _Parameter("file", "path", str, "The name of a file that the page asks for.", example="page.js"),
    "PageFile": _Parameter("page_file", "path", str, "The name of a file that the page asks for.", example="app.js"),
    "ModelQuery": _Parameter("model", "query", ModelName, "A model's name."),
    "EndpointQuery": _Parameter("endpoint", "query", Endpoint, "Which engine route the body is for."),
    "LaneQuery": _Parameter("lane", "query", Lane, "Instead of the lane that follows from the priority."),
    "WaitQuery": _Parameter("wait", "query", Duration, "Seconds to wait for the outcome.", example=0),
    "CodeQuery": _Parameter("code", "query", str, "Only jobs that ended with this error code.", example="engine_fault"),
    "QueueQuery": _Parameter(
        "queue",
        "query",
        str,
        "Only jobs of queues whose name begins so: model, model:tier, model:tier:lane.",
        example="smollm2:int4",
    ),
    "OlderThanQuery": _Parameter(
        "older_than_s",
        "query",
        Annotated[float, Meta(ge=0, le=MAX_AGE_S)],
        "Only jobs that became dead letters at least so many seconds ago.",
    ),
    "LimitQuery": _Parameter(
        "limit",
        "query",
        Annotated[int, Meta(ge=0, le=MAX_LISTED)],
        "The maximum of jobs listed.",
        DEFAULT_LISTED,
    ),
    "ByQuery": _Parameter("by", "query", Grouping, "What a row stands for; tier where it is not named."),
    "RangeQuery": _Parameter(
        "range",
        "query",
        Annotated[str, Meta(pattern="^[1-9][0-9]{0,6}[smhd]$")],
        "How far back from now: a number and s, m, h or d, from 60s to 30d (default: 1h).",
        example="24h",
    ),
    "DaysQuery": _Parameter(
        "days",
        "query",
        Annotated[int, Meta(ge=1, le=MAX_DAYS)],
        "So many days in UTC, today included.",
        DEFAULT_DAYS,
    ),
    "LiveQuery": _Parameter("live", "query", bool, "Only the settings that are changed.", example=False),
    "SettingsLimitQuery": _Parameter(
        "limit",
        "query",
        Annotated[int, Meta(ge=1, le=MAX_LISTED_CHANGES)],
        "The maximum of changes listed.",
        DEFAULT_LISTED_CHANGES,
    ),
    "Priority": _Parameter(
        "X-Priority",
        "header",
        Annotated[int, Meta(ge=1, le=10)],
        "From 8 on: the top tier and the urgent lane; up to 2: the batch lane (both are settings).",
        DEFAULT_PRIORITY,
    ),
    "MaxLatencyMs": _Parameter(
        "X-Max-Latency-Ms",
        "header",
        _Milliseconds,
        "How long you can wait. Above 800 (a setting) there is time for quality, so the top tier.",
        DEFAULT_LATENCY_MS,
    ),
    "MinTier": _Parameter("X-Min-Tier", "header", TierName, "The lowest tier allowed."),
    "MaxTier": _Parameter("X-Max-Tier", "header", TierName, "The highest tier allowed."),
    "Cascade": _Parameter(
        "X-Cascade",
        "header",
        bool,
        "An answer that the model was not sure of is not kept: a higher tier answers, if one may. Not for streams.",
    ),
    "Canary": _Parameter(
        "X-Canary",
        "header",
        bool,
        "Where the model has a candidate for a share of its requests: true: the candidate answers; false: it does not.",
    ),
    "DeadlineMs": _Parameter(
        "X-Deadline-Ms", "header", _Milliseconds, "From acceptance. Afterwards the job is dropped or aborted."
    ),
    "MaxCost": _Parameter(
        "X-Max-Cost",
        "header",
        Annotated[float, Meta(gt=0)],
        "The most that the request may be expected to cost, in the currency of the tiers' prices: dearer tiers are not "
        "used, and where all are, it is refused.",
    ),
    "AllowBelowFloor": _Parameter(
        "X-Allow-Below-Floor",
        "header",
        Literal["true", "false"],
        "Whether a tier below the floor may serve it where all that are allowed are full or dead. The answer says so.",
    ),
    "DynamoPriority": _Parameter(
        "X-Dynamo-Request-Priority",
        "header",
        Annotated[str, Meta(pattern="^[+-]?[0-9]{1,10}$")],
        "Dynamo's name of X-Priority, which wins: 0 is the usual 5, each step is one.",
    ),
    "SloTtftMs": _Parameter(
        "X-Llm-D-Slo-Ttft-Ms",
        "header",
        _Milliseconds,
        "llm-d's limit on the time to the first token: what would wait longer is refused at once.",
    ),
    "SloTpotMs": _Parameter(
        "X-Llm-D-Slo-Tpot-Ms",
        "header",
        _Milliseconds,
        "llm-d's limit per token: times the body's max_tokens, and with the one above, how long the answer may take.",
    ),
    "ReadTimeout": _Parameter(
        "X-Stainless-Read-Timeout",
        "header",
        Annotated[float, Meta(gt=0, le=_DAY_MS / 1000)],
        "Seconds that the client waits, as OpenAI's libraries send it. What cannot be answered in this time is refused "
        "at once. A value of another form is ignored.",
    ),
    "HeadersTimeout": _Parameter(
        "X-Stainless-Timeout",
        "header",
        Annotated[float, Meta(gt=0, le=_DAY_MS / 1000)],
        "Seconds until the client must have the answer's headers, as OpenAI's library for Node sends it. Counts like "
        "X-Stainless-Read-Timeout.",
    ),
    "IdempotencyKey": _Parameter(
        "Idempotency-Key",
        "header",
        Annotated[str, Meta(max_length=255, pattern="^[ -~]*$")],
        "Within a tenant, the same key and body give the first job.",
    ),
    "Tags": _Parameter(
        "X-Tags",
        "header",
        Annotated[str, Meta(pattern="^[ -~]*$")],
        "Up to 16 words, with commas between them, that the job shows again.",
        example="nightly,eu",
    ),
    "Prefer": _Parameter(
        "Prefer",
        "header",
        str,
        "`respond-async`: 202 instead of the answer, with `wait=N` only if that takes longer than N seconds.",
        example="respond-async, wait=10",
    ),
    "RequestId": _Parameter(
        "X-Request-Id", "header", REQUEST_ID, "Comes back, and stands in the outcome. One of another form is replaced."
    ),
    "LastEventId": _Parameter(
        "Last-Event-ID",
        "header",
        _EVENT_ID,
        "The id of an event of this stream, <execution>-<chunk>-<place>: the answer begins behind it.",
        example="1-1-1",
    ),
    "LastEventIdQuery": _Parameter(
        "last_event_id",
        "query",
        _EVENT_ID,
        "The same, for pages whose EventSource cannot send a header of its own. The header counts before it.",
        example="1-1-1",
    ),
}
ENVELOPE = (
    "Priority",
    "MaxLatencyMs",
    "MinTier",
    "Cascade",
    "Canary",
    "MaxTier",
    "DeadlineMs",
    "MaxCost",
    "AllowBelowFloor",
    "DynamoPriority",
    "SloTtftMs",
    "SloTpotMs",
    "ReadTimeout",
    "HeadersTimeout",
    "IdempotencyKey",
    "WebhookUrl",
    "WebhookSecret",
    "Tags",
)
IN_PATHS = {
    "{job_id}": "JobId",
    "{file_id}": "FileId",
    "{batch_id}": "BatchId",
    "{model}": "ModelName",
    "{file}": "DocsFile",
    "{page_file}": "PageFile",
    "{webhook_endpoint_id}": "WebhookEndpointId",
    "{event_id}": "EventId",
    "{response_id}": "ResponseId",
    "{conversation_id}": "ConversationId",
    "{item_id}": "ItemId",
}
