"""What the echo engine answers at each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Protocol

import msgspec

from bitladder.endpoints import Endpoint
from workers.engines.echo_model import pooling
from workers.engines.echo_model.answer_json import AnswerJson
from workers.engines.echo_model.answering import drafted
from workers.engines.echo_model.message_json import MessageJson, MessageRequest, count_tokens
from workers.engines.echo_model.request import Chat, Completion
from workers.engines.echo_model.response_json import ResponseJson, ResponseRequest
from workers.engines.echo_model.tokenizing import detokenize, tokenize


class Reply(Protocol):
    """One answer, as a whole or in steps: one for each token of its longest choice."""

    prompts: Sequence[str]
    prompt_tokens: int
    completion_tokens: int
    steps: int

    def whole(self) -> bytes:
        """Return the answer that is not streamed."""

    def step(self, at: int) -> bytes:
        """Return the events of all choices that have a token in this place."""


class Plain:
    """An answer without output: its time is that of its prompt."""

    steps, completion_tokens = 1, 0

    def __init__(self, body: bytes, prompts: Sequence[str] = (), prompt_tokens: int = 0) -> None:
        self._body, self.prompts, self.prompt_tokens = body, prompts, prompt_tokens

    def whole(self) -> bytes:
        """Return the answer."""
        return self._body

    def step(self, at: int) -> bytes:
        """Return nothing: it is not streamed."""
        del at
        return b""


def reply_to(endpoint: Endpoint, body: bytes, context: int, *, is_stream: bool) -> Reply:
    """Return the answer of a model with so many tokens of context; a job may say `stream` where its body does not.

    Raises:
        ValueError: vLLM would refuse the request, or no answer has the form that it asks for.

    """
    return _REPLIES[endpoint](body, context, is_stream)


def _completion(body: bytes, context: int, is_stream: bool) -> Reply:
    return _generated(Completion.model_validate_json(body), context, is_stream)


def _chat(body: bytes, context: int, is_stream: bool) -> Reply:
    return _generated(Chat.model_validate_json(body), context, is_stream)


def _generated(request: Completion | Chat, context: int, is_stream: bool) -> Reply:
    request.stream = request.stream or is_stream
    return AnswerJson(request, drafted(request, context))


def _response(body: bytes, context: int, is_stream: bool) -> Reply:
    del is_stream
    request = ResponseRequest.model_validate_json(body)
    return ResponseJson(request, drafted(request.as_chat(), context))


def _message(body: bytes, context: int, is_stream: bool) -> Reply:
    del is_stream
    request = MessageRequest.model_validate_json(body)
    return MessageJson(request, drafted(request.as_chat(), context))


def _plain(answer: Callable[[bytes, int], bytes]) -> Callable[[bytes, int, bool], Reply]:
    return lambda body, context, _: Plain(answer(body, context))


def _pooled(answer: Callable[[bytes, int], pooling.Pooled]) -> Callable[[bytes, int, bool], Reply]:
    return lambda body, context, _: Plain(*answer(body, context))


def _version(body: bytes, context: int) -> bytes:
    del body, context
    return msgspec.json.encode({"version": f"echo {version('bitladder')}"})


_REPLIES: Mapping[Endpoint, Callable[[bytes, int, bool], Reply]] = {
    Endpoint.COMPLETIONS: _completion,
    Endpoint.CHAT: _chat,
    Endpoint.RESPONSES: _response,
    Endpoint.MESSAGES: _message,
    Endpoint.COUNT_TOKENS: _plain(count_tokens),
    Endpoint.EMBEDDINGS: _pooled(pooling.embeddings),
    Endpoint.COHERE_EMBED: _pooled(pooling.cohere_embeddings),
    Endpoint.SCORE: _pooled(pooling.scores),
    Endpoint.SCORE_V1: _pooled(pooling.scores),
    Endpoint.RERANK: _pooled(pooling.ranks),
    Endpoint.RERANK_V1: _pooled(pooling.ranks),
    Endpoint.RERANK_V2: _pooled(pooling.ranks),
    Endpoint.POOLING: _pooled(pooling.pooled),
    Endpoint.CLASSIFY: _pooled(pooling.classes),
    Endpoint.TOKENIZE: _plain(tokenize),
    Endpoint.DETOKENIZE: _plain(lambda body, _: detokenize(body)),
    Endpoint.VERSION: _plain(_version),
}
