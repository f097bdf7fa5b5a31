"""The error tree of bitladder, with the HTTP status each becomes at the intake.

BitladderError
├── ConfigError                         a setting is wrong: names key, value and what is expected
├── RequestError               400      the request is wrong; `param` says where
│   ├── NotFoundError          404      unknown job
│   │   └── ModelNotFoundError 404      unknown model
│   ├── GoneError              410      the job was here; its result has expired
│   ├── SlowBodyError          408      the body did not arrive in time
│   ├── ClientGoneError        499      the client closed the connection
│   ├── TooLargeError          413      body above the limit
│   ├── ContentCodingError     415      the body is compressed in a way that is not known
│   ├── MaxCostError           400      it would cost more than it may (routing/max_cost.py)
│   └── ConflictError          422      the idempotency key was used with another body
├── AuthenticationError        401      no key, or none of ours
├── ForbiddenError             403      the key lacks a scope
├── WebPageError               403      a browser sends it for some page, and no keys are asked for
├── RateLimitError             429      the key sends too much; try again after `retry_after_s`
│   └── BudgetError            429      the key's budget of the day is used up (routing/max_cost.py)
├── RefusedError               429      refused at the intake for the load; try again after `retry_after_s`
│   ├── QueueFullError         429      a queue, or a model's queues together, are at their depth limit
│   ├── QuotaError             429      the tenant has as many jobs as it may
│   ├── OverloadedError        429      the answer would come after the client's latency budget
│   └── MemoryFullError        503      Redis is nearly full
├── JobError                            the intake refused a client's call, or did not answer: its status and code
│   └── NotEndedError          504      a job has not ended in the time that its caller would wait; it goes on
├── PartlySubmittedError                many submissions stopped before their end: says what became of each
├── QueueUnreachableError      503      Redis is unreachable or refuses to write; a submission was not accepted
│   ├── AcceptanceUnknownError 503      a submission was sent and not answered: it may have been accepted
│   ├── QueueBrokenError       503      a queue's list in Redis is no list
│   └── ProtocolError          503      the processes at Redis speak a protocol that this one does not
├── IntakeClosingError         503      this intake is being stopped; another one, or this one again, takes the request
├── StreamRestartedError       503      a streamed answer began anew after some was read (queue/waiting/reading.py)
├── StreamGapError             500      some of a stream is not stored (queue/waiting/reading.py)
└── NotReadyError              503      a background task of this process is down

What an engine did with a request: workers/engines/errors.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Characters of a name from outside in a message.
_MAX_SHOWN = 200


class BitladderError(Exception):
    """Base of all errors of bitladder."""

    status = 500
    code = "internal_error"
    public: str | None = None  # what clients are told instead, where the message names hosts and repeats their errors
    index: int | None = None  # its place among the bodies or ids of a call that takes many

    @property
    def message(self) -> str:
        """What is wrong, in a sentence."""
        return str(self)


class ConfigError(BitladderError):
    """A setting is missing or wrong."""


class RequestError(BitladderError):
    """The request cannot be accepted as it is; trying it again unchanged cannot help."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFoundError(RequestError):
    """There is no such job."""

    status = 404
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """There is no such model, in OpenAI's words: its clients know model and code."""

    code = "model_not_found"

    def __init__(self, name: str, what_there_is: str) -> None:
        message = f"The model `{name[:_MAX_SHOWN]}` does not exist or you do not have access to it."
        super().__init__(f"{message} There is {what_there_is[:_MAX_SHOWN]}.", param="model")


class GoneError(RequestError):
    """The job was known once; what became of it is no longer stored."""

    status = 410
    code = "result_expired"


class TooLargeError(RequestError):
    """The body is larger than [intake].max_body_bytes."""

    status = 413
    code = "request_too_large"


class ContentCodingError(RequestError):
    """The body is compressed in a way that is not known, or more than once."""

    status = 415
    code = "unsupported_content_encoding"


class SlowBodyError(RequestError):
    """The body did not arrive within [intake].body_timeout_s."""

    status = 408
    code = "request_timeout"


