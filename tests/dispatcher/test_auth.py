"""Authentication: settings of API keys, scopes, and the rate of a key."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from starlette.routing import Route
from structlog.testing import capture_logs

from bitladder.errors import AuthenticationError, ConfigError, RateLimitError
from bitladder.queue.server.connection import connect
from bitladder.settings.access import Scope, key_hash, new_key
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from dispatcher.app import create_app
from dispatcher.auth import Authenticator, AuthMiddleware, Requirement, is_key_required
from dispatcher.http.rate_headers import RATE
from tests.conftest import ROOT, make_settings
from tests.warm_start import BITLADDER

NOWHERE = "redis://127.0.0.1:1/0"
ANYWHERE = "0.0.0.0"  # noqa: S104  (nothing binds here)
KEY = new_key()


@pytest.fixture
async def authenticator(settings: Settings) -> AsyncIterator[Authenticator]:
    client = connect(settings.redis)
    yield Authenticator(settings, client, is_required=True)
    await client.aclose()


def one_key(**more: Any) -> dict[str, Any]:  # noqa: ANN401  (any setting of a key)
    return {"acme": {"hash": key_hash(KEY.encode()), "tenant": "acme", **more}}


def test_a_tenant_has_the_highest_weight_of_its_keys(settings: Settings) -> None:
    keys = {name: {"hash": key_hash(name.encode()), "tenant": "acme", "weight": n} for name, n in (("a", 5), ("b", 2))}
    with_keys = make_settings(settings.redis.url, auth__keys=one_key(tenant="other") | keys)
    authenticator = Authenticator(with_keys, connect(with_keys.redis), is_required=True)

    callers = [authenticator.authenticate([(b"api-key", name)]) for name in (b"a", b"b", KEY.encode())]

    assert [(caller.tenant, caller.weight) for caller in callers] == [("acme", 5), ("acme", 5), ("other", 1)]


@pytest.mark.parametrize(
    ("host", "required", "has_keys", "expected"),
    [
        ("127.0.0.1", None, False, False),
        ("localhost", None, False, False),
        ("::1", None, False, False),
        ("127.0.0.1", None, True, True),
        (ANYWHERE, None, True, True),
        (ANYWHERE, False, True, False),
        ("127.0.0.1", True, True, True),
    ],
)
def test_a_key_is_asked_for_where_others_can_reach_or_keys_are_configured(
    host: str, required: bool | None, has_keys: bool, expected: bool
) -> None:
    keys = one_key() if has_keys else {}

    settings = make_settings(NOWHERE, intake__host=host, auth__required=required, auth__keys=keys)

    assert is_key_required(settings) is expected


@pytest.mark.parametrize(
    "flags",
    [{"intake__host": ANYWHERE}, {"intake__host": "example.org"}, {"intake__host": "::"}, {"auth__required": True}],
)
def test_an_intake_that_would_need_keys_and_has_none_does_not_start(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"auth\.keys is empty.*bitladder keys new.*auth\.required = false"):
        create_app(make_settings(NOWHERE, **flags))


def test_requiring_no_key_where_others_can_reach_is_logged() -> None:
    with capture_logs() as logs:
        create_app(make_settings(NOWHERE, intake__host=ANYWHERE, auth__required=False))

    assert [(line["log_level"], line["host"]) for line in logs] == [("warning", ANYWHERE)]


@pytest.mark.parametrize(
    "flags",
    [
        {"auth.keys": {"acme": {"hash": "bl-PASSWORD", "tenant": "acme"}}},
        {"auth.keys": {"acme": {"key": "bl-PASSWORD", "hash": "0" * 64, "tenant": "acme"}}},
        {"auth.key": "bl-PASSWORD"},
        {"queue.secrets": "PASSWORD"},
        {"queue.secret": ["PASSWORD"]},
    ],
)
def test_no_error_shows_what_may_be_a_secret(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(str(ROOT / "bitladder.toml"), environ={}, flags=flags)

    assert "PASSWORD" not in str(caught.value)


def test_two_keys_cannot_be_the_same() -> None:
    both = one_key() | {"other": {"hash": key_hash(KEY.encode()), "tenant": "globex"}}

    with pytest.raises(ConfigError, match="keys acme and other have the same hash"):
        make_settings(NOWHERE, auth__keys=both)


def test_every_route_but_health_readiness_and_the_files_of_pages_requires_a_key() -> None:
    routes = [route for route in create_app(make_settings(NOWHERE)).routes if isinstance(route, Route)]

    public = {route.path for route in routes if not isinstance(route.app, AuthMiddleware)}
    assert public == {"/health", "/readyz", "/docs", "/docs/{file}", "/", "/ui/{page_file}"}
    reading = [
        route
        for route in routes
        if isinstance(route.app, AuthMiddleware) and route.app.requirement is Requirement.OPS_READ
    ]
    assert {"/v1/queues", "/metrics"} <= {route.path for route in reading}


def test_a_caller_is_known_by_its_key_and_by_nothing_else() -> None:
    authenticator = authenticator_of(make_settings(NOWHERE, auth__keys=one_key(scopes=["read"])))

    caller = authenticator.authenticate([(b"authorization", f"bearer {KEY}".encode())])

    assert (caller.tenant, caller.scopes) == ("acme", frozenset({Scope.READ}))
    digest = key_hash(KEY.encode())
    for value in (
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {digest}",
        f"Bearer {KEY}x",
        KEY,
        f"Basic {KEY}",
        f"Bearer {'x' * 999}",
    ):
        with pytest.raises(AuthenticationError):
            authenticator.authenticate([(b"authorization", value.encode())])


async def test_a_key_may_use_its_minute_at_once_and_then_evenly(
    authenticator: Authenticator, store: redis.Redis
) -> None:
    state: dict[str, Any] = {}
    for _ in range(6):
        await authenticator.count("acme", 6, state)
    left = dict(state[RATE])[b"x-ratelimit-remaining-requests"]

    with pytest.raises(RateLimitError) as caught:
        await authenticator.count("acme", 6, state)
    await authenticator.count("globex", 6, {})
    store.set("bl:rate:acme", float(store.get("bl:rate:acme") or 0) - 11_000)  # as if eleven seconds had passed
    await authenticator.count("acme", 6, state)
    with pytest.raises(RateLimitError):
        await authenticator.count("acme", 6, state)

    assert left == b"0"
    assert 5 < caught.value.retry_after_s <= 10
    assert 0 < int(store.pttl("bl:rate:acme")) <= 60_000


@pytest.mark.parametrize("planted", ["nan", "inf", "1e300", "-5", "what", "99999999999999"])
async def test_a_planted_rate_locks_no_key_out(authenticator: Authenticator, store: redis.Redis, planted: str) -> None:
    store.set("bl:rate:acme", planted)

    await authenticator.count("acme", 1, {})

    assert 0 < int(store.pttl("bl:rate:acme")) <= 60_000


def test_a_new_key_is_shown_once_and_its_settings_know_it() -> None:
    done = command("keys", "new", "--tenant", "acme", "--scopes", "submit,ops", "--name", "acme.ci", "--print")

    key, _, snippet = done.stdout.partition("\n")
    auth = tomllib.loads(snippet)["auth"]
    authenticator = authenticator_of(make_settings(NOWHERE, auth__keys=auth["keys"]))
    caller = authenticator.authenticate([(b"authorization", f"Bearer {key}".encode())])
    assert (caller.key, caller.tenant, caller.scopes) == ("acme.ci", "acme", frozenset({Scope.SUBMIT, Scope.OPS}))
    assert key not in snippet


def test_a_new_key_needs_scopes_that_exist() -> None:
    done = command("keys", "new", "--tenant", "acme", "--scopes", "root")

    assert done.returncode == 2
    assert "'submit', 'read', 'ops:read', 'ops:write' or 'ops', got 'root'" in done.stderr


def test_config_show_shows_no_hash() -> None:
    keys = json.dumps(one_key()["acme"]["hash"])

    done = command("config", "show", BITLADDER_AUTH__KEYS=f'{{acme = {{hash = {keys}, tenant = "acme"}}}}')

    assert 'auth.keys.acme.tenant = "acme"' in done.stdout
    assert key_hash(KEY.encode()) not in done.stdout


def authenticator_of(settings: Settings) -> Authenticator:
    return Authenticator(settings, connect(settings.redis), is_required=True)  # it connects when it counts


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment |= {"PYTHONPATH": str(ROOT), "BITLADDER_CONFIG": str(ROOT / "bitladder.toml")}
    return BITLADDER.run("bitladder.cli.main", *arguments, env=environment)
