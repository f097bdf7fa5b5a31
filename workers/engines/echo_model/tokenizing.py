"""The routes /tokenize and /detokenize."""

from __future__ import annotations

import msgspec
from pydantic import BaseModel, TypeAdapter

from workers.engines.echo_model.answering import prompts_of
from workers.engines.echo_model.request import Chat
from workers.engines.echo_model.vocabulary import id_of, split, text_of


class _Text(BaseModel):
    prompt: str
    return_token_strs: bool | None = False


class _Messages(Chat):
    return_token_strs: bool | None = False


class _Ids(BaseModel):
    tokens: list[int]


_REQUEST: TypeAdapter[_Text | _Messages] = TypeAdapter(_Text | _Messages)


def tokenize(body: bytes, context: int) -> bytes:
    """Return the tokens of a prompt or of a chat: as many as `usage` counts for it.

    Raises:
        ValueError: the request is wrong.

    """
    request = _REQUEST.validate_json(body)
    tokens = split(request.prompt if isinstance(request, _Text) else "\n".join(prompts_of(request)))
    strings = tokens if request.return_token_strs else None
    ids = [id_of(token) for token in tokens]
    return msgspec.json.encode({"count": len(ids), "max_model_len": context, "tokens": ids, "token_strs": strings})


def detokenize(body: bytes) -> bytes:
    """Return the text of tokens.

    Raises:
        ValueError: the request is wrong.

    """
    return msgspec.json.encode({"prompt": text_of(_Ids.model_validate_json(body).tokens)})