class ClientGoneError(RequestError):
    """The client closed the connection before its body was there, and reads no answer."""

    status = 499
    code = "client_closed_request"


class ConflictError(RequestError):
    """The idempotency key belongs to a request with another body."""

    status = 422
    code = "idempotency_key_reused"


class AuthenticationError(BitladderError):
    """The request has no API key, or none that is configured."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(BitladderError):
    """The API key may not do this."""

    status = 403
    code = "missing_scope"


class WebPageError(BitladderError):
    """A browser sends the request for a web page, and no API key shows that its user wants that."""

    status = 403
    code = "web_page_refused"


class RateLimitError(BitladderError):
    """The API key has sent as much as it may."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(BitladderError):
    """There is more work than can be taken in now; nothing was accepted."""

    status = 429
    code = "refused"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(RefusedError):
    """The queue, or all queues of its model together, are at their depth limit."""

    code = "queue_full"


class QuotaError(RefusedError):
    """The tenant has as many jobs waiting or running as it may."""

    code = "tenant_quota_exceeded"


class OverloadedError(RefusedError):
    """So much waits that the answer would come after the client's latency budget ends."""

    code = "overloaded"


class MemoryFullError(RefusedError):
    """Redis has so little memory left that it is kept for the jobs that are there already."""

    status = 503
    code = "memory_full"


class JobError(BitladderError):
    """The intake refused a client's call, or could not be reached: its HTTP status and error code, None without."""

    status: int | None  # type: ignore[assignment]  # no answer has no status
    code: str | None  # type: ignore[assignment]

    def __init__(
        self, message: str, status: int | None = None, code: str | None = None, *, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.retry_after_s: float | None = None  # when a refused call may be sent again, where the intake says so


class NotEndedError(JobError, TimeoutError):
    """These jobs have not ended in the time that their caller would wait. They go on, and can be waited for again."""

    status = 504
    code = "not_ended"

    def __init__(self, message: str, *, job_ids: Sequence[str]) -> None:
        super().__init__(message, self.status, self.code)
        self.job_ids = job_ids


class PartlySubmittedError(BitladderError):
    """Many submissions stopped early; `__cause__` says why: the service is unreachable, or the iterable raised.

    `answers` says what became of each body that was taken, in order: what submit_many would have returned.
    """

    code = "partly_submitted"

    def __init__(self, message: str, *, answers: Sequence[Any]) -> None:
        super().__init__(message)
        self.answers = answers


class QueueUnreachableError(BitladderError):
    """Redis is unreachable or refused; of a submission nothing was accepted."""

    status = 503
    code = "queue_unreachable"
    public: str | None = "the queue does not answer, or refuses to store anything"
    retry_after_s = 1.0


class AcceptanceUnknownError(QueueUnreachableError):
    """The job was sent to Redis and there was no answer in time: it may have been accepted, or may yet be.

    With an idempotency key, submitting it again is safe: it is stored once.
    """

    code = "acceptance_unknown"

    def __init__(self, message: str, *, job_id: str, public: str | None = None) -> None:
        super().__init__(message)
        self.job_id, self.public = job_id, public


class QueueBrokenError(QueueUnreachableError):
    """What should be the list of a queue in Redis is something else; nothing was accepted."""

    code = "queue_broken"
    public = "this queue takes no jobs until an operator repairs it; nothing was accepted"
    retry_after_s = 30.0


class ProtocolError(QueueUnreachableError):
    """The processes at this Redis speak a protocol that this one does not."""

    code = "protocol_mismatch"
    public = None  # it names versions, and no host
    retry_after_s = 30.0


class IntakeClosingError(BitladderError):
    """This intake is being stopped. `job_id` is the job that goes on; without one, nothing was accepted."""

    status = 503
    code = "intake_closing"
    retry_after_s = 1.0

    def __init__(self, job_id: str = "") -> None:
        super().__init__("this intake is being stopped; send the request again")
        self.job_id = job_id


class NotReadyError(BitladderError):
    """A background task of this process is down and being started again; requests are served as far as possible."""

    status = 503
    code = "not_ready"
