"""What models without output answer: embeddings, scores, ranks and classes, in vLLM's shapes.

A text's vector counts its words, each in a place that its hash says: texts with the same words are near each other.
"""

from __future__ import annotations

import base64
import math
import secrets
import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, Field, TypeAdapter

from workers.engines.echo_model.answering import prompts_of, texts_of
from workers.engines.echo_model.refusal import RefusedError
from workers.engines.echo_model.request import Chat, Prompt
from workers.engines.echo_model.vocabulary import count

DIMENSIONS = 384
_LABELS = ("LABEL_0", "LABEL_1")


class Pooled(NamedTuple):
    """An answer, the texts that it is about, and how many tokens these have."""

    body: bytes
    prompts: Sequence[str]
    prompt_tokens: int


class _Texts(BaseModel):
    model: str | None = None
    input: Prompt
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"


class _Conversation(Chat):
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"


class _CohereRequest(BaseModel):
    model: str | None = None
    texts: list[str]
    output_dimension: int | None = Field(None, ge=1)
    embedding_types: list[Literal["float", "base64"]] | None = None


class _Pair(BaseModel):
    model: str | None = None
    first: str | list[str]
    second: str | list[str]


class _RerankRequest(BaseModel):
    model: str | None = None
    query: str
    documents: list[str]
    top_n: int = Field(0, ge=0)


_INPUT: TypeAdapter[_Texts | _Conversation] = TypeAdapter(_Texts | _Conversation)
_PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
_fields = msgspec.json.Decoder(dict[str, Any]).decode


def embeddings(body: bytes, context: int) -> Pooled:
    """Answer /v1/embeddings."""
    return _vectors(body, context, ("embd", "embedding", "embedding"))


def pooled(body: bytes, context: int) -> Pooled:
    """Answer /pooling."""
    return _vectors(body, context, ("pool", "pooling", "data"))


def classes(body: bytes, context: int) -> Pooled:
    """Answer /classify: the class is a hash of the text."""
    request = _INPUT.validate_json(body)
    texts = _texts(request, context)
    shares = [zlib.crc32(text.encode()) % 1000 / 1000 for text in texts]
    data = [
        {
            "index": index,
            "label": _LABELS[share >= 1 / 2],
            "probs": [1 - share, share],
            "num_classes": len(_LABELS),
        }
        for index, share in enumerate(shares)
    ]
    return _pooled("classify", request.model, {"data": data}, texts)


def scores(body: bytes, context: int) -> Pooled:
    """Answer /score: how near the vectors of two texts are, from 0 to 1."""
    fields = _fields(body)
    names = next((pair for pair in _PAIRS if pair[0] in fields and pair[1] in fields), _PAIRS[-1])
    pair = _Pair.model_validate(
        {"model": fields.get("model"), "first": fields.get(names[0]), "second": fields.get(names[1])}
    )
    first, second = ([text] if isinstance(text, str) else text for text in (pair.first, pair.second))
    if len(first) not in (1, len(second)) or not second:
        raise RefusedError("Input lengths must be either 1:1, 1:N or N:N")
    texts = _checked([*first, *second], context)
    pairs = zip(first * (len(second) // len(first)), second, strict=True)
    data = [{"index": index, "object": "score", "score": _nearness(*pair)} for index, pair in enumerate(pairs)]
    return _pooled("embd", pair.model, {"data": data}, texts)


def ranks(body: bytes, context: int) -> Pooled:
    """Answer /rerank: the documents, those that are nearest to the query first."""
    request = _RerankRequest.model_validate_json(body)
    texts = _checked([request.query, *request.documents], context)
    results = [
        {
            "index": index,
            "document": {"text": text, "multi_modal": None},
            "relevance_score": _nearness(request.query, text),
        }
        for index, text in enumerate(request.documents)
    ]
    results.sort(key=lambda result: -result["relevance_score"])  # type: ignore[operator]
    tokens = sum(map(count, texts))
    answer = {
        "id": f"rerank-{secrets.token_hex(8)}",
        "model": request.model or "",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results[: request.top_n or None],
    }
    return Pooled(msgspec.json.encode(answer), texts, tokens)


def cohere_embeddings(body: bytes, context: int) -> Pooled:
    """Answer Cohere's /v2/embed."""
    request = _CohereRequest.model_validate_json(body)
    texts = _checked(request.texts, context)
    vectors = [_vector(text, request.output_dimension or DIMENSIONS) for text in texts]
    tokens = sum(map(count, texts))
    kinds = request.embedding_types or ["float"]
    answer = {
        "id": f"embd-{secrets.token_hex(8)}",
        "embeddings": dict.fromkeys(("float", "binary", "ubinary", "base64"))
        | {kind: [_written(vector, kind) for vector in vectors] for kind in kinds},
        "texts": request.texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens, "image_tokens": None}},
        "response_type": "embeddings_by_type",
    }
    return Pooled(msgspec.json.encode(answer), texts, tokens)


def _vectors(body: bytes, context: int, names: tuple[str, str, str]) -> Pooled:
    prefix, kind, field = names
    request = _INPUT.validate_json(body)
    texts = _texts(request, context)
    vectors = [_vector(text, request.dimensions or DIMENSIONS) for text in texts]
    data = [
        {"index": index, "object": kind, field: _written(vector, request.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    return _pooled(prefix, request.model, {"data": data}, texts)


def _texts(request: _Texts | _Conversation, context: int) -> list[str]:
    if isinstance(request, Chat):
        return _checked(["\n".join(prompts_of(request))], context)
    if request.encoding_format.startswith("bytes"):
        raise RefusedError("The echo engine writes embeddings as 'float' or 'base64'.", "encoding_format")
    return _checked(texts_of(request.input), context)


def _checked(texts: list[str], context: int) -> list[str]:
    """Return the texts.

    Raises:
        RefusedError: one of them is longer than the context.

    """
    if (longest := max(map(count, texts), default=0)) > context:
        raise RefusedError(
            f"This model's maximum context length is {context} tokens. However, you requested {longest} tokens in the "
            "input for embedding generation. Please reduce the length of the input.",
            "input_tokens",
            longest,
        )
    return texts


def _vector(text: str, dimensions: int) -> list[float]:
    if dimensions > DIMENSIONS:
        raise RefusedError(f"dimensions must be at most {DIMENSIONS}, got {dimensions}", "dimensions", dimensions)
    vector = [0.0] * dimensions
    for word in text.lower().split():
        vector[zlib.crc32(word.encode()) % dimensions] += 1
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _nearness(first: str, second: str) -> float:
    pairs = zip(_vector(first, DIMENSIONS), _vector(second, DIMENSIONS), strict=True)
    return min(1.0, sum(left * right for left, right in pairs))


def _written(vector: list[float], encoding: str) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector


def _pooled(prefix: str, model: str | None, fields: dict[str, Any], texts: list[str]) -> Pooled:
    tokens = sum(map(count, texts))
    head = {
        "id": f"{prefix}-{secrets.token_hex(8)}",
        "object": "list",
        "created": int(time.time()),
        "model": model or "",
    }
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    return Pooled(msgspec.json.encode(head | fields | {"usage": usage}), texts, tokens)
