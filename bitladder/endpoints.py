"""The routes of an engine that a job may name: one row each.

What is read of a request's body, what its answer must have, and how it is streamed, follows from the row: a new route
is a new row, and what the echo engine answers there.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NamedTuple


class Events(Enum):
    """How a route streams: the form of its server-sent events."""

    NONE = "none"  # it does not
    DATA = "data"  # OpenAI's chunks: nameless, and [DONE] at the end
    NAMED = "named"  # each has a name, which its data has as `type` too; the last one is of a kind of its own


class Errors(Enum):
    """Whose shape the errors of a route have."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Row(NamedTuple):
    """One route."""

    does: str  # in a few words
    prompt: tuple[str, ...]  # the fields of a body that hold the prompt; at least one must be there
    answer: str  # the field that every answer has
    limits: tuple[str, ...] = ()  # the fields that limit its output in tokens, the first that is set; (): it has none
    events: Events = Events.NONE
    ends: frozenset[str] = frozenset()  # the types of the events that end a stream of named ones
    media: tuple[str, ...] = ()  # the fields that may stand in place of a prompt, and have no text
    is_chat: bool = False  # the prompt is a conversation, which the model's chat template makes into a text
    errors: Errors = Errors.OPENAI
    method: str = "POST"


_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_EMBEDDINGS = Row("Embed texts.", ("input", "messages"), "data")
_SCORE = Row("Score pairs of texts.", ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2"), "data")
_RERANK = Row("Order documents by a query.", ("query", "documents"), "results")


_NO_ROW = Row("", (), "")  # Endpoint(path) finds a member, and makes none


class Endpoint(StrEnum):
    """A route, by its path; attributes are those of its row."""

    row: Row

    def __new__(cls, path: str, row: Row = _NO_ROW) -> Endpoint:
        """Make one of the rows below."""
        endpoint = str.__new__(cls, path)
        endpoint._value_, endpoint.row = path, row
        return endpoint

    COMPLETIONS = "/v1/completions", Row("Complete a prompt.", ("prompt",), "choices", ("max_tokens",), Events.DATA)
    CHAT = (
        "/v1/chat/completions",
        Row(
            "Answer a conversation.",
            ("messages",),
            "choices",
            ("max_completion_tokens", "max_tokens"),
            Events.DATA,
            is_chat=True,
        ),
    )
    RESPONSES = (
        "/v1/responses",
        Row(
            "Answer with a response.",
            ("instructions", "input"),
            "output",
            ("max_output_tokens",),
            Events.NAMED,
            _RESPONSE_ENDS,
            is_chat=True,
        ),
    )
    MESSAGES = (
        "/v1/messages",
        Row(
            "Answer a conversation, as Anthropic does.",
            ("system", "messages"),
            "content",
            ("max_tokens",),
            Events.NAMED,
            frozenset({"message_stop"}),
            is_chat=True,
            errors=Errors.ANTHROPIC,
        ),
    )
    COUNT_TOKENS = (
        "/v1/messages/count_tokens",
        Row(
            "Count the tokens of a conversation, as Anthropic does.",
            ("system", "messages"),
            "input_tokens",
            errors=Errors.ANTHROPIC,
        ),
    )
    EMBEDDINGS = "/v1/embeddings", _EMBEDDINGS
    COHERE_EMBED = (
        "/v2/embed",
        Row("Embed texts or pictures, as Cohere does.", ("texts", "inputs"), "embeddings", media=("images",)),
    )
    SCORE = "/score", _SCORE
    SCORE_V1 = "/v1/score", _SCORE
    RERANK = "/rerank", _RERANK
    RERANK_V1 = "/v1/rerank", _RERANK
    RERANK_V2 = "/v2/rerank", _RERANK
    POOLING = "/pooling", Row("Pool the hidden states of texts.", ("input", "messages", "data"), "data")
    CLASSIFY = "/classify", Row("Classify texts.", ("input", "messages"), "data")
    TOKENIZE = "/tokenize", Row("Show the tokens of a text.", ("prompt", "messages"), "tokens")
    DETOKENIZE = "/detokenize", Row("Show the text of tokens.", ("tokens",), "prompt")
    VERSION = "/version", Row("Show the version of the engine.", (), "version", method="GET")

    @property
    def streams(self) -> bool:
        """Whether an answer may come token by token."""
        return self.row.events is not Events.NONE

    @property
    def generates(self) -> bool:
        """Whether its answer is text of the model's; of the others, the prompt is all the work."""
        return bool(self.row.limits)
