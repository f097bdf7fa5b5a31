"""The types that intake, workers and calibration share. What crosses a process is JSON, never pickle.

How a job's record holds a request: bitladder/rq_call.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum

import msgspec

from bitladder.decision import UNDECIDED, Decision, OldDecision
from bitladder.endpoints import Endpoint
from bitladder.queue_name import DEFAULT_TENANT, QueueName

# The lane of an RQ producer's job is its queue's; its priority is this.
DEFAULT_PRIORITY = 5


class State(StrEnum):
    """Where a job is. The last four are terminal; docs/picture/job-states.md draws the arrows."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)


class ResponseOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a response of /v1/responses says of its request that no engine sees."""

    store: bool = True  # it is found by its id: its record keeps the request
    background: bool = False
    previous_response_id: str | None = None
    service_tier: str = ""  # as the request had it


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request as it lies in the queue: the body as the client sent it, and where it was routed."""

    body: msgspec.Raw  # the JSON object of the OpenAI request, byte for byte
    endpoint: Endpoint = Endpoint.COMPLETIONS
    decision: Decision = UNDECIDED
    ceiling: str | None = None  # highest tier allowed; None: the top of the ladder
    priority: int = DEFAULT_PRIORITY
    stream: bool = False  # tokens are published as they come
    request_id: str = ""  # of the HTTP request; '' for a producer's
    tenant: str = DEFAULT_TENANT
    payer: str = ""  # the API key whose budget pays; '': none does
    expected_cost: float = 0.0  # that this budget was charged with at acceptance
    prefix: str = ""  # what jobs with the same beginning of their prompt have in common; '': it does not count
    cascade: bool = False  # its answer is kept only where the model was sure of it, as far as a higher tier may answer
    response: ResponseOptions | None = None  # of a job of /v1/responses
    traceparent: str = ""  # W3C's, of the span that submitted it; '': the intake makes none
    tracestate: str = ""


# The tag of requests whose prompts are not captured, whatever [capture].share is.
NO_CAPTURE = "no-capture"


