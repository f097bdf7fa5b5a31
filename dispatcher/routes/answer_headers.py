"""Headers of the answers, by their names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from bitladder.queue.json_views.kinds import Count, Duration, ModelName, TierName
from dispatcher.routes.parameter import schema_of
from dispatcher.routes.parameters import REQUEST_ID

ANSWER_HEADERS: dict[str, tuple[Any, str]] = {
    "X-Request-Id": (REQUEST_ID, "The client's own, or one made here."),
    "X-Job-Id": (str, "The job behind the answer."),
    "X-Tier": (TierName, "The tier that served it."),
    "X-Floor": (TierName, "The lowest tier that the policy allowed."),
    "X-Entropy": (Annotated[float, Meta(ge=0, le=8)], "Bits per byte of the prompt."),
    "X-Queue-Ms": (Duration, "How long it waited."),
    "X-Cost": (Annotated[float, Meta(ge=0)], "What its executions cost, in the currency of the tiers' prices."),
    "X-Policy": (str, "The policy that chose the floor, and its version."),
    "X-Route-Reason": (str, "Why the policy chose the floor."),
    "X-Canary-Of": (ModelName, "The model that was asked for, where its candidate was to answer."),
    "X-Confidence": (
        Annotated[float, Meta(ge=0, le=1)],
        "How likely the answer is as good as the reference's, where a cascade has judged it.",
    ),
    "X-Overflowed-From": (TierName, "The tier it waited at, where another one served it."),
    "X-Served-Below-Floor": (Literal["true"], "A tier below the floor served it, as the client had allowed."),
    "Preference-Applied": (str, "The preferences that were followed."),
    "Location": (str, "Where the job is."),
    "Retry-After": (Count, "Seconds after which another try makes sense."),
    "Retry-After-Ms": (Count, "The same in milliseconds."),
    "X-Should-Retry": (
        Literal["true", "false"],
        "What OpenAI's libraries obey: whether to try again by themselves.",
    ),
    "Accept-Ranges": (Literal["bytes"], "Range is obeyed."),
    "Content-Disposition": (str, "The file's name."),
    "Content-Range": (str, "Which bytes these are, and of how many."),
    "X-RateLimit-Limit-Requests": (Count, "Requests per minute of the key, where it has a rate."),
    "X-RateLimit-Remaining-Requests": (Count, "How many of them may be sent at once now."),
    "X-RateLimit-Reset-Requests": (str, "Until all of them may be, as 12ms, 8.64s or 6m0s."),
    "RateLimit": (str, "The same by the IETF's draft."),
    "RateLimit-Policy": (str, "The rate by the IETF's draft."),
    "Accept-Encoding": (str, "The content codings of a body that it knows."),
    "Allow": (str, "The methods it knows."),
    "WWW-Authenticate": (str, "How to authenticate."),
}
ROUTING_HEADERS = (
    "X-Tier",
    "X-Floor",
    "X-Entropy",
    "X-Queue-Ms",
    "X-Cost",
    "X-Policy",
    "X-Route-Reason",
    "X-Canary-Of",
    "X-Overflowed-From",
    "X-Confidence",
    "X-Served-Below-Floor",
)


def headers_json() -> dict[str, Any]:
    """Return the headers of answers; X-Request-Id is always there."""
    shown: dict[str, Any] = {
        name: {"description": description, "schema": schema_of(kind)}
        for name, (kind, description) in ANSWER_HEADERS.items()
    }
    shown["X-Request-Id"]["required"] = True
    return shown
