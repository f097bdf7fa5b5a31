"""What two engines have in common that say different words: fields, their types, ids, reasons, and sums."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from workers.engines.base import Answer, Engine

# Of these the value counts, not only its type.
LITERAL = {"object", "index", "finish_reason", "stop_reason", "role", "type", "name"}
# Their keys are tokens.
BY_TOKEN = {"top_logprobs", "prompt_logprobs"}
# vLLM's sentence ends with what the settings of its server are called, or is another library's.
OWN_WORDS = {"prompt list length", "n must be at most", "Grammar error"}


async def replied(engine: Engine, endpoint: str, body: object) -> dict[str, Any]:
    """Return the reply to a request, as what all engines share of it."""
    chunks: list[dict[str, Any]] = []

    async def take(data: bytes) -> None:
        chunks.extend(json.loads(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event)

    is_stream = isinstance(body, dict) and body.get("stream", False)
    answer = await engine.generate(endpoint, json.dumps(body).encode(), take if is_stream else None)
    if answer.status != 200:
        return refused(answer)
    if answer.unsent:
        await take(answer.unsent)
    whole = json.loads(answer.body)
    if "usage" in whole:
        assert_counted(whole, answer)
    return streamed(chunks) if is_stream else shape(whole)


def refused(answer: Answer) -> dict[str, Any]:
    error = dict(json.loads(answer.body)["error"])
    sentence = str(error.pop("message"))
    # Pydantic's errors list every branch of every union.
    # vLLM has a class for each role, and names it.
    error["param"] = error["param"] and re.sub(r"\.ChatCompletion\w+", "", error["param"])
    is_own = error["type"] == "BadRequestError" and not any(sentence.startswith(words) for words in OWN_WORDS)
    return {"status": answer.status, "error": error | ({"message": sentence} if is_own else {})}


def streamed(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the kinds of a stream's chunks in their order, each once; how each choice ends; how many ids there are."""
    heads = {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}
    kinds = [json.dumps(shape(chunk), sort_keys=True) for chunk in chunks]
    by_choice: dict[int, list[str]] = {}
    for chunk, kind in zip(chunks, kinds, strict=True):
        for choice in chunk["choices"]:
            by_choice.setdefault(choice["index"], []).append(kind)
    return {
        "ids": len(heads),
        "choices": {
            str(at): [json.loads(kind) for kind, _ in itertools.groupby(by_choice[at])] for at in sorted(by_choice)
        },
        "last": json.loads(kinds[-1]) if not chunks[-1]["choices"] else None,
    }


def shape(value: Any, name: str = "") -> Any:  # noqa: ANN401  (any JSON)
    """Return the types of a JSON value; of a list each kind of its items, once."""
    if isinstance(value, dict):
        if name in BY_TOKEN:
            return {"by token": shape(next(iter(value.values())))}
        # The worker asks for token counts itself, and then vLLM's last chunk has no fingerprint.
        return {key: shape(inner, key) for key, inner in sorted(value.items()) if key != "system_fingerprint"}
    if isinstance(value, list):
        if name == "choices":
            return [shape(inner, name) for inner in value]
        kinds = {json.dumps(shape(inner, name), sort_keys=True) for inner in value}
        return [json.loads(kind) for kind in sorted(kinds)]
    if name in LITERAL or value is None:
        return value
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def assert_counted(whole: dict[str, Any], answer: Answer) -> None:
    usage = whole["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (answer.prompt_tokens, answer.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert usage["completion_tokens"] >= len(whole["choices"])
