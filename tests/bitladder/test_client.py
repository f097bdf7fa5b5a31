"""What the clients take before any intake is asked."""

from __future__ import annotations

import pytest

from bitladder.client import AsyncClient, Client
from bitladder.client.answers import base_url
from bitladder.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("https://llm.example/v1/", "https://llm.example"),
        ("https://example.org/llm/v1", "https://example.org/llm"),
    ],
)
def test_a_url_may_be_the_one_of_openai_s_clients(url: str, base: str) -> None:
    assert str(base_url(url)).rstrip("/") == base


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://user:geheim@:80:90"])
async def test_what_is_no_url_of_an_intake_is_refused_without_its_value(url: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(
            ConfigError, match=r"the URL of an intake .* must be as http://127\.0\.0\.1:8000"
        ) as refused:
            client(url)
        assert "geheim" not in str(refused.value)


async def test_a_client_can_be_closed_without_a_with() -> None:
    Client().close()
    await AsyncClient().aclose()
