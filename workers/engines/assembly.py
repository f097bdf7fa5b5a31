"""Assemble the answer that a stream's chunks make up: what the engine would have answered without `"stream": true`.

Engines have fields of their own, so fields are merged by their type: texts of a choice are joined, lists are extended,
choices and tool calls are told apart by their index, and of everything else the last value counts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workers.engines import lenient

# How much of one stream is kept. Lists (log probabilities, token ids) have a limit of their own: they are larger than
# their text, and remain in the stored stream. A text of that size has a million tokens.
MAX_TEXT, MAX_LISTS = 4_000_000, 4_000_000
# The size of a field's name and value when both are empty.
_FIELD_SIZE = 100

_INDEXED = ("choices", "tool_calls")
# Of these the first value counts: some engines send them once, others in every chunk.
_FIXED = ("id", "type", "role", "created")

Fields = dict[str, Any]


class _Text(list[str]):
    """A text that grows."""


class _Listed(list[bytes]):
    """A list that grows, as JSON: a tenth of the objects' memory."""


class _Indexed(dict[int, Fields]):
    """A list whose entries grow, by their index."""


class Assembly:
    """Collects the chunks of one stream."""

    def __init__(self) -> None:
        self._answer: Fields = {"choices": _Indexed()}
        self._text_size = self._list_size = 0

    @property
    def has_choices(self) -> bool:
        return bool(self._answer["choices"])

    def add(self, chunk: Fields) -> None:
        """Add one chunk."""
        if self._text_size <= MAX_TEXT:
            self._merge(self._answer, chunk, grows=False)

    def body(self) -> bytes:
        """Return the answer as JSON; empty where it is too large to be kept."""
        if self._text_size > MAX_TEXT:
            return b""
        answer: Fields = self._whole(self._answer)
        if isinstance(kind := answer.get("object"), str):
            answer["object"] = kind.removesuffix(".chunk")
        answer["choices"] = [_choice(fields) for fields in answer["choices"]]
        return lenient.write(answer)

    def _merge(self, into: Fields, part: Fields, *, grows: bool) -> None:
        for name, value in part.items():
            old = into.get(name)
            if value == old:  # most fields are the same in every chunk
                continue
            if old is None:
                if not name.isprintable():
                    continue
                self._text_size += len(name) + _FIELD_SIZE
            into[name] = self._grown(name, old, value, grows=grows)

    def _grown(self, name: str, old: Any, value: Any, *, grows: bool) -> Any:  # noqa: ANN401
        """Return a field's value after one more chunk; `grows`: texts here are parts of one text."""
        if value is None or (name in _FIXED and old):
            return old
        if isinstance(value, dict):
            fields = old if isinstance(old, dict) else {}
            self._merge(fields, value, grows=grows or name == "delta")
            return fields
        if isinstance(value, list):
            return self._longer(name, old, value, grows=grows)
        if isinstance(value, str) and (grows or name == "text") and name not in _FIXED:
            text = old if isinstance(old, _Text) else _Text()
            if not (name == "name" and [value] == text):  # sent again
                text.append(value)
                self._text_size += len(value)
            return text
        return value

    def _longer(self, name: str, old: Any, value: list[Any], *, grows: bool) -> Any:  # noqa: ANN401
        if name in _INDEXED:
            entries = old if isinstance(old, _Indexed) else _Indexed()
            for part in value:
                if isinstance(part, dict):
                    self._merge(entries.setdefault(_index_of(part, entries), {}), part, grows=grows)
            return entries
        listed = old if isinstance(old, _Listed) else _Listed()
        content = lenient.write(value)[1:-1]
        self._list_size += len(content)
        if content and self._list_size <= MAX_LISTS:
            listed.append(content)
        return listed

    def _whole(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, _Text):
            return lenient.sound("".join(value))
        if isinstance(value, _Listed):
            return None if self._list_size > MAX_LISTS else msgspec.Raw(b"[" + b",".join(value) + b"]")
        if isinstance(value, _Indexed):
            return [self._whole(value[index] | {"index": index}) for index in sorted(value)]
        if isinstance(value, dict):
            return {name: self._whole(inner) for name, inner in value.items()}
        return lenient.sound(value) if isinstance(value, str) else value


def _index_of(part: Fields, entries: _Indexed) -> int:
    """Return an entry's index. Without one, a tool call with an id is new; all else continues the last entry."""
    index = part.get("index")
    if isinstance(index, int):
        return index
    return len(entries) if part.get("id") else max(entries, default=0)


def _choice(fields: Fields) -> Fields:
    """Return a choice as in an answer that was not streamed."""
    message = fields.pop("delta", None)
    head: Fields = {"index": fields.pop("index")}
    if isinstance(message, dict):
        calls = [{"type": "function"} | call for call in message.pop("tool_calls", None) or ()]
        for call in calls:
            del call["index"]
        more = {name: value for name, value in message.items() if value not in (None, "")}
        content = more.pop("content", None if calls or len(more) > ("role" in more) else "")
        head["message"] = {"role": "assistant", "content": content} | more | ({"tool_calls": calls} if calls else {})
    return head | {"logprobs": None, "finish_reason": None} | fields
