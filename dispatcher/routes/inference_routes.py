"""The routes of the engine, one for each row of bitladder/endpoints.py, and models."""

from __future__ import annotations

from bitladder.endpoints import Endpoint
from dispatcher.auth import Requirement
from dispatcher.openai.accepted import AcceptedJob
from dispatcher.openai.completions import completion_handler
from dispatcher.openai.models import Model, ModelList, get_model, list_models
from dispatcher.routes.answer_headers import ROUTING_HEADERS
from dispatcher.routes.engine_bodies import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    camel,
    reply_type,
    request_type,
)
from dispatcher.routes.operation import EVENTS, Content, Operation, answer
from dispatcher.routes.parameters import ENVELOPE

COMPLETION = {"model": "smollm2", "prompt": "The sky is", "max_tokens": 16}
_CONVERSATION = [{"role": "user", "content": "Why is the sky blue?"}]
CHAT = {"model": "smollm2", "messages": _CONVERSATION, "max_tokens": 16}
CHUNK = 'data: {"object":"text_completion","choices":[{"index":0,"text":" blue"}]}\n\n'

_DESCRIPTION = (
    "The body passes through to the engine as it came; fields that are not named here too. What its model cannot do, "
    "the engine refuses. An awaited job is cancelled when its client closes the connection, unless it has an "
    "Idempotency-Key."
)
_ANSWER = (
    "The engine's answer; with `\"stream\": true` its server-sent events. A stream's headers are sent before its end "
    "is known, so they lack X-Tier and X-Queue-Ms; after [intake].heartbeat_s without a chunk they are "
    "sent all the same, and what goes wrong then is a last event with an `error`."
)
_PLAIN_ANSWER = "The engine's answer."
_PAIR: dict[str, object] = {"text_1": "The sky is blue", "text_2": ["What colour is the sky?", "Dogs bark"]}
_RANKED: dict[str, object] = {"query": "What colour is the sky?", "documents": ["Dogs bark", "The sky is blue"]}
# Of the routes that do not take a text in the first of their fields.
_EXAMPLES: dict[Endpoint, dict[str, object]] = {
    Endpoint.COMPLETIONS: COMPLETION,
    Endpoint.CHAT: CHAT,
    Endpoint.RESPONSES: {"input": "Why is the sky blue?", "max_output_tokens": 16},
    Endpoint.MESSAGES: {"messages": _CONVERSATION, "max_tokens": 16},
    Endpoint.COUNT_TOKENS: {"messages": _CONVERSATION},
    Endpoint.COHERE_EMBED: {"texts": ["The sky is blue"]},
    Endpoint.SCORE: _PAIR,
    Endpoint.SCORE_V1: _PAIR,
    Endpoint.RERANK: _RANKED,
    Endpoint.RERANK_V1: _RANKED,
    Endpoint.RERANK_V2: _RANKED,
    Endpoint.DETOKENIZE: {"tokens": [504, 6376]},
}
# The names of operations that are not those of their rows.
_NAMES = {Endpoint.COMPLETIONS: "complete"}
_REPLIES: dict[Endpoint, type] = {Endpoint.COMPLETIONS: Completion, Endpoint.CHAT: ChatCompletion}
_REQUESTS: dict[Endpoint, type] = {Endpoint.COMPLETIONS: CompletionRequest, Endpoint.CHAT: ChatRequest}


def _summary(endpoint: Endpoint) -> str:
    """Return what a route does, with its path where another one does the same."""
    does = endpoint.row.does
    is_only = sum(other.row.does == does for other in Endpoint) == 1
    return does if is_only else f"{does.rstrip('.')}, at {endpoint}."


def _inference(endpoint: Endpoint) -> Operation:
    """Return the operation of a row of the table of the engine's routes."""
    events = Content(kinds=(), media_type=EVENTS, examples={"tokens": _events(endpoint)})
    has_body = endpoint.row.method == "POST"
    kind = _REQUESTS.get(endpoint) or request_type(endpoint)
    body = Content(kinds=(kind,), examples={"usual": example_of(endpoint)})
    return Operation(
        method=endpoint.row.method,
        path=endpoint,
        requires=Requirement.SUBMIT,
        handler=completion_handler(endpoint),
        name=_NAMES.get(endpoint) or camel(endpoint.name),
        tag="inference",
        summary=_summary(endpoint),
        description=_DESCRIPTION if has_body else "The model is the first one, unless the query names it.",
        parameters=(*(() if has_body else ("ModelQuery",)), *ENVELOPE, "Prefer"),
        body=body if has_body else None,
        answers={
            200: answer(
                _REPLIES.get(endpoint) or reply_type(endpoint),
                _ANSWER if endpoint.streams else _PLAIN_ANSWER,
                headers=("X-Job-Id", "Preference-Applied", *ROUTING_HEADERS),
                events=events if endpoint.streams else None,
            ),
            202: answer(
                AcceptedJob,
                "`Prefer: respond-async` asked for it: the job goes on.",
                headers=("X-Job-Id", "Location", "Retry-After", "Preference-Applied"),
            ),
        },
        errors=("NotFound", "Conflict", "TooLarge", "ContentCoding", "KeyReused", "Failed", "EngineFault", "OutOfTime"),
        error_shape=endpoint.row.errors,
    )


def _events(endpoint: Endpoint) -> str:
    last = "".join(f'event: {kind}\ndata: {{"type":"{kind}"}}\n\n' for kind in sorted(endpoint.row.ends)[:1])
    return last or f"{CHUNK}data: [DONE]\n\n"


def example_of(endpoint: Endpoint) -> dict[str, object]:
    """Return a body that a route takes."""
    usual = {name: "The sky is" for name in endpoint.row.prompt[:1]}
    return {"model": "smollm2", **_EXAMPLES.get(endpoint, usual)}


OPERATIONS = (
    *(_inference(endpoint) for endpoint in Endpoint if endpoint is not Endpoint.RESPONSES),
    Operation(
        method="GET",
        path="/v1/models",
        requires=Requirement.ANY_KEY,
        handler=list_models,
        name="listModels",
        tag="models",
        summary="List the models.",
        answers={200: answer(ModelList, "The models.")},
    ),
    Operation(
        method="GET",
        path="/v1/models/{model}",
        requires=Requirement.ANY_KEY,
        handler=get_model,
        name="getModel",
        tag="models",
        summary="Show one model.",
        answers={200: answer(Model, "The model.")},
        errors=("NotFound",),
    ),
)
