"""An engine whose model is a table: after each byte one byte is likely. It answers as vLLM does, and is computable."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from workers.engines.base import Answer, EngineLoad, OnChunk

END = 0
LIKELY, OTHER = 0.75, 0.25  # of the likely byte, and of the one after it
NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
    "tokenizer does not define one."
)


class IdleEngine:
    """What an engine that is always ready says of itself."""

    async def start(self) -> str:
        return ""

    async def load(self) -> EngineLoad:
        return EngineLoad()

    async def is_healthy(self) -> bool:
        return True

    async def stop(self) -> None: ...


class Chain(IdleEngine):
    """After a byte comes the one that the table names, else the next letter; a chat is `<`, the message, `>`."""

    def __init__(
        self, table: Mapping[str, str] | None = None, *, has_template: bool = True, context_tokens: int = 4096
    ) -> None:
        self.table = {ord(byte): ord(then) for byte, then in (table or {}).items()}
        self.has_template = has_template
        self.context_tokens = context_tokens
        self.asked: list[dict[str, Any]] = []

    async def generate(self, endpoint: str, body: bytes, on_chunk: OnChunk | None) -> Answer:
        request = msgspec.json.decode(body)
        self.asked.append(request)
        if endpoint == "/v1/completions":
            return _ok(self._complete(request))
        if endpoint == "/detokenize":
            return _ok({"prompt": bytes(request["tokens"]).decode()})
        if "messages" not in request:
            return _ok({"tokens": list(request["prompt"].encode()), "max_model_len": self.context_tokens})
        if not self.has_template:
            return Answer(status=400, body=msgspec.json.encode({"error": {"message": NO_TEMPLATE}}))
        return _ok({"tokens": list(f"<{request['messages'][0]['content']}>".encode())})

    def _complete(self, request: dict[str, Any]) -> dict[str, Any]:
        tokens = request["prompt"]
        if "prompt_logprobs" in request:
            rows = [self._predictions(*pair) for pair in itertools.pairwise(tokens)]
            return {"choices": [{"text": "", "prompt_logprobs": [None, *rows]}]}
        answer: list[int] = []
        while len(answer) < request["max_tokens"] and END not in answer:
            answer.append(self._likely([*tokens, *answer][-1]))
        choice: dict[str, Any] = {"text": bytes(answer).decode(), "token_ids": answer}
        if "logprobs" in request:
            rows = [self._predictions(*pair) for pair in itertools.pairwise([tokens[-1], *answer])]
            by_id = [{f"token_id:{name}": row[name]["logprob"] for name in row} for row in rows]
            choice["logprobs"] = {"top_logprobs": by_id}
        return {"choices": [choice]}

    def _likely(self, token: int) -> int:
        return self.table.get(token, token + 1)

    def _predictions(self, token: int, then: int) -> dict[str, dict[str, float]]:
        likely = self._likely(token)
        chances = {likely: LIKELY, likely + 1: OTHER - 1e-6}
        return {str(byte): {"logprob": math.log(chances.get(byte, 1e-6))} for byte in {*chances, then}}


def _ok(answer: dict[str, Any]) -> Answer:
    return Answer(status=200, body=msgspec.json.encode(answer))
