"""The answer that a stream's chunks make up: what the engine would have said without `"stream": true`.

Engines have fields of their own, so what is known of a field is how it grows: texts of a choice are joined, lists get
longer, choices and tool calls are told apart by their index, and of everything else the last word counts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from workers.engines import lenient

# What is kept of one stream. Lists (log probabilities, token ids) go first: they are larger than the text they belong
# to, and can be read again in the stream. A text of that size is a million tokens.
MAX_TEXT, MAX_LISTS = 4_000_000, 4_000_000
# What a field costs even if it is empty.
_PLACE = 100

_INDEXED = ("choices", "tool_calls")
# Of these the first word counts: some engines say them once, others in every chunk.
_FIXED = ("id", "type", "role", "created")

Fields = dict[str, Any]


class _Text(list[str]):
    """A text that grows."""


class _Listed(list[bytes]):
    """A list that grows, as JSON: a tenth of what the objects take."""


class _Indexed(dict[int, Fields]):
    """A list whose entries grow, by their index."""


class Assembly:
    """Gathers the chunks of one stream."""

    def __init__(self) -> None:
        self._answer: Fields = {"choices": _Indexed()}
        self._text_size = self._list_size = 0

    @property
    def has_choices(self) -> bool:
        return bool(self._answer["choices"])

    def add(self, chunk: Fields) -> None:
        """Take one chunk."""
        if self._text_size <= MAX_TEXT:
            self._merge(self._answer, chunk, grows=False)

    def body(self) -> bytes:
        """Return the answer as JSON; empty where it is too large to be kept."""
        if self._text_size > MAX_TEXT:
            return b""
        answer: Fields = self._whole(self._answer)
        if isinstance(kind := answer.get("object"), str):
            answer["object"] = kind.removesuffix(".chunk")
        answer["choices"] = [_choice(one) for one in answer["choices"]]
        return lenient.write(answer)

    def _merge(self, into: Fields, part: Fields, *, grows: bool) -> None:
        for name, value in part.items():
            old = into.get(name)
            if value == old:  # most of a chunk stands in every chunk
                continue
            if old is None:
                if not name.isprintable():
                    continue
                self._text_size += len(name) + _PLACE
            into[name] = self._grown(name, old, value, grows=grows)

    def _grown(self, name: str, old: Any, value: Any, *, grows: bool) -> Any:  # noqa: ANN401
        """Return a field's value after another word about it; `grows`: texts here are parts of one."""
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
            if not (name == "name" and [value] == text):  # said again
                text.append(value)
                self._text_size += len(value)
            return text
        return value

    def _longer(self, name: str, old: Any, value: list[Any], *, grows: bool) -> Any:  # noqa: ANN401
        if name in _INDEXED:
            entries = old if isinstance(old, _Indexed) else _Indexed()
            for part in value:
                if isinstance(part, dict):
                    self._merge(entries.setdefault(_place(part, entries), {}), part, grows=grows)
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
            return [self._whole(value[place] | {"index": place}) for place in sorted(value)]
        if isinstance(value, dict):
            return {name: self._whole(inner) for name, inner in value.items()}
        return lenient.sound(value) if isinstance(value, str) else value


def _place(part: Fields, entries: _Indexed) -> int:
    """Return an entry's index; without one, a tool call with an id is a new one, and all else is about the last."""
    index = part.get("index")
    if isinstance(index, int):
        return index
    return len(entries) if part.get("id") else max(entries, default=0)


def _choice(fields: Fields) -> Fields:
    """Return a choice in the shape it has in a whole answer."""
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