class Labels(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client has noted on its job."""

    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()


class Submission(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job on its way into the queue."""

    job_id: str
    model: str
    queue: str  # a QueueName as text
    request: Request
    deadline_ms: int | None = None  # from acceptance
    reply_to: str = ""  # channel of the process that awaits the outcome
    idempotency_key: str = ""
    fingerprint: str = ""  # of the body; guards the idempotency key
    max_of_tenant: int = 0  # jobs its tenant may have waiting or running; 0: [queue].max_per_tenant
    weight: int = 1  # of its tenant, among the tenants that wait in its lane
    labels: str = ""  # Labels, as JSON; '': none
    hook: str = ""  # who is told of its end (bitladder/queue/calls/webhooks.py); '': nobody is


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """One job that this worker holds under a lease."""

    job_id: str
    queue: str  # where it was queued
    data: bytes  # RQ's call, still encoded
    attempt: int  # 1 for the first execution
    fence: int  # of this claim alone, greater than those before; finish is refused with an older one
    enqueued_ms: int  # server clock
    deadline_ms: int | None  # server clock, milliseconds since 1970
    claimed_ms: int  # server clock
    crash_count: int = 0  # engines that were lost with it; from 1 on it runs isolated (workers/isolation.py)
    mac: bytes = b""  # over id and data (bitladder/queue/signing.py)
    is_rq: bool = False  # enqueued by a producer of RQ's
    timeout_s: int = 0  # its job_timeout, which the deadline comes from; 0: none
    spent: float | None = None  # what its executions have cost before; None: none of them said
    has_returned: bool = False  # it was claimed before

    @property
    def model(self) -> str:
        """The model that it is for."""
        return QueueName.parse(self.queue).model

    @property
    def tier(self) -> str:
        """The tier whose queue the job waited in."""
        return QueueName.parse(self.queue).tier

    @property
    def lane(self) -> str:
        """The lane it waited in."""
        return QueueName.parse(self.queue).lane

    def serving(self, ladder: Sequence[str]) -> tuple[str, ...]:
        """Return the tiers that may serve it, as the queue's name says it."""
        return QueueName.parse(self.queue).serving(ladder)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


# msgspec knows no optional Raw: JSON null stands for "no answer".
NO_BODY = msgspec.Raw(b"null")


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a job ended: the engine's answer or an error, and how it came about."""

    state: State
    status: int  # HTTP status for an awaiting client
    body: msgspec.Raw = NO_BODY  # the engine's JSON answer, byte for byte; of a stream, what its chunks make up
    text: str | None = None  # of streams, in records of earlier versions
    error: str | None = None
    code: str | None = None
    tier: str | None = None  # that served it
    decision: Decision | None = None  # of its request; None: it ended without a worker
    overflowed_from: str | None = None  # the tier it was queued at, where a higher one served it
    attempts: int = 0
    queue_ms: float = 0.0
    ttft_ms: float | None = None  # engine start to first token; streamed jobs only
    run_ms: float = 0.0
    chunks: int = 0  # how many chunks a streamed answer has, those of earlier executions included
    fence: int = 0  # of the claim whose execution had this outcome; 0: no execution, or an older worker's
    usage: Usage = msgspec.field(default_factory=Usage)
    cost: float | None = None  # of all its executions: price of their tier's time, shared by the jobs that ran beside
    request_id: str = ""
    confidence: float | None = None  # of an answer that a cascade has judged
    served_below_floor: bool = False  # a lower tier served it, as its client had consented to
    streamed_by: int = 0  # fence of the claim that sent the last of its chunks; 0: the one above

    @property
    def floor(self) -> str | None:
        """The lowest tier that it might have been served at."""
        return self.decision.floor or None if self.decision else None

    @property
    def reason(self) -> str | None:
        """Why this floor."""
        return self.decision.reason if self.decision else None

    @property
    def answer(self) -> bytes | None:
        """The engine's JSON answer, or None."""
        return None if bytes(self.body) == b"null" else bytes(self.body)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a streamed answer, placed by the execution it belongs to and its number in it."""

    fence: int  # of the claim: a later execution begins the answer anew, or goes on with it
    number: int  # from 1
    data: bytes  # server-sent events, as the engine wrote them
    after: int = 0  # fence of the chunk before it, where its execution goes on with the answer of that one


class Emitted(IntEnum):
    """What became of a chunk of a stream."""

    LOST = 0  # its job is no longer this worker's
    STORED = 1
    NO_ROOM = 2  # Redis has no memory for it now: to be sent again, before those of its job behind it


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as GET /v1/jobs/{id} reads it."""

    job_id: str
    state: State
    queue: str
    enqueued_ms: int
    attempts: int
    request: Request | None  # None: the record cannot be read as one of ours
    deadline_ms: int | None = None
    worker: str | None = None
    outcome: Outcome | None = None
    tenant: str = DEFAULT_TENANT  # who submitted it
    position: int | None = None  # in its list, 1 for the head; None: it does not wait, or was pushed by RQ
    tenants: int = 1  # that wait in its queue, and are served in turns
    labels: Labels | None = None


class ExpectedWait(msgspec.Struct, frozen=True, kw_only=True):
    """In how many milliseconds a job is expected to be claimed; four of five are claimed between `low` and `high`."""

    wait_ms: int
    low_ms: int
    high_ms: int


encode_outcome = msgspec.json.Encoder().encode
_decode_outcome = msgspec.json.Decoder(Outcome).decode
_decode_old_outcome = msgspec.json.Decoder(OldDecision).decode


def decode_outcome(data: bytes) -> Outcome:
    """Read an outcome.

    Raises:
        msgspec.DecodeError: it is none.

    """
    outcome = _decode_outcome(data)
    if outcome.decision is None and (old := _decode_old_outcome(data)).is_there:
        return msgspec.structs.replace(outcome, decision=old.decision, chunks=outcome.chunks or old.pieces)
    return outcome
