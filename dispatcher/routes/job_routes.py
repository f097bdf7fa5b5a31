"""Routes of jobs and dead letters."""

from __future__ import annotations

from bitladder.queue.json_views.dead_letter import DeadLetterWithHistory
from bitladder.queue.json_views.dead_letter_answers import DeadLetterList, DeadLetterSelection, Dropped, Released
from bitladder.queue.json_views.job import CancelledJob, Job
from dispatcher.auth import Requirement
from dispatcher.http.responses import Handler
from dispatcher.jobs import dead_letter_handlers as dead_letters
from dispatcher.jobs.events import get_events
from dispatcher.jobs.existing_jobs import cancel_job, get_job
from dispatcher.jobs.explanations import Explanation, Route, explain_job, route_request
from dispatcher.jobs.new_jobs import submit_job
from dispatcher.openai.accepted import AcceptedJob
from dispatcher.routes.answer_headers import ROUTING_HEADERS
from dispatcher.routes.engine_bodies import ChatRequest, CompletionRequest
from dispatcher.routes.inference_routes import CHAT, CHUNK, COMPLETION
from dispatcher.routes.operation import EVENTS, Answer, Content, Operation, answer
from dispatcher.routes.parameters import ENVELOPE, EXAMPLE_JOB_ID, EXAMPLE_JOB_URL

_ACCEPTED = {
    "id": EXAMPLE_JOB_ID,
    "object": "job",
    "status": "queued",
    "model": "smollm2",
    "floor": "int4",
    "ceiling": None,
    "queue": "smollm2:int4:normal",
    "reason": "entropy 3.20 <= 4.5",
    "entropy": 3.2,
    "policy": "article@1",
    "features": {"entropy": 3.2},
    "urls": {
        "self": EXAMPLE_JOB_URL,
        "wait": f"{EXAMPLE_JOB_URL}?wait=30",
        "cancel": EXAMPLE_JOB_URL,
    },
}
_CHOICE = 'Name the jobs by `ids`, `code`, `queue` or `older_than_s`, or say `"all": true`.'
_CHOICES = {"by_code": {"code": "engine_fault", "dry_run": True}, "all": {"all": True}}
_TOKENS = Content(kinds=(), media_type=EVENTS, examples={"tokens": f"id: 1-1-1\n{CHUNK}data: [DONE]\n\n"})


def _act_on_dead_letters(word: str, summary: str, handler: Handler, result: type) -> Operation:
    none = {"dry_run": False, "chosen": 0, "by_code": {}, result.__name__.lower(): []}
    return Operation(
        method="POST",
        path=f"/v1/dead-letters/{word}",
        requires=Requirement.OPS_WRITE,
        handler=handler,
        name=f"{word}DeadLetters",
        tag="dead_letters",
        summary=summary,
        description=_CHOICE,
        body=Content(kinds=(DeadLetterSelection,), examples=_CHOICES),
        answers={200: answer(result, "What was chosen and done.", examples={"none": none})},
        errors=("TooLarge", "ContentCoding"),
    )


