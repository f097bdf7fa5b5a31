"""workers/engines/echo_model/grammar_text.py: what is written fits, or the request is refused."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from bitladder.settings.worker_section import EchoSettings
from workers.engines.base import Answer
from workers.engines.echo import EchoEngine


class Leaf(BaseModel):
    kind: Literal["a", "b"]
    number: int = Field(gt=3, le=9)


class Node(BaseModel):
    leaf: Leaf
    children: list[Node]
    parent: Node | None
    counts: dict[str, int]
    pair: tuple[int, str]
    share: float = Field(gt=0, lt=0.5)
    name: str = Field(pattern=r"^[A-Z]{2}\d+$", min_length=6)
    notes: list[str] = Field(min_length=2)
    either: Leaf | int


SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    Node.model_json_schema(),
    {"type": ["string", "null"], "maxLength": 2},
    {"enum": [1, "x"]},
    {"const": None},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
    {"anyOf": [{"type": "string", "minLength": 300}, {"type": "integer"}]},
    {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "integer"}]},
    {"allOf": [{"properties": {"a": {"minimum": 3}}, "required": ["a"]}, {"properties": {"a": {"type": "integer"}}}]},
    {"type": "integer", "exclusiveMaximum": 0, "minimum": -7},
    {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "minItems": 30},
    {"type": "number", "multipleOf": 0.5, "minimum": 0.7},
    {"type": "string", "format": "date-time"},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3},
    {"type": "array", "prefixItems": [{"const": 1}], "items": False, "minItems": 1},
    {"$ref": "#/$defs/x", "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/x"}}}},
    {"type": "string", "pattern": "^é+$", "maxLength": 3},
]
ENDLESS = {
    "$defs": {"x": {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "required": ["x"]}},
    "$ref": "#/$defs/x",
}
DOUBLING = {f"x{at}": {"type": "array", "items": {"$ref": f"#/$defs/x{at + 1}"}, "minItems": 4} for at in range(20)}


async def ask(**form: object) -> Answer:
    engine = EchoEngine(EchoSettings(ttft_ms=0, tokens_per_s=1e9))
    message = {"role": "user", "content": 'the words, of "it" \\ é\n'}
    body = json.dumps({"model": "m", "messages": [message], **form}).encode()
    return await engine.generate("/v1/chat/completions", body, None)


def text(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    choice = json.loads(answer.body)["choices"][0]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"])


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(schema)[:40])
async def test_what_is_written_for_a_schema_fits_it(schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    first, again = text(await ask(response_format=form)), text(await ask(structured_outputs={"json": schema}))

    jsonschema.validate(json.loads(first), schema, format_checker=jsonschema.FormatChecker())
    assert first == again


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "greater than maximum"),
        ({"type": "nope"}, "nope"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"$ref": "http://127.0.0.1/x"}, "does not fetch"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "no JSON that fits"),
        ({"type": "null", "$defs": {"x": {"$ref": "http://127.0.0.1/x"}}}, "does not fetch"),
        (ENDLESS, "Too many items"),
        ({"$ref": "#/$defs/x0", "$defs": DOUBLING | {"x20": {}}}, "no text of up to 10000 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_schema_for_which_nothing_can_be_written_is_refused(schema: dict[str, Any], reason: str) -> None:
    answer = await ask(structured_outputs={"json": schema})

    assert answer.status == 400
    assert reason in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize("regex", ["a{3}b", "[a-z]+@[a-z]+", r"\d{3}-\d+x", "(yes|no)", ".{5}"])
async def test_what_is_written_for_a_regular_expression_matches_it(regex: str) -> None:
    assert re.fullmatch(regex, text(await ask(structured_outputs={"regex": regex})))


async def test_a_grammar_and_any_object_are_written_for_too() -> None:
    grammar = 'root ::= "a" [0-9]+ "!"'

    assert re.fullmatch(r"a\d+!", text(await ask(structured_outputs={"grammar": grammar})))
    assert json.loads(text(await ask(response_format={"type": "json_object"}))) == {"echo": "the words, of it  é"}


async def test_what_is_cut_says_so() -> None:
    answer = await ask(response_format={"type": "json_object"}, max_tokens=2)

    choice = json.loads(answer.body)["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", '{"echo": "the')
