"""Routes of responses, and those of OpenAI's Responses API that are not there."""

from __future__ import annotations

from bitladder.endpoints import Endpoint
from dispatcher.auth import Requirement
from dispatcher.openai.responses import stored
from dispatcher.openai.responses.compaction import CompactedResponse, CompactOptions, compact_response
from dispatcher.openai.responses.create import create_response
from dispatcher.routes.answer_headers import ROUTING_HEADERS
from dispatcher.routes.operation import EVENTS, Content, Operation, answer
from dispatcher.routes.parameters import ENVELOPE
from dispatcher.routes.response_bodies import ResponseRequest, ResponseResource

_RESPONSE = f"{Endpoint.RESPONSES}/{{response_id}}"
_REQUEST = {"model": "smollm2", "input": "Why is the sky blue?", "max_output_tokens": 16}
_TALK = {"model": "smollm2", "input": "Why is the sky blue?"}
_LATER = {**_REQUEST, "background": True, "background_options": {"completion_window": "2h"}}
_EVENT = 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,…}\n\n'
_EVENTS = Content(kinds=(), media_type=EVENTS, examples={"text": f"{_EVENT}data: [DONE]\n\n"})
_CHAIN = "chain responses with previous_response_id"
_CONVERSATION = "/v1/conversations/{conversation_id}"
_MISSING = (
    ("POST", f"{Endpoint.RESPONSES}/input_tokens", "countInputTokens", "counting a response's input", "use /tokenize"),
    ("POST", "/v1/conversations", "createConversation", "conversations", _CHAIN),
    ("GET", _CONVERSATION, "getConversation", "conversations", _CHAIN),
    ("POST", _CONVERSATION, "updateConversation", "conversations", _CHAIN),
    ("DELETE", _CONVERSATION, "deleteConversation", "conversations", _CHAIN),
    ("GET", f"{_CONVERSATION}/items", "listConversationItems", "conversations", _CHAIN),
    ("POST", f"{_CONVERSATION}/items", "createConversationItems", "conversations", _CHAIN),
    ("GET", f"{_CONVERSATION}/items/{{item_id}}", "getConversationItem", "conversations", _CHAIN),
    ("DELETE", f"{_CONVERSATION}/items/{{item_id}}", "deleteConversationItem", "conversations", _CHAIN),
)

OPERATIONS = (
    Operation(
        method="POST",
        path=Endpoint.RESPONSES,
        requires=Requirement.SUBMIT,
        handler=create_response,
        name="createResponse",
        tag="responses",
        summary="Answer items with items.",
        description="Awaited, streamed, or in the background: then the answer is the queued response, or its events. "
        "Fields that are not named here pass through to the engine. An awaited response is cancelled when its client "
        "closes the connection, unless it has an Idempotency-Key.",
        parameters=ENVELOPE,
        body=Content(kinds=(ResponseRequest,), examples={"usual": _REQUEST, "in_two_hours": _LATER}),
        answers={
            200: answer(
                ResponseResource,
                'The response; with `"stream": true` its events, each with a `sequence_number`.',
                headers=("X-Job-Id", *ROUTING_HEADERS),
                events=_EVENTS,
            )
        },
        errors=("NotFound", "Conflict", "TooLarge", "ContentCoding", "KeyReused", "Failed", "EngineFault", "OutOfTime"),
    ),
    Operation(
        method="POST",
        path=f"{Endpoint.RESPONSES}/compact",
        requires=Requirement.SUBMIT,
        handler=compact_response,
        name="compactResponse",
        tag="responses",
        summary="Make a conversation shorter.",
        description="The user's messages stay, and the model sums up all of it in an item that the next request sends.",
        parameters=ENVELOPE,
        body=Content(kinds=(CompactOptions,), examples={"usual": _TALK}),
        answers={200: answer(CompactedResponse, "What to send as input next.", headers=("X-Job-Id", *ROUTING_HEADERS))},
        errors=("NotFound", "Conflict", "TooLarge", "ContentCoding", "KeyReused", "Failed", "EngineFault", "OutOfTime"),
    ),
    *(
        Operation(
            method=method,
            path=path,
            requires=Requirement.ANY_KEY,
            handler=stored.not_implemented(what, instead),
            name=name,
            tag="responses",
            summary=f"Not implemented: {what}.",
            answers={},
            errors=("NotImplemented",),
        )
        for method, path, name, what, instead in _MISSING
    ),
    Operation(
        method="GET",
        path=_RESPONSE,
        requires=Requirement.READ,
        handler=stored.get_response,
        name="getResponse",
        tag="responses",
        summary="Show a stored response as it is now, or read its events.",
        description="Events only of one that was created with `stream: true`; who leaves may read on from any number.",
        parameters=("StreamQuery", "StartingAfterQuery"),
        answers={200: answer(ResponseResource, "The response, or its events.", events=_EVENTS)},
        errors=("NotFound", "Conflict"),
    ),
    Operation(
        method="DELETE",
        path=_RESPONSE,
        requires=Requirement.SUBMIT,
        handler=stored.delete_response,
        name="deleteResponse",
        tag="responses",
        summary="Delete a stored response and all that is kept of it.",
        description="One that has not ended is cancelled first.",
        answers={200: answer(stored.DeletedResponse, "It is there no longer.")},
        errors=("NotFound", "Conflict"),
    ),
    Operation(
        method="POST",
        path=f"{_RESPONSE}/cancel",
        requires=Requirement.SUBMIT,
        handler=stored.cancel_response,
        name="cancelResponse",
        tag="responses",
        summary="Cancel a stored response.",
        description="One that waits ends at once, one that runs is aborted; one that has ended stays as it is.",
        answers={200: answer(ResponseResource, "The response.")},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path=f"{_RESPONSE}/input_items",
        requires=Requirement.READ,
        handler=stored.list_input_items,
        name="listInputItems",
        tag="responses",
        summary="List the items of a stored response's input, those of earlier responses included.",
        parameters=("AfterQuery", "PageLimitQuery", "OrderQuery"),
        answers={200: answer(stored.ItemPage, "A page of the items, the latest first unless `order` is asc.")},
        errors=("NotFound",),
    ),
)