def _read_tokens(word: str, name: str, summary: str, description: str) -> Operation:
    return Operation(
        method="GET",
        path="/v1/jobs/{job_id}/" + word,
        requires=Requirement.READ,
        handler=get_events,
        name=name,
        tag="jobs",
        summary=summary,
        description=description,
        parameters=("LastEventId", "LastEventIdQuery"),
        answers={
            200: Answer(
                description="Server-sent events with ids, from the start or after Last-Event-ID; the last one is "
                "[DONE], an error, or restart: read on where it says.",
                headers=("X-Job-Id",),
                content=[_TOKENS],
            )
        },
        errors=("NotFound", "Gone"),
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/jobs",
        requires=Requirement.SUBMIT,
        handler=submit_job,
        name="submitJob",
        tag="jobs",
        summary="Submit a body of any route of the engine, and read its outcome later.",
        description="A completion and a chat are recognised by their fields; `endpoint` names any other route.",
        parameters=("EndpointQuery", "LaneQuery", *ENVELOPE),
        body=Content(kinds=(CompletionRequest, ChatRequest), examples={"completion": COMPLETION, "chat": CHAT}),
        answers={
            202: answer(
                AcceptedJob,
                "The job is queued, or the first one with its Idempotency-Key is known already.",
                headers=("Location", "Retry-After", "X-Job-Id"),
                examples={"usual": _ACCEPTED},
                links={"show": "getJob", "cancel": "cancelJob", "tokens": "readJobStream"},
            )
        },
        errors=("NotFound", "TooLarge", "ContentCoding", "KeyReused"),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}",
        requires=Requirement.READ,
        handler=get_job,
        name="getJob",
        tag="jobs",
        summary="Show a job, and its outcome once it is terminal.",
        parameters=("WaitQuery",),
        answers={200: answer(Job, "The job.", headers=("Retry-After", "X-Job-Id", *ROUTING_HEADERS))},
        errors=("NotFound", "Gone"),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/explain",
        requires=Requirement.READ,
        handler=explain_job,
        name="explainJob",
        tag="jobs",
        summary="Say why a job went where it went.",
        description="Who decided and by what, which executions came to nothing, and what other tiers would have cost.",
        answers={200: answer(Explanation, "The explanation.")},
        errors=("NotFound", "Gone"),
    ),
    Operation(
        method="POST",
        path="/v1/route",
        requires=Requirement.SUBMIT,
        handler=route_request,
        name="routeRequest",
        tag="jobs",
        summary="Decide on a body of any route of the engine without running it.",
        description="With the headers of a real request. Nothing is queued, counted or kept.",
        parameters=("EndpointQuery", "LaneQuery", *ENVELOPE),
        body=Content(kinds=(CompletionRequest, ChatRequest), examples={"completion": COMPLETION, "chat": CHAT}),
        answers={200: answer(Route, "What would be decided.")},
        errors=("NotFound", "TooLarge", "ContentCoding"),
    ),
    Operation(
        method="DELETE",
        path="/v1/jobs/{job_id}",
        requires=Requirement.SUBMIT,
        handler=cancel_job,
        name="cancelJob",
        tag="jobs",
        summary="Cancel a job.",
        description="A waiting job ends at once, a running one is aborted by its worker.",
        answers={
            200: answer(CancelledJob, "It waited and is cancelled, or was terminal before."),
            202: answer(CancelledJob, "Its worker was asked to abort it."),
        },
        errors=("NotFound", "Gone"),
    ),
    _read_tokens(
        "stream",
        "readJobStream",
        'Read the tokens of a job that was submitted with `"stream": true`.',
        "Works while the job runs and as long as its outcome is kept.",
    ),
    _read_tokens(
        "events",
        "readJobEvents",
        "The former name of `/v1/jobs/{job_id}/stream`.",
        "It answers the same.",
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters",
        requires=Requirement.OPS_READ,
        handler=dead_letters.list_dead_letters,
        name="listDeadLetters",
        tag="dead_letters",
        summary="List dead letters, the latest first.",
        parameters=("CodeQuery", "QueueQuery", "OlderThanQuery", "LimitQuery"),
        answers={200: answer(DeadLetterList, "The jobs, and how many ended with each error code.")},
    ),
    _act_on_dead_letters(
        "release",
        "Queue jobs again, with all their attempts and a new deadline.",
        dead_letters.release_dead_letters,
        Released,
    ),
    _act_on_dead_letters(
        "drop",
        "Take jobs out of the dead letters for good.",
        dead_letters.drop_dead_letters,
        Dropped,
    ),
    Operation(
        method="GET",
        path="/v1/dead-letters/{job_id}",
        requires=Requirement.OPS_READ,
        handler=dead_letters.get_dead_letter,
        name="getDeadLetter",
        tag="dead_letters",
        summary="Show a dead letter with its request and every execution that failed or was lost.",
        answers={200: answer(DeadLetterWithHistory, "The job.")},
        errors=("NotFound",),
    ),
)
