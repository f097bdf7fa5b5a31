"""What the Open Responses specification (2026-04-24) requires of a response and of its events, written anew from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
import msgspec

Check = Callable[[Any], bool]
Fields = dict[str, Any]


def _is(*kinds: type, null: bool = False) -> Check:
    return lambda value: (null and value is None) or (type(value) in kinds)


def _list_of(problems: Callable[[Any], list[str]]) -> Check:
    return lambda value: type(value) is list and not [problem for item in value for problem in problems(item)]


def _object(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Callable[[Any], list[str]]:
    def problems(value: Any) -> list[str]:  # noqa: ANN401
        if type(value) is not dict:
            return [f"{value!r} is no object"]
        missing = [f"{name} is missing" for name in required if name not in value]
        checks = required | (optional or {})
        return missing + [
            f"{name} is {value[name]!r}" for name, check in checks.items() if name in value and not check(value[name])
        ]

    return problems


def _fits(*kinds: Callable[[Any], list[str]], null: bool = False) -> Check:
    return lambda value: (null and value is None) or any(not problems(value) for problems in kinds)


def _one_of(*values: object) -> Check:
    return lambda value: value in values


TEXT, WHOLE, NUMBER, FLAG = _is(str), _is(int), _is(int, float), _is(bool)
_TEXT_OR_NULL, _WHOLE_OR_NULL = _is(str, null=True), _is(int, null=True)
_STATUS = _one_of("in_progress", "completed", "incomplete")


def _part(value: Any) -> list[str]:  # noqa: ANN401
    kinds: dict[str, Callable[[Any], list[str]]] = {
        "output_text": _object({"text": TEXT, "annotations": _is(list)}, {"logprobs": _is(list)}),
        "input_image": _object({"image_url": _TEXT_OR_NULL, "detail": _one_of("low", "high", "auto")}),
        "refusal": _object({"refusal": TEXT}),
        "input_file": _object({}),
    }
    kind = value.get("type") if isinstance(value, dict) else None
    return kinds.get(str(kind), _object({"type": TEXT, "text": TEXT}))(value)


def problems_in_item(value: Any) -> list[str]:  # noqa: ANN401
    """Return what is wrong with an item of a response's input or output."""
    kinds = {
        "message": _object(
            {
                "id": TEXT,
                "status": _STATUS,
                "role": _one_of("user", "assistant", "system", "developer"),
                "content": _list_of(_part),
            },
            {"phase": _one_of("commentary", "final_answer")},
        ),
        "function_call": _object({"id": TEXT, "call_id": TEXT, "name": TEXT, "arguments": TEXT, "status": _STATUS}),
        "function_call_output": _object({"id": TEXT, "call_id": TEXT, "output": _is(str, list), "status": _STATUS}),
        "reasoning": _object(
            {"id": TEXT, "summary": _list_of(_part)}, {"content": _list_of(_part), "encrypted_content": TEXT}
        ),
        "compaction": _object({"id": TEXT, "encrypted_content": TEXT}),
    }
    kind = value.get("type") if isinstance(value, dict) else None
    return kinds[kind](value) if kind in kinds else [f"an item of the type {kind!r}"]


