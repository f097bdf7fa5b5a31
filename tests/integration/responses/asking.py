"""What tests of responses ask for, and how they read what comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import openai
from openai.types.responses import ResponseStreamEvent

from tests.conftest import Stack

ClientOf = Callable[..., openai.OpenAI]
MakeStack = Callable[..., Stack]
ASKED: dict[str, Any] = {"model": "smollm2", "input": "w0 w1 w2 w3", "max_output_tokens": 4}


def texts(items: Iterable[Any]) -> list[str]:
    return [item.content[0].text for item in items]


def numbers(events: list[ResponseStreamEvent]) -> list[int]:
    return [event.sequence_number for event in events]
