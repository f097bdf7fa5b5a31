"""POST /v1/responses/compact: a long conversation as the user's messages and the model's own summary of all of it.

The summary is kept by nobody: the item that has it is sent again with the next request, whose engine reads it as a
message. It is as readable as the conversation that it stands for, whatever OpenAI calls its field.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest

from bitladder.contract import Outcome
from bitladder.errors import RequestError
from dispatcher.http.preferences import NO_PREFERENCES
from dispatcher.http.request_parts import read_bytes
from dispatcher.http.responses import Response
from dispatcher.openai.completions import Form, answer_accepted
from dispatcher.openai.responses.create import Sent, accepted_response, earlier_items
from dispatcher.openai.responses.create_options import COMPACTION, CreateOptions, decoded, engine_body, sent_items
from dispatcher.openai.responses.record import StoredResponse, encoded
from dispatcher.openai.responses.response_stream import stream_response
from dispatcher.openai.responses.schema import Fields, complete_items, complete_usage
from dispatcher.state import intake_state

_ASKED = (
    "Summarize the conversation above for somebody who goes on with it and has read none of it: what was asked, what "
    "was found and decided, names, numbers and open questions. Write nothing else."
)
_MAX_SUMMARY_TOKENS = 512
# Whose messages stay as they are.
_KEPT = ("user", "system", "developer")


class CompactOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a request for a compaction says."""

    model: str
    input: Any = None
    previous_response_id: str | None = None
    instructions: str | None = None
    prompt_cache_key: str | None = None


class CompactedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation made shorter; its output is the input of the next request."""

    id: str
    object: str = "response.compaction"
    created_at: int
    output: list[dict[str, Any]]
    usage: dict[str, Any]


_decoder = msgspec.json.Decoder(CompactOptions)


async def compact_response(request: HttpRequest) -> Response:
    """Let the model sum up a conversation."""
    state = intake_state(request)
    received = await read_bytes(request, state.settings.intake, state.closing)
    options = decoded(_decoder, received)
    earlier = []
    if options.previous_response_id is not None:
        earlier = await earlier_items(request, state, options.previous_response_id)
    items = [*earlier, *sent_items(options.input)]
    if not items:
        raise RequestError("there is nothing to compact: send input or previous_response_id", param="input")
    asked = {"type": "message", "role": "user", "content": _ASKED}
    body = {"model": options.model, "input": [*items, asked], "max_output_tokens": _MAX_SUMMARY_TOKENS}
    more = {"instructions": options.instructions, "prompt_cache_key": options.prompt_cache_key}
    sent = msgspec.json.encode(body | {name: value for name, value in more.items() if value is not None})
    unstored = CreateOptions(store=False, input=msgspec.Raw(msgspec.json.encode(body["input"])))
    both = Sent(received, engine_body(sent, unstored, None))
    accepted = accepted_response(request, state, unstored, both, is_awaited=True)

    def written(job_id: str, outcome: Outcome) -> bytes:
        job = accepted.submission
        return encoded(_compacted(StoredResponse(job_id, job.request, job.queue), outcome, items))

    return await answer_accepted(request, state, accepted, Form(written, stream_response, NO_PREFERENCES))


def _compacted(response: StoredResponse, outcome: Outcome, items: list[Any]) -> Fields:
    ended = response.ended(outcome)
    parts = [part for item in ended["output"] if item.get("type") == "message" for part in item["content"]]
    summary = "".join(part.get("text", "") for part in parts)
    kept = [item for item in items if isinstance(item, dict) and item.get("role") in _KEPT]
    compaction = {
        "type": COMPACTION,
        "id": f"cmp_{response.id.removeprefix('resp_')}",
        "encrypted_content": base64.b64encode(summary.encode()).decode(),
    }
    return {
        "id": response.id,
        "object": "response.compaction",
        "created_at": ended["created_at"],
        "output": [*complete_items(kept, response.id), compaction],
        "usage": ended["usage"] or complete_usage({}),
    }