_TOOL = _object(
    {
        "type": _one_of("function"),
        "name": TEXT,
        "description": _TEXT_OR_NULL,
        "parameters": _is(dict, null=True),
        "strict": _is(bool, null=True),
    }
)
_COUNT = _object({"cached_tokens": WHOLE}), _object({"reasoning_tokens": WHOLE})
USAGE = _object(
    {
        "input_tokens": WHOLE,
        "output_tokens": WHOLE,
        "total_tokens": WHOLE,
        "input_tokens_details": _fits(_COUNT[0]),
        "output_tokens_details": _fits(_COUNT[1]),
    }
)
_FORMATS = (
    _object({"type": _one_of("text", "json_object")}),
    _object({"type": _one_of("json_schema"), "name": TEXT, "description": _TEXT_OR_NULL, "strict": FLAG}),
)
REQUIRED: dict[str, Check] = {
    "id": TEXT,
    "object": _one_of("response"),
    "created_at": WHOLE,
    "completed_at": _WHOLE_OR_NULL,
    "status": TEXT,
    "incomplete_details": _fits(_object({"reason": TEXT}), null=True),
    "model": TEXT,
    "previous_response_id": _TEXT_OR_NULL,
    "instructions": _TEXT_OR_NULL,
    "output": _list_of(problems_in_item),
    "error": _fits(_object({"code": TEXT, "message": TEXT}), null=True),
    "tools": _list_of(_TOOL),
    "tool_choice": _is(str, dict),
    "truncation": _one_of("auto", "disabled"),
    "parallel_tool_calls": FLAG,
    "text": _fits(_object({"format": _fits(*_FORMATS)}, {"verbosity": _one_of("low", "medium", "high")})),
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "top_logprobs": WHOLE,
    "temperature": NUMBER,
    "reasoning": _fits(_object({"effort": _TEXT_OR_NULL, "summary": _TEXT_OR_NULL}), null=True),
    "user": _TEXT_OR_NULL,
    "usage": _fits(USAGE, null=True),
    "max_output_tokens": _WHOLE_OR_NULL,
    "max_tool_calls": _WHOLE_OR_NULL,
    "store": FLAG,
    "background": FLAG,
    "service_tier": TEXT,
    "metadata": _is(dict),
    "safety_identifier": _TEXT_OR_NULL,
    "prompt_cache_key": _TEXT_OR_NULL,
}
problems_in_response = _object(REQUIRED)

_PLACE = {"item_id": TEXT, "output_index": WHOLE}
_IN_CONTENT = _PLACE | {"content_index": WHOLE}
_SNAPSHOTS = ("created", "queued", "in_progress", "completed", "failed", "incomplete")
_EVENTS: dict[str, dict[str, Check]] = {
    **{name: {"response": _fits(problems_in_response)} for name in _SNAPSHOTS},
    "output_item.added": {"output_index": WHOLE, "item": _fits(problems_in_item)},
    "output_item.done": {"output_index": WHOLE, "item": _fits(problems_in_item)},
    **dict.fromkeys(("content_part.added", "content_part.done"), _IN_CONTENT | {"part": _fits(_part)}),
    "output_text.delta": _IN_CONTENT | {"delta": TEXT},
    "output_text.done": _IN_CONTENT | {"text": TEXT},
    "function_call_arguments.delta": _PLACE | {"delta": TEXT},
    "function_call_arguments.done": _PLACE | {"arguments": TEXT},
}


def problems_in_event(event: Fields) -> list[str]:
    """Return what is wrong with one event of a response."""
    kind = str(event.get("type")).removeprefix("response.")
    if kind not in _EVENTS:
        return [f"an event of the type {event.get('type')!r}"]
    checks = {"sequence_number": WHOLE} | _EVENTS[kind]
    return [f"{kind}: {problem}" for problem in _object(checks, {"logprobs": _is(list)})(event)]


_COMPACTED = _object(
    {
        "id": TEXT,
        "object": _one_of("response.compaction"),
        "output": _list_of(problems_in_item),
        "created_at": WHOLE,
        "usage": _fits(USAGE),
    }
)


class HttpCheck(NamedTuple):
    """One of the checks that a server of the specification is held against over HTTP: a request and what follows."""

    name: str
    body: Fields
    holds: Callable[[Fields], bool] = lambda response: response["status"] == "completed" and bool(response["output"])
    path: str = "/v1/responses"
    status: int = 200
    problems: Callable[[Any], list[str]] = problems_in_response


def _message(role: str, content: Any, **more: str) -> Fields:  # noqa: ANN401
    return {"type": "message", "role": role, "content": content, **more}


