"""Web pages that an operator has allowed, and where clients send their keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
import redis

from bitladder.errors import ConfigError
from bitladder.settings.access import key_hash, new_key
from dispatcher.app import create_app
from tests.conftest import Stack, make_settings

BODY: dict[str, Any] = {"model": "smollm2", "prompt": "a b", "max_tokens": 2}
PAGE, OTHER = "https://app.example.org", "https://evil.example"
KEY = new_key()
KEYS = f'{{me = {{hash = "{key_hash(KEY.encode())}", tenant = "me"}}}}'


@pytest.fixture(scope="module")
def stack(redis_url: str) -> Iterator[Stack]:
    origins = f'["{PAGE}", "http://localhost:3000"]'
    stack = Stack(redis_url, BITLADDER_AUTH__KEYS=KEYS, BITLADDER_INTAKE__CORS_ORIGINS=origins)
    redis.Redis.from_url(redis_url).flushall()
    stack.intake()
    yield stack
    stack.stop()


def preflight(stack: Stack, origin: str) -> httpx2.Response:
    """Ask as a browser does before OpenAI's library for JavaScript may send a request of a page."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-lang",
    }
    return stack.http.options("/v1/chat/completions", headers={"Origin": origin} | asked)


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_page_may_send_what_openai_s_library_sends_and_read_what_is_answered(stack: Stack, origin: str) -> None:
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}

    allowed = preflight(stack, origin)
    answer = stack.http.post("/v1/jobs", json=BODY, headers=headers)

    assert allowed.status_code == 200
    assert {allowed.headers["access-control-allow-origin"], answer.headers["access-control-allow-origin"]} == {origin}
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
    assert {"DELETE", "GET", "POST"} <= set(allowed.headers["access-control-allow-methods"].split(", "))
    assert answer.status_code == 202
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"X-Job-Id", "X-Tier", "X-Request-Id", "Location", "Retry-After", "X-Should-Retry"} <= exposed


@pytest.mark.parametrize("path", ["/v1/models", "/v1/jobs/x", "/nowhere"])
def test_a_page_can_read_why_it_was_refused(stack: Stack, path: str) -> None:
    refused = stack.http.get(path, headers={"Origin": PAGE})

    assert refused.status_code in (401, 404)
    assert refused.json()["error"]["message"]
    assert refused.headers["access-control-allow-origin"] == PAGE


def test_other_pages_may_read_nothing(stack: Stack) -> None:
    answers = [preflight(stack, OTHER), stack.http.get("/v1/models", headers={"Origin": OTHER})]

    assert [answer.status_code for answer in answers] == [400, 401]
    assert all("access-control-allow-origin" not in answer.headers for answer in answers)


def test_no_page_may_where_none_is_named(redis_url: str) -> None:
    assert make_settings(redis_url).intake.cors_origins == ()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            {"intake__cors_origins": ["*"], "auth__keys": KEYS, "auth__required": False},
            "intake.cors_origins needs API keys",
        ),
        ({"intake__cors_origins": ["app.example.org"], "auth__keys": KEYS}, "must be origins as browsers send them"),
        ({"intake__cors_origins": [f"{PAGE}/"], "auth__keys": KEYS}, "must be origins as browsers send them"),
        (
            {"intake__cors_origins": ["https://*.example.org"], "auth__keys": KEYS},
            "must be origins as browsers send them",
        ),
    ],
)
def test_origins_that_cannot_be_are_refused_at_the_start(redis_url: str, flags: dict[str, Any], why: str) -> None:
    keys = {"me": {"hash": key_hash(KEY.encode()), "tenant": "me"}}

    with pytest.raises(ConfigError, match=why):
        make_settings(redis_url, **{name: keys if name == "auth__keys" else value for name, value in flags.items()})


def test_an_intake_for_web_pages_does_not_start_without_a_key(redis_url: str) -> None:
    with pytest.raises(ConfigError, match=r"intake\.cors_origins names web pages"):
        create_app(make_settings(redis_url, intake__cors_origins=[PAGE]))


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"api-key": KEY},
        {"X-Api-Key": KEY},
        {"Authorization": "Basic Og==", "x-api-key": KEY},
        {"Authorization": "Bearer none", "api-key": KEY},
    ],
)
def test_a_key_is_read_where_the_clients_of_others_send_it(stack: Stack, headers: dict[str, str]) -> None:
    assert stack.http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"api-key": "wrong"},
        {"x-api-key": ""},
        {"api-key": f"Bearer {KEY}"},
        {"Authorization": KEY},
        {"x-api-key": KEY * 10},
        {"Cookie": f"api-key={KEY}"},
    ],
)
def test_what_is_no_key_opens_nothing(stack: Stack, headers: dict[str, str]) -> None:
    refused = stack.http.get("/v1/models", headers=headers)

    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_azure_s_header_is_enough_for_openai_s_client(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", default_headers={"api-key": KEY}) as client:
        assert "smollm2" in [model.id for model in client.models.list()]
