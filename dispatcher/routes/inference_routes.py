"""OpenAI's routes: completions, chat, models."""

from __future__ import annotations

from bitladder.endpoints import Endpoint
from dispatcher.auth import Requirement
from dispatcher.openai.completions import completion_handler
from dispatcher.openai.models import Model, ModelList, get_model, list_models
from dispatcher.routes.engine_bodies import ChatCompletion, ChatRequest, Completion, CompletionRequest
from dispatcher.routes.operation import EVENTS, Content, Operation, answer
from dispatcher.routes.parameters import ENVELOPE, ROUTING_HEADERS

COMPLETION = {"model": "smollm2", "prompt": "The sky is", "max_tokens": 16}
CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 16}
CHUNK = 'data: {"object":"text_completion","choices":[{"index":0,"text":" blue"}]}\n\n'

_DESCRIPTION = (
    "The body passes through to the engine as it came; fields that are not named here too. An awaited job is cancelled "
    "when its client closes the connection, unless it has an Idempotency-Key."
)
_ANSWER = (
    "The engine's answer; with `\"stream\": true` its server-sent events. A stream's headers are sent before its end "
    "is known, so they lack X-Tier and X-Queue-Ms; after [intake].heartbeat_s without a chunk they are "
    "sent all the same, and what goes wrong then is a last event with an `error`."
)


def _inference(endpoint: Endpoint, name: str, summary: str, body: Content, reply: type) -> Operation:
    events = Content(kinds=(), media_type=EVENTS, examples={"tokens": f"{CHUNK}data: [DONE]\n\n"})
    headers = ("X-Job-Id", *ROUTING_HEADERS)
    return Operation(
        method="POST",
        path=endpoint,
        requires=Requirement.SUBMIT,
        handler=completion_handler(endpoint),
        name=name,
        tag="inference",
        summary=summary,
        description=_DESCRIPTION,
        parameters=ENVELOPE,
        body=body,
        answers={200: answer(reply, _ANSWER, headers=headers, events=events)},
        errors=("NotFound", "Conflict", "TooLarge", "ContentCoding", "KeyReused", "Failed", "EngineFault", "OutOfTime"),
    )


OPERATIONS = (
    _inference(
        Endpoint.COMPLETIONS,
        "complete",
        "Complete a prompt.",
        Content(kinds=(CompletionRequest,), examples={"usual": COMPLETION}),
        Completion,
    ),
    _inference(
        Endpoint.CHAT,
        "chat",
        "Answer a conversation.",
        Content(kinds=(ChatRequest,), examples={"usual": CHAT}),
        ChatCompletion,
    ),
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