# A red square of two pixels by two.
_PICTURE = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR42mP4z8AARBAKADPQBPxmW9W5AAAAAElFTkSuQmCC"
)
_ASKING = [{"type": "input_text", "text": "Name a colour."}, {"type": "input_image", "image_url": _PICTURE}]
_WEATHER = {
    "type": "function",
    "name": "weather_at",
    "description": "Say what the weather is at a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
_TALK = [_message("user", "I am Ada."), _message("assistant", "Hello Ada."), _message("user", "Who am I?")]
_IN_PHASES = [
    _message("user", "What is two and two?"),
    _message("assistant", "I am counting.", phase="commentary"),
    _message("assistant", "It is four.", phase="final_answer"),
    _message("user", "And three?"),
]


def _calls(response: Fields) -> bool:
    return any(item["type"] == "function_call" for item in response["output"])


# After the suite of the specification: what each of its checks over HTTP is about. The echo engine calls a tool where a
# message says so (docs/operating/echo.md); what a real model calls is its own matter.
CHECKS = (
    HttpCheck("basic text", {"input": [_message("user", "Greet me in three words.")]}),
    HttpCheck("phases of an assistant's messages", {"input": _IN_PHASES}),
    HttpCheck("phases in the output", {"input": [_message("user", "Greet me.")]}),
    HttpCheck("streaming", {"input": [_message("user", "Count to five.")], "stream": True}),
    HttpCheck("system prompt", {"input": [_message("system", "Talk like a sailor."), _message("user", "Greet me.")]}),
    HttpCheck("tool calling", {"input": [_message("user", "Is it raining? echo:tool")], "tools": [_WEATHER]}, _calls),
    HttpCheck("image input", {"input": [_message("user", _ASKING)]}),
    HttpCheck("several turns", {"input": _TALK}),
    HttpCheck(
        "compaction",
        {"input": _TALK, "prompt_cache_key": "ada"},
        lambda compacted: compacted["output"][-1]["type"] == "compaction",
        path="/v1/responses/compact",
        problems=_COMPACTED,
    ),
    HttpCheck(
        "compaction without a model",
        {"model": None, "input": _TALK},
        lambda refusal: bool(refusal["error"]["message"]),
        path="/v1/responses/compact",
        status=400,
        problems=lambda _: [],
    ),
)


def cut_short(check: HttpCheck) -> HttpCheck:
    """Return the check for a model that may never end an answer: it is asked for 32 tokens, and may use them all."""

    def holds(response: Fields) -> bool:
        if (response.get("status"), response.get("incomplete_details")) == (
            "incomplete",
            {"reason": "max_output_tokens"},
        ):
            response = response | {"status": "completed"}
        return check.holds(response)

    return check._replace(body=check.body | {"max_output_tokens": 32}, holds=holds)


def failures(http: httpx2.Client, check: HttpCheck, **more: Any) -> list[str]:  # noqa: ANN401
    """Run one check; return what does not hold."""
    body = {"model": "smollm2"} | check.body | more
    answer = http.post(check.path, json={name: value for name, value in body.items() if value is not None})
    if answer.status_code != check.status:
        return [f"status {answer.status_code}: {answer.text}"]
    if not check.body.get("stream"):
        response = answer.json()
        return check.problems(response) or ([] if check.holds(response) else [f"{response}"])
    events = events_of(answer.text)
    wrong = [problem for event in events for problem in problems_in_event(event)]
    return wrong or ([] if check.holds(events[-1]["response"]) else [f"{events[-1]}"])


def events_of(text: str) -> list[Fields]:
    """Return the events of a stream, each of which has its name in its data too; [DONE] ends it."""
    *parts, last = [part for part in text.strip().split("\n\n") if not part.startswith(":")]
    assert last == "data: [DONE]"
    events = []
    for part in parts:
        name, data = part.split("\n")
        events.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events
