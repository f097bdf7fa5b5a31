"""Answers and chunks as vLLM writes them, with all of its fields: one id, and one time, for all chunks of an answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from workers.engines.echo_model.draft import Draft
from workers.engines.echo_model.logprobs_json import Fields, chat_logprobs, completion_logprobs, prompt_logprobs
from workers.engines.echo_model.request import Chat, Completion
from workers.engines.echo_model.structured import ToolCall
from workers.engines.echo_model.vocabulary import id_of, split

_FINGERPRINT = {"system_fingerprint": "echo"}
_UNUSED: Fields = dict.fromkeys(("service_tier", "kv_transfer_params", "ec_transfer_params", "metrics"))
_UNUSED_IN_CHAT: Fields = dict.fromkeys(("prompt_logprobs", "prompt_token_ids", "prompt_text"))
_UNUSED_IN_MESSAGE: Fields = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))


class Drafted(NamedTuple):
    """All choices of an answer, those of the first prompt first; and the call that they are, if they are one."""

    prompts: Sequence[str]
    prompt_tokens: Sequence[int]  # of each prompt
    choices: Sequence[Draft]
    call: ToolCall | None = None
    tokens: Sequence[Sequence[str]] = ()  # of each prompt of a completion


class AnswerJson:
    """Writes one answer, as a whole or in chunks."""

    def __init__(self, request: Completion | Chat, drafted: Drafted) -> None:
        self._request, self._drafted, self._call = request, drafted, drafted.call
        self._is_chat = isinstance(request, Chat)
        kind, prefix = ("chat.completion", "chatcmpl-") if self._is_chat else ("text_completion", "cmpl-")
        self._head = {
            "id": f"{prefix}{time.time_ns():x}",
            "object": kind,
            "created": int(time.time()),
            "model": request.model or "",
        }
        self._chunk_head = self._head | ({"object": "chat.completion.chunk"} if self._is_chat else {})
        self._call_ids = [f"chatcmpl-tool-{secrets.token_hex(8)}" for _ in drafted.choices] if drafted.call else []
        self.prompts = drafted.prompts
        self.prompt_tokens = sum(drafted.prompt_tokens)
        self.completion_tokens = sum(len(draft.tokens) for draft in drafted.choices)
        self.steps = max(len(draft.tokens) for draft in drafted.choices)
        options = request.stream_options
        self._has_usage = bool(options and options.include_usage)
        self._has_running_usage = self._has_usage and bool(options and options.continuous_usage_stats)

    def whole(self) -> bytes:
        """Return the answer that is not streamed."""
        usage = _usage(self.prompt_tokens, self.completion_tokens)
        choices = [self._choice(index, draft) for index, draft in enumerate(self._drafted.choices)]
        answer = self._head | _UNUSED | _FINGERPRINT | (_UNUSED_IN_CHAT if self._is_chat else {})
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return msgspec.json.encode(answer | {"choices": choices, "usage": usage | details})

    def step(self, at: int) -> bytes:
        """Return the chunks of all choices that have a token in this place; at the end, the token counts."""
        chunks = [
            chunk
            for index, draft in enumerate(self._drafted.choices)
            if at < len(draft.tokens)
            for chunk in (self._chat_chunks if self._is_chat else self._chunks)(index, draft, at)
        ]
        if self._has_usage and at == self.steps - 1:
            usage = _usage(self.prompt_tokens, self.completion_tokens)
            chunks.append(self._event({"choices": [], "usage": usage} | _FINGERPRINT))
        return b"".join(chunks)

    def _choice(self, index: int, draft: Draft) -> Fields:
        text = "".join(draft.texts)
        if self._is_chat:
            message: Fields = {"role": "assistant", "content": text} | _UNUSED_IN_MESSAGE
            if self._call:
                function = {"name": self._call.name, "arguments": text}
                message |= {"content": "", "tool_calls": [self._head_of_call(index) | {"function": function}]}
            body: Fields = {"message": message}
        else:
            body = {"text": self._echoed(index) + text} | self._of_prompt(index)
        logprobs = self._logprobs(index, draft, 0, len(draft.tokens))
        more = {"stop_reason": draft.stop_reason, "token_ids": self._ids(draft.tokens), "routed_experts": None}
        return {"index": index, "logprobs": logprobs, "finish_reason": self._finish_reason(draft)} | body | more

    def _of_prompt(self, index: int) -> Fields:
        """Return what the choice of a completion says of its prompt."""
        assert isinstance(self._request, Completion)  # noqa: S101  (a chat has none)
        tokens, top = self._drafted.tokens[self._prompt_at(index)], self._request.prompt_logprobs
        if top is None and self._request.echo:
            top = self._request.logprobs
        values = None if top is None else prompt_logprobs(tokens, top)
        return {"prompt_logprobs": values, "prompt_token_ids": self._ids(tokens)}

    def _ids(self, tokens: Sequence[str]) -> list[int] | None:
        """Return the ids of tokens, where the request asks for them."""
        is_asked = isinstance(self._request, Completion) and self._request.return_token_ids
        return [id_of(token) for token in tokens] if is_asked else None

    def _chunks(self, index: int, draft: Draft, at: int) -> Iterator[bytes]:
        is_last, prompt = at == len(draft.tokens) - 1, self._echoed(index) if at == 0 else ""
        prompt_tokens = self._drafted.tokens[self._prompt_at(index)]
        echoed_ids = [id_of(token) for token in prompt_tokens] if prompt else None
        choice: Fields = {
            "text": prompt + draft.texts[at],
            "logprobs": self._logprobs(index, draft, at, at + 1),
            "finish_reason": draft.finish_reason if is_last else None,
            "stop_reason": draft.stop_reason if is_last else None,
            "prompt_token_ids": (self._ids(prompt_tokens) if at == 0 else None) or echoed_ids,
            "token_ids": self._ids(draft.tokens[at : at + 1]),
        }
        yield self._choice_event(index, choice, at + 1)

    def _chat_chunks(self, index: int, draft: Draft, at: int) -> Iterator[bytes]:
        part: Fields = {"logprobs": None, "finish_reason": None}
        if at == 0:
            delta: Fields = {"delta": {"role": "assistant", "content": ""}}
            yield self._choice_event(index, delta | part, 0, {"prompt_token_ids": None, "prompt_text": None})
            if self._call:
                call = self._head_of_call(index) | {"index": 0, "function": {"name": self._call.name}}
                delta = {"delta": {"content": None, "tool_calls": [call]}}
                yield self._choice_event(index, delta | part | {"token_ids": None}, 0)
        end = {"finish_reason": self._finish_reason(draft), "stop_reason": draft.stop_reason}
        end = end if at == len(draft.tokens) - 1 else {}
        part |= {"logprobs": self._logprobs(index, draft, at, at + 1), "token_ids": None}
        if not self._call:
            delta = {"content": draft.texts[at]} if draft.texts[at] else {}
            if delta or end:
                yield self._choice_event(index, {"delta": delta} | part | end, at + 1)
            return
        arguments: Fields = {"index": 0, "function": {"arguments": draft.texts[at]}}
        yield self._choice_event(index, {"delta": {"content": None, "tool_calls": [arguments]}} | part, at + 1)
        if end:
            yield self._choice_event(index, {"delta": {}} | part | {"logprobs": None} | end, at + 1)

    def _head_of_call(self, index: int) -> Fields:
        return {"id": self._call_ids[index], "type": "function"}

    def _choice_event(self, index: int, choice: Fields, tokens: int, more: Fields | None = None) -> bytes:
        """Return a chunk with a part of one choice, which has so many tokens by now."""
        chunk: Fields = {"choices": [{"index": index} | choice]} | (more or {})
        if self._has_running_usage:
            usage = _usage(self._drafted.prompt_tokens[self._prompt_at(index)], tokens)
            chunk["usage"] = usage | ({"completion_tokens_details": None} if self._is_chat else {})
        return self._event(chunk | (_FINGERPRINT if choice["finish_reason"] and not self._has_usage else {}))

    def _event(self, chunk: Fields) -> bytes:
        return b"data: " + msgspec.json.encode(self._chunk_head | chunk) + b"\n\n"

    def _logprobs(self, index: int, draft: Draft, begin: int, end: int) -> Fields | None:
        """Return the log probabilities of a choice's tokens from one place to another."""
        request, tokens = self._request, draft.tokens[begin:end]
        if isinstance(request, Chat):
            return chat_logprobs(tokens, request.top_logprobs or 0) if request.logprobs else None
        if request.logprobs is None:
            return None
        prompt = self._echoed(index)
        offset = (len(prompt) if begin else 0) + sum(map(len, draft.tokens[:begin]))
        shown = [*(() if begin else split(prompt)), *filter(None, tokens)]
        by_id = bool(request.return_tokens_as_token_ids)
        return completion_logprobs(shown, request.logprobs, offset, is_start=bool(prompt) and not begin, by_id=by_id)

    def _finish_reason(self, draft: Draft) -> str:
        is_call = self._call and not self._call.is_named and draft.finish_reason == "stop"
        return "tool_calls" if is_call and draft.stop_reason is None else draft.finish_reason

    def _echoed(self, index: int) -> str:
        """Return the prompt with which a choice's text begins."""
        is_echo = isinstance(self._request, Completion) and self._request.echo
        return self._drafted.prompts[self._prompt_at(index)] if is_echo else ""

    def _prompt_at(self, index: int) -> int:
        return index * len(self._drafted.prompts) // len(self._drafted.choices)


def _usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
