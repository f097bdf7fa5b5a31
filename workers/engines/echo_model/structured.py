"""What an answer must look like: JSON, a choice, a text for a pattern, or the arguments of a tool. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import jsonschema_rs
from llguidance import LLMatcher, grammar_from

from workers.engines.echo_model.grammar_text import text_of
from workers.engines.echo_model.refusal import RefusedError
from workers.engines.echo_model.request import Chat, Completion, StructuredOutputs

# In a chat's last message this calls the first tool, where the client leaves it to the model.
_CALL = "echo:tool"
_ANY_OBJECT: dict[str, Any] = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}
_JSON: Any = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": True,  # written as anyOf, as engines do
}


class ToolCall(NamedTuple):
    """A call of a tool; `is_named`: by the client, which vLLM answers with another finish reason."""

    name: str
    arguments: str
    is_named: bool


def structured_text(request: Completion | Chat, text: str) -> str | None:
    """Return an answer of the form that the request asks for; None where it asks for none.

    Raises:
        RefusedError: the form is wrong, or nothing of it can be written.

    """
    outputs, form = request.structured_outputs, request.response_format
    if form is not None and form.type != "text":
        if form.type == "json_schema" and form.json_schema is None:
            message = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
            raise RefusedError(message, "response_format")
        outputs = StructuredOutputs(
            json=form.json_schema.content if form.json_schema and form.type == "json_schema" else None,
            json_object=True if form.type == "json_object" else None,
            structural_tag="" if form.type == "structural_tag" else None,
        )
    return None if outputs is None else _written(outputs, text)


def tool_call(request: Completion | Chat, last: str) -> ToolCall | None:
    """Return the call of a tool that the request asks for; `last`: its last message.

    Raises:
        RefusedError: no arguments could be written.

    """
    if isinstance(request, Completion) or not request.tools or request.tool_choice == "none":
        return None
    choice, functions = request.tool_choice, [tool.function for tool in request.tools]
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        functions = [function for function in functions if function.name == name]
    elif choice != "required" and _CALL not in last.split():
        return None
    arguments = _json(functions[0].parameters or {"type": "object"}, last)
    return ToolCall(functions[0].name, arguments, isinstance(choice, dict))


def _written(outputs: StructuredOutputs, text: str) -> str:
    kinds = [name for name, value in outputs if value is not None]
    if len([kind for kind in kinds if kind in ("json_schema", "regex", "choice")]) > 1:
        raise RefusedError(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            "structured_outputs",
        )
    if len(kinds) != 1:
        what = "only use one kind of structured outputs constraint" if kinds else "use one kind of structured outputs"
        raise RefusedError(f"You must {what}, got {', '.join(kinds) or 'none'}.")
    if outputs.choice is not None:
        if not outputs.choice:
            raise RefusedError("Choice '[]' cannot be an empty list")
        return outputs.choice[0]
    if outputs.structural_tag is not None:
        raise RefusedError("The echo engine can write no text for a structural tag.", "structured_outputs")
    if outputs.regex is not None:
        return text_of(grammar_from("regex", outputs.regex), text)
    if outputs.grammar is not None:
        return text_of(grammar_from("grammar", outputs.grammar), text)
    return _json(outputs.json_schema if outputs.json_schema is not None else _ANY_OBJECT, text)


def _json(schema: str | dict[str, Any], text: str) -> str:
    try:
        schema = json.loads(schema) if isinstance(schema, str) else schema
        grammar = LLMatcher.grammar_from_json_schema(schema, _JSON)
    except (ValueError, RecursionError):
        raise RefusedError("Invalid JSON grammar specification.") from None
    written = text_of(grammar, text)
    if not _fits(json.loads(written), schema):
        raise RefusedError("The echo engine found no JSON that fits this schema.")
    return written


def _fits(value: object, schema: dict[str, Any]) -> bool:
    """Check what a grammar does not: keys that are there twice, several branches of `oneOf`, and its own mistakes."""
    try:
        options = jsonschema_rs.RegexOptions()
        return jsonschema_rs.validator_for(schema, pattern_options=options, retriever=_refuse).is_valid(value)
    except ValueError as error:
        raise RefusedError(f"The JSON schema is wrong: {str(error)[:300]}") from None


def _refuse(uri: str) -> dict[str, Any]:
    raise ValueError(f"a $ref must point into the schema itself, got {uri[:100]!r}")
