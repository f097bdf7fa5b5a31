"""Clients of OpenAI's library, closed behind each test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import openai
import pytest

from tests.conftest import Stack
from tests.integration.responses.asking import ClientOf


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Make clients of stacks that ask for no keys, or for this one."""
    with contextlib.ExitStack() as clients:

        def make(stack: Stack, key: str = "none") -> openai.OpenAI:
            return clients.enter_context(openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0))

        yield make
