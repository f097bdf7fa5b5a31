"""A response as the Open Responses schema has it: the fields that an engine leaves out are there, null where allowed.

No I/O. Fields that the schema does not know pass through as the engine wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = dict[str, Any]

# What a response says of a request that says nothing.
_BLANK: Mapping[str, Any] = {
    "object": "response",
    "completed_at": None,
    "incomplete_details": None,
    "previous_response_id": None,
    "instructions": None,
    "output": [],
    "error": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "user": None,
    "usage": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}
# What it repeats of its request.
_REPEATED = (
    "model",
    "instructions",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "user",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
)
_ITEM_IDS = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def complete_response(engine: Fields, body: Fields, ours: Fields) -> Fields:
    """Return a response: what is ours of it, then what the engine says, then what the request said."""
    repeated = {name: body[name] for name in _REPEATED if body.get(name) is not None}
    response = {**_BLANK, **repeated, **_without_nulls(engine), **ours}
    response["tools"] = [_tool(tool) for tool in _listed(response["tools"])]
    response["text"] = _text(response["text"])
    if isinstance(reasoning := response["reasoning"], dict):
        response["reasoning"] = {"effort": None, "summary": None} | reasoning
    if response["usage"] is not None:
        response["usage"] = complete_usage(response["usage"])
    response["output"] = complete_items(_listed(response["output"]), str(response["id"]))
    return response


def complete_items(items: list[Any], response_id: str) -> list[Any]:
    """Return items of a response's input or output, each with the fields that its type requires."""
    return [complete_item(item, response_id, place) for place, item in enumerate(items)]


def complete_item(item: Any, response_id: str, place: int) -> Any:  # noqa: ANN401  (an engine may write anything)
    """Return one item; one without an id gets one that depends on its place alone."""
    if not isinstance(item, dict):
        return item
    fields: Fields = {"type": "message"} | _without_nulls(item)
    prefix = _ITEM_IDS.get(fields["type"], "item")
    fields.setdefault("id", f"{prefix}_{response_id.removeprefix('resp_')}_{place}")
    if fields["type"] == "message":
        role = fields.setdefault("role", "assistant")
        kind = "output_text" if role == "assistant" else "input_text"
        content = fields.get("content")
        parts = [{"type": kind, "text": content}] if isinstance(content, str) else _listed(content)
        fields["content"] = [complete_part(part) for part in parts]
    if fields["type"] == "reasoning":
        fields.setdefault("summary", [])
    else:
        fields.setdefault("status", "completed")
    if fields["type"] == "function_call":
        fields.setdefault("call_id", fields["id"])
        fields.setdefault("arguments", "")
    return fields


def complete_part(part: Any) -> Any:  # noqa: ANN401
    """Return one part of a message's content."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "output_text":
        lists = {name: part.get(name) or [] for name in ("annotations", "logprobs")}
        return {"text": ""} | _without_nulls(part) | lists
    if part.get("type") == "input_image":
        return {"image_url": None, "detail": "auto"} | _without_nulls(part)
    return part


def _tool(tool: Any) -> Any:  # noqa: ANN401
    if isinstance(tool, dict) and tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None} | tool
    return tool


def _text(text: Any) -> Any:  # noqa: ANN401
    if not isinstance(text, dict):
        return {"format": {"type": "text"}}
    form = text.get("format")
    if not isinstance(form, dict):
        form = {"type": "text"}
    elif form.get("type") == "json_schema":
        form = {"description": None} | form | {"strict": bool(form.get("strict"))}
    return _without_nulls(text) | {"format": form}


def complete_usage(usage: Any) -> Any:  # noqa: ANN401
    """Return counts of tokens, with all that the schema has."""
    if not isinstance(usage, dict):
        return None
    counts = {name: usage.get(name) or 0 for name in ("input_tokens", "output_tokens")}
    return {
        **usage,
        **counts,
        "total_tokens": usage.get("total_tokens") or sum(counts.values()),
        "input_tokens_details": {"cached_tokens": 0} | _without_nulls(usage.get("input_tokens_details")),
        "output_tokens_details": {"reasoning_tokens": 0} | _without_nulls(usage.get("output_tokens_details")),
    }


def _without_nulls(fields: Any) -> Fields:  # noqa: ANN401
    return {name: value for name, value in fields.items() if value is not None} if isinstance(fields, dict) else {}


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else []
